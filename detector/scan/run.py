"""The run's own manifest, run.json: what was asked, of which model, how far it came; and whether a scan may go on.

A part is done when its file is there, so nothing else has to be right after a kill. Knows not how parts are made.
"""

import re
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from detector.errors import InvalidScan
from detector.scan.results import Format
from detector.scan.storage import Store
from detector.schema import ModelInfo

NAME = "run.json"
_PART = re.compile(r"part-(\d{6,})\.")


class _Written(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Wanted(_Written):
    """What a scan was asked to do. One that goes on must be asked the same."""

    source: str
    columns: dict[str, str | None]
    format: Format
    part_size: int
    near_duplicates: bool
    model: ModelInfo
    settings: dict[str, Any]  # sections that bear on verdicts


class Counts(_Written):
    """Rows by what they say; `judged` had work done for them, `reused` had not."""

    photos: int = 0
    real: int = 0
    ai_generated: int = 0
    uncertain: int = 0
    errors: int = 0
    unfetched: int = 0
    reused: int = 0


class Run(_Written):
    """run.json."""

    release: str
    wanted: Wanted
    started: datetime
    photos: int | None = None  # None until the listing is complete
    state: Literal["listing", "running", "finished"] = "listing"
    finished: datetime | None = None
    seconds: float = 0.0  # of work, all sittings together
    counts: Counts | None = None

    @property
    def parts(self) -> int:
        return -(-(self.photos or 0) // self.wanted.part_size)


def begin(store: Store, wanted: Wanted, release: str) -> Run:
    """The run in this folder, which must be this very one, or a new one in an empty folder."""
    found = read(store)
    if found is None and store.names():
        raise InvalidScan(f"{store.address} holds other files; name an empty folder, or that of an earlier scan.")
    if found is None or found.photos is None:  # what never got to the end of its listing binds nobody
        return Run(release=release, wanted=wanted, started=datetime.now(UTC))
    if found.release != release:
        raise InvalidScan(f"The scan in {store.address} was begun by release {found.release}; this is {release}.")
    differing = _difference(found.wanted.model_dump(mode="json"), wanted.model_dump(mode="json"))
    if differing:
        raise InvalidScan(f"The scan in {store.address} was begun with another {differing}; name another folder.")
    return found


def read(store: Store) -> Run | None:
    """The manifest of an earlier sitting; InvalidScan where it can't be read."""
    if not store.exists(NAME):
        return None
    try:
        return Run.model_validate_json(store.read(NAME))
    except ValidationError:
        raise InvalidScan(f"{NAME} in {store.address} is not a scan's.") from None


def save(store: Store, run: Run) -> None:
    store.write(NAME, (run.model_dump_json(indent=1) + "\n").encode())


def part_name(part: int, format: Format) -> str:
    return f"results/part-{part:06d}.{format}"


def done_parts(store: Store) -> set[int]:
    return {int(found[1]) for found in map(_PART.match, store.names("results")) if found}


def _difference(ours: Any, theirs: Any, name: str = "") -> str:
    """The first setting in which two trees differ, by its dotted name."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted({*ours, *theirs}):
            found = _difference(ours.get(key), theirs.get(key), f"{name}.{key}".lstrip("."))
            if found:
                return found
        return ""
    return "" if ours == theirs else name
