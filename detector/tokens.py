"""JWT bearer tokens: whose they are and what they may do, or why not.

Each key has one algorithm, taken from the key and never from the token: a shared secret HS256, an RSA key RS256, a
P-256 key ES256. So `none`, a public key used as a secret, and a key inside the token have no way in.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import HTTPRedirectHandler, OpenerDirector, build_opener

import jwt
from jwt.algorithms import AllowedPublicKeys, ECAlgorithm, RSAAlgorithm

from detector.errors import IdentityUnavailable, InvalidSettings, Unauthenticated

logger = logging.getLogger("bentoml.detector")
_MOST_BYTES = 1 << 20  # of a key set; of a token, see _LONGEST
_LONGEST = 8192  # characters of a token: proxies and uvicorn allow about that much header
_LEAST_RSA = 2048  # bits (NIST SP 800-131A)
_READERS: Mapping[tuple[str, str], tuple[str, Any]] = {
    ("RSA", ""): ("RS256", RSAAlgorithm),
    ("EC", "P-256"): ("ES256", ECAlgorithm),
}


@dataclass(frozen=True)
class PublicKey:
    algorithm: str
    key: AllowedPublicKeys


@dataclass(frozen=True)
class TokenRules:
    """What a token must say to count."""

    issuer: str
    audience: str
    leeway: int  # seconds
    scope_claim: str


@dataclass(frozen=True)
class Claims:
    subject: str
    scopes: frozenset[str]


class Tokens:
    """Checks tokens against a shared secret, a key set, or both."""

    def __init__(self, rules: TokenRules, secret: bytes | None, key_set: "KeySet | None") -> None:
        self._rules, self._secret, self._key_set = rules, secret, key_set

    async def check(self, token: str) -> Claims:
        """Raises Unauthenticated with a sentence that says which rule the token breaks."""
        if len(token) > _LONGEST:
            raise Unauthenticated("The bearer token is too long.")
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError:
            raise Unauthenticated("The bearer token is not a JWT.") from None
        algorithm, key = await self._key(header)
        return read_claims(_verify(token, algorithm, key, self._rules), self._rules.scope_claim)

    async def _key(self, header: Mapping[str, Any]) -> tuple[str, Any]:
        """The key the token asks for, and the one algorithm that key is for."""
        named, wanted = header.get("kid"), header.get("alg")
        if wanted == "HS256" and self._secret:
            return "HS256", self._secret
        if wanted in ("RS256", "ES256") and self._key_set and isinstance(named, str | None):
            found = await self._key_set.find(named)
            if found and found.algorithm == wanted:
                return found.algorithm, found.key
            raise Unauthenticated("The bearer token is signed with a key that is not known here.")
        raise Unauthenticated("The bearer token's algorithm is not taken here.")


def _verify(token: str, algorithm: str, key: Any, rules: TokenRules) -> dict[str, Any]:
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            issuer=rules.issuer,
            audience=rules.audience,
            leeway=rules.leeway,
            options={"require": ["exp", "sub"]},
        )
    except jwt.ExpiredSignatureError:
        raise Unauthenticated("The bearer token has expired.") from None
    except jwt.InvalidIssuerError:
        raise Unauthenticated("The bearer token is from another issuer.") from None
    except jwt.InvalidAudienceError:
        raise Unauthenticated("The bearer token is for another audience.") from None
    except jwt.MissingRequiredClaimError:
        raise Unauthenticated("The bearer token lacks a claim; iss, aud, sub and exp are needed.") from None
    except (jwt.InvalidTokenError, ValueError, TypeError, OverflowError):  # a stranger's claims may be anything
        raise Unauthenticated("The bearer token is not valid.") from None
    return claims


def read_claims(claims: Mapping[str, Any], scope_claim: str) -> Claims:
    """Subject and scopes; scopes are one string with spaces between (RFC 8693) or a list of strings."""
    subject, given = claims.get("sub"), claims.get(scope_claim, "")
    if not isinstance(subject, str) or not 0 < len(subject) <= 255:
        raise Unauthenticated("The bearer token's subject is empty or too long.")
    names = given.split() if isinstance(given, str) else given if isinstance(given, list) else []
    return Claims(subject, frozenset(name for name in names if isinstance(name, str)))


def parse_key_set(document: bytes) -> dict[str | None, PublicKey]:
    """A JWKS document (RFC 7517) -> usable public keys by `kid`; raises ValueError where there is none.

    Secrets (kty oct), keys for encryption and keys of other kinds are passed over.
    """
    tree = json.loads(document)
    entries = tree.get("keys") if isinstance(tree, dict) else None
    found = {}
    for entry in entries if isinstance(entries, list) else []:
        key = _public_key(entry) if isinstance(entry, dict) else None
        if key:
            found[entry.get("kid")] = key
    if not found:
        raise ValueError("no usable key")
    return found


def _public_key(entry: Mapping[str, Any]) -> PublicKey | None:
    kind = str(entry.get("kty")), str(entry.get("crv", ""))
    if kind not in _READERS:
        return None
    algorithm, reader = _READERS[kind]
    if entry.get("use", "sig") != "sig" or entry.get("alg", algorithm) != algorithm:
        return None
    public = {name: value for name, value in entry.items() if name not in {"d", "p", "q", "dp", "dq", "qi"}}
    try:
        key = reader.from_jwk(public)
    except (jwt.InvalidKeyError, ValueError, TypeError):
        return None
    if algorithm == "RS256" and key.key_size < _LEAST_RSA:
        return None
    return PublicKey(algorithm, key)


class KeySet:
    """Public keys from a file or an address: fetched off the event loop, kept, and kept on where a fetch fails."""

    def __init__(
        self,
        source: str,
        ttl: float,
        timeout: float,
        cooldown: float = 10.0,
        fetch: Callable[[str, float], bytes] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Seconds: ttl until keys are fetched again, timeout of one fetch, cooldown between two fetches."""
        self._source, self._ttl, self._timeout, self._cooldown = source, ttl, timeout, cooldown
        self._fetch, self._clock = fetch or fetch_bytes, clock
        self._keys: dict[str | None, PublicKey] = {}
        self._fetched = self._tried = float("-inf")
        self._refresh: asyncio.Task[None] | None = None

    async def find(self, name: str | None) -> PublicKey | None:
        """The key of this `kid`; without one, the only key there is. Raises IdentityUnavailable before any is known.

        An unknown name may be a new key, so it is worth a fetch; but strangers name what they like, so one a cooldown.
        """
        found = self._look(name)
        stale = self._clock() - self._fetched > self._ttl
        if found is None or stale:
            refresh = self._start_refresh()
            if refresh and found is None:
                await asyncio.shield(refresh)
                found = self._look(name)
        if not self._keys:
            raise IdentityUnavailable(retry_after=int(self._cooldown))
        return found

    def _look(self, name: str | None) -> PublicKey | None:
        if name is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(name)

    def _start_refresh(self) -> asyncio.Task[None] | None:
        if self._refresh is None and self._clock() - self._tried > self._cooldown:
            self._tried = self._clock()
            self._refresh = asyncio.create_task(self._fetch_keys())
        return self._refresh

    async def _fetch_keys(self) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                document = await asyncio.to_thread(self._fetch, self._source, self._timeout)
            self._keys, self._fetched = parse_key_set(document), self._clock()
        except (OSError, ValueError) as error:  # URLError and TimeoutError are OSErrors
            kept = "the keys read before stay in force" if self._keys else "no bearer token can be checked"
            logger.error("The key set (jwt.key_set) can't be read (%s); %s.", type(error).__name__, kept)
        finally:
            self._refresh = None


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """A key set that moves is for the operator to confirm, not for whoever answers at the old address."""


def fetch_bytes(source: str, timeout: float) -> bytes:
    """A file's or an http(s) address's bytes, a mebibyte at most; raises OSError."""
    if not source.startswith(("https://", "http://")):
        with Path(source).open("rb") as file:
            return file.read(_MOST_BYTES)
    opener: OpenerDirector = build_opener(_NoRedirects)
    with opener.open(source, timeout=timeout) as answer:
        body: bytes = answer.read(_MOST_BYTES)
    return body


def read_secret(path: Path) -> bytes:
    """A shared secret of at least 32 bytes (RFC 7518, 3.2), without the line end an editor adds."""
    try:
        secret = path.read_bytes().strip()
    except OSError:
        raise InvalidSettings(f"The secret file {path} can't be read.") from None
    if len(secret) < 32:
        raise InvalidSettings(f"The secret in {path} is shorter than 32 bytes.")
    return secret
