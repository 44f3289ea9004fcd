"""What the page remembers of a photo in one browser session, and how that leaves as CSV or JSON.

Knows neither Gradio nor the service. Thumbnails are made only of photos that the service has accepted.
"""

import csv
import io
import json
from base64 import b64encode
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from PIL import Image, ImageOps

from detector import words
from detector.schema import Problem, Verdict

COLUMNS = (
    "time",
    "photo",
    "label",
    "probability",
    "confidence",
    "threshold_real",
    "threshold_ai_generated",
    "model",
    "model_version",
    "sha256",
    "request_id",
    "decision_id",
    "error",
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


@dataclass(frozen=True)
class Record:
    """One photo that was asked about; exactly one of `verdict` and `problem` is set."""

    time: datetime
    name: str
    verdict: Verdict | None
    problem: Problem | None
    thumbnail: str  # a data address, or nothing for a photo that was refused

    @property
    def kind(self) -> str:
        """The label, or `error`; what a filter asks for."""
        return self.verdict.label if self.verdict else "error"

    @property
    def said(self) -> str:
        return words.headline(self.verdict.label) if self.verdict else "Not judged"


def record(name: str, outcome: Verdict | Problem, path: Path | None, now: datetime | None = None) -> Record:
    verdict = outcome if isinstance(outcome, Verdict) else None
    thumbnail = data_address(path, 96) if verdict and path else ""
    problem = outcome if isinstance(outcome, Problem) else None
    return Record(now or datetime.now(UTC), name, verdict, problem, thumbnail)


def shrunken(path: Path, side: int) -> Image.Image | None:
    """The photo, upright, in RGB, with a long side of at most `side` pixels; None where Pillow can't read it here."""
    try:
        with Image.open(path) as photo:
            photo.draft("RGB", (2 * side, 2 * side))
            upright = ImageOps.exif_transpose(photo)
            upright.thumbnail((side, side))
            return upright.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def data_address(path: Path, side: int) -> str:
    """The shrunken photo inside an address, so that no file of it is kept; nothing where it can't be read."""
    picture, buffer = shrunken(path, side), io.BytesIO()
    if picture is None:
        return ""
    picture.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{b64encode(buffer.getvalue()).decode('ascii')}"


def to_csv(records: list[Record]) -> str:
    """A header and one line for each record; a spreadsheet finds no formula in a file's name."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(COLUMNS)
    writer.writerows([_inert(cell) for cell in _cells(one)] for one in records)
    return buffer.getvalue()


def to_json(records: list[Record]) -> str:
    """Every record whole: the service's own verdict or problem, as it was answered."""
    found = [
        {
            "time": one.time.isoformat(timespec="seconds"),
            "photo": one.name,
            "verdict": one.verdict.model_dump() if one.verdict else None,
            "error": one.problem.model_dump() if one.problem else None,
        }
        for one in records
    ]
    return json.dumps(found, indent=2, ensure_ascii=False)


def _cells(one: Record) -> list[str]:
    first = [one.time.isoformat(timespec="seconds"), one.name]
    verdict, problem = one.verdict, one.problem
    if verdict is None:
        assert problem is not None
        return [*first, *[""] * 8, problem.request_id, "", f"{problem.code}: {problem.detail}"]
    return [
        *first,
        verdict.label,
        str(verdict.probability),
        verdict.confidence,
        str(verdict.thresholds.real),
        str(verdict.thresholds.ai_generated),
        verdict.model.name,
        verdict.model.version,
        verdict.image.sha256,
        verdict.request_id,
        verdict.decision_id or "",
        "",
    ]


def _inert(cell: str) -> str:
    """Spreadsheets run what begins like a formula; an apostrophe before it makes it text."""
    return f"'{cell}" if cell.lstrip(" ").startswith(_FORMULA) else cell
