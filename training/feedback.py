"""What people said of decisions, as photos to train on: records and a folder of photos -> a manifest.

The service's records name photos by SHA-256 alone; the photos are those it kept, or the operator's own.
"""

import csv
import hashlib
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from detector.decisions import read_labelled
from detector.schema import Decision, Truth
from training.data import LABELS, SUFFIXES, InvalidDataset

COLUMNS = ("path", "label", "source")
_NAMES: Mapping[Truth, str] = {"real": LABELS[0], "ai_generated": LABELS[1]}


@dataclass(frozen=True)
class Pulled:
    """What became of the labelled decisions, in photos."""

    manifest: Path
    photos: int
    missing: int  # labelled, but in no folder
    changed: int  # labelled both ways; the last label counts

    def __str__(self) -> str:
        return (
            f"{self.photos} labelled photos: {self.manifest}; {self.missing} are in no folder given, {self.changed} "
            "were labelled both ways (the last counts). Next: data."
        )


def pull(records: Path, photos: Path, out: Path) -> Pulled:
    """Copy every labelled photo that `photos` holds into `out`, with a manifest.csv of path, label and source.

    The source is the caller whose photo it was. Raises InvalidDataset where there is nothing to pull.
    """
    try:
        said = list(read_labelled(records))
    except OSError as error:
        raise InvalidDataset(f"{records}: {error}") from None
    latest, changed = _latest(said)
    if not latest:
        raise InvalidDataset(f"{records}: holds no labelled decisions")
    found = _by_hash(photos)
    rows = [_row(latest[sha], found[sha], out) for sha in sorted(latest.keys() & found.keys())]
    manifest = _write(out, rows)
    return Pulled(manifest, len(rows), len(latest) - len(rows), changed)


def _latest(said: Iterable[Decision]) -> tuple[dict[str, Decision], int]:
    """The decision with the last label of each photo, and how many photos were labelled both ways."""
    latest: dict[str, Decision] = {}
    labels: dict[str, set[str]] = {}
    for decision in sorted(said, key=lambda one: one.correction.time if one.correction else one.time):
        assert decision.correction
        sha = decision.verdict.image.sha256
        latest[sha] = decision
        labels.setdefault(sha, set()).add(decision.correction.label)
    return latest, sum(len(both) > 1 for both in labels.values())


def _by_hash(folder: Path) -> dict[str, Path]:
    files = (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES and path.is_file())
    return {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in files}


def _row(decision: Decision, photo: Path, out: Path) -> tuple[str, str, str]:
    assert decision.correction
    name = f"photos/{decision.verdict.image.sha256}{photo.suffix.lower()}"
    (out / "photos").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(photo, out / name)
    return name, _NAMES[decision.correction.label], decision.caller or ""


def _write(out: Path, rows: list[tuple[str, str, str]]) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    manifest = out / "manifest.csv"
    with manifest.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([COLUMNS, *rows])
    return manifest
