"""API keys: minted once, kept as salted hashes, checked in constant time.

Knows no HTTP. A key holds 256 random bits, so one salted HMAC-SHA256 is right: nobody can try them out, and a slow
password hash (argon2) would let any stranger spend tens of milliseconds of our CPU with each wrong key.
"""

import hashlib
import hmac
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from detector.errors import InvalidSettings

logger = logging.getLogger("bentoml.detector")
Scope = Literal["predict", "batch", "explain", "feedback", "drift", "admin"]
_KEY = re.compile(r"ppd_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")


class Key(BaseModel):
    """What is kept of a key. `name` is whose it is: two keys of one name share one budget, and may overlap."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[0-9a-f]{12}$")
    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    scopes: tuple[Scope, ...] = Field(min_length=1)
    salt: str = Field(pattern=r"^[0-9a-f]{32}$")
    hash: str = Field(pattern=r"^[0-9a-f]{64}$")
    created: AwareDatetime
    expires: AwareDatetime | None = None
    revoked: AwareDatetime | None = None

    def state(self, now: datetime) -> Literal["valid", "expired", "revoked"]:
        if self.revoked and self.revoked <= now:
            return "revoked"
        return "expired" if self.expires and self.expires <= now else "valid"


class _Ring(BaseModel):
    model_config = ConfigDict(extra="forbid")

    keys: tuple[Key, ...] = ()


_EPOCH = datetime.fromtimestamp(0, UTC)
_NOBODY = Key(id="0" * 12, name="nobody", scopes=("predict",), salt="0" * 32, hash="0" * 64, created=_EPOCH)


def mint(name: str, scopes: Sequence[Scope], now: datetime, days: int | None = None) -> tuple[str, Key]:
    """A new key as its owner gets it, once, and as it is kept."""
    secret, salt = secrets.token_urlsafe(32), secrets.token_hex(16)
    kept = Key(
        id=secrets.token_hex(6),
        name=name,
        scopes=tuple(scopes),
        salt=salt,
        hash=_hash(salt, secret),
        created=now,
        expires=now + timedelta(days=days) if days else None,
    )
    return f"ppd_{kept.id}_{secret}", kept


def find(text: str, keys: Mapping[str, Key]) -> Key | None:
    """The kept key that `text` is, expired and revoked ones too; an unknown id takes the time of a known one."""
    parts = _KEY.fullmatch(text)
    named, secret = parts.groups() if parts else ("", "")
    key = keys.get(named, _NOBODY)
    return key if hmac.compare_digest(_hash(key.salt, secret), key.hash) else None


def _hash(salt: str, secret: str) -> str:
    return hmac.new(bytes.fromhex(salt), secret.encode(), hashlib.sha256).hexdigest()


def read(path: Path) -> dict[str, Key]:
    """Kept keys by id; raises InvalidSettings."""
    try:
        ring = _Ring.model_validate_json(path.read_bytes())
    except OSError:
        raise InvalidSettings(f"The key file {path} can't be read.") from None
    except ValidationError:
        raise InvalidSettings(f"The key file {path} is not one; `python -m detector.keys` writes it.") from None
    return {key.id: key for key in ring.keys}


def write(path: Path, keys: Mapping[str, Key]) -> None:
    """Replace the file in one step, readable by its owner alone."""
    draft = path.with_name(path.name + ".new")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        out.write(_Ring(keys=tuple(keys.values())).model_dump_json(indent=1) + "\n")
    draft.replace(path)


class Keyring:
    """The key file as it is now: a change counts within `interval` seconds, a damaged one keeps the old keys."""

    def __init__(self, path: Path, interval: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._interval, self._clock = path, interval, clock
        self._keys, self._seen, self._looked = read(path), self._stamp(), clock()

    def find(self, text: str) -> Key | None:
        self._refresh()
        return find(text, self._keys)

    def _refresh(self) -> None:
        if self._clock() - self._looked < self._interval:
            return
        self._looked, stamp = self._clock(), self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._keys = read(self._path)
        except InvalidSettings as error:
            logger.error("%s The keys read before stay in force.", error.detail)

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size


def now() -> datetime:
    return datetime.now(UTC)
