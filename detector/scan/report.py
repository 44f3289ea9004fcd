"""A summary as tables in a terminal and as one page of HTML that loads nothing.

Everything in it that a file or a manifest says is a stranger's text, and is escaped.
"""

from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from PIL import Image
from rich.console import Console
from rich.table import Table
from rich.text import Text

from detector import words
from detector.config import Settings
from detector.errors import DetectorError
from detector.image import Limits, decode
from detector.scan.run import Run
from detector.scan.summary import Flagged, Summary

SIDE = 160  # pixels, of a thumbnail
LABELS = ("real", "uncertain", "ai_generated")


@dataclass(frozen=True)
class Shown:
    """A flagged photo with its picture as a data address; empty where it is not shown, or gone."""

    photo: Flagged
    picture: str = ""


def print_summary(run: Run, seen: Summary, console: Console | None = None) -> None:
    console = console or Console(highlight=False)
    table = Table("verdict", "photos", "share", title=f"{seen.photos:,} photos, {seen.judged:,} judged")
    for name, count, share in verdict_rows(seen):
        table.add_row(name, count, share)
    console.print(table)
    if seen.errors:
        table = Table("error", "photos")
        for code, photos in seen.errors.most_common():
            table.add_row(code, f"{photos:,}")
        console.print(table)
    if seen.worst:
        table = Table("source", "photos", "flagged", "share", "at least", title=f"Worst of {seen.sources:,} sources")
        for row in source_rows(seen):
            table.add_row(Text(visible(row[0])), *row[1:])
        console.print(table)
    if run.seconds:
        console.print(
            f"{run.seconds:.0f} s of work; {seen.reused:,} photos were copies of others and not judged again."
        )


def draw(run: Run, seen: Summary, shown: Sequence[Shown]) -> str:
    """The page."""
    environment = Environment(autoescape=True, loader=FileSystemLoader(Path(__file__).parent))
    peak = max([*seen.histogram, 1])
    return environment.get_template("report.html").render(
        run=run,
        seen=seen,
        model=run.wanted.model,
        verdicts=verdict_rows(seen),
        errors=seen.errors.most_common(),
        sources=[(visible(row[0]), *row[1:]) for row in source_rows(seen)],
        bars=[(index / len(seen.histogram), count, 100 * count / peak) for index, count in enumerate(seen.histogram)],
        claims=seen.claims.most_common(),
        shown=[(visible(one.photo.address), words.percent(one.photo.probability), one.picture) for one in shown],
    )


def verdict_rows(seen: Summary) -> list[tuple[str, str, str]]:
    return [(words.headline(label), f"{seen.labels[label]:,}", f"{seen.rate(label):.1%}") for label in LABELS]


def source_rows(seen: Summary) -> list[tuple[str, str, str, str, str]]:
    rows = []
    for one in seen.worst:
        judged = one.photos - one.errors
        rows.append((one.source, f"{judged:,}", f"{one.flagged:,}", f"{one.flagged / judged:.0%}", f"{one.floor:.0%}"))
    return rows


def thumbnails(photos: Sequence[Flagged], fetch: Callable[[str], bytes], settings: Settings) -> list[Shown]:
    """Fetched once more; a photo that is gone by now is named without its picture."""
    sizes = settings.photo
    limits = Limits(sizes.max_bytes, sizes.max_pixels, sizes.max_side, sizes.min_side, frozenset(sizes.formats))
    shown = []
    for photo in photos:
        try:
            shown.append(Shown(photo, _picture(decode(fetch(photo.address), limits).pixels)))
        except DetectorError:
            shown.append(Shown(photo))
    return shown


def visible(text: str) -> str:
    """Control and direction marks shown, not obeyed."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def _picture(pixels: Image.Image) -> str:
    small: Any = pixels.copy()
    small.thumbnail((SIDE, SIDE))
    buffer = BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{b64encode(buffer.getvalue()).decode('ascii')}"
