"""What the page does when a person acts: asks the client, and turns answers and refusals into fragments and records.

Knows nothing of Gradio; every method is a plain function of its arguments.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from detector import words
from detector.client import Client
from detector.client.wire import as_problem
from detector.errors import DetectorError, NotAFile
from detector.schema import Colormap, Explanation, Health, Problem, Verdict
from gradio_app import fragments
from gradio_app.records import Record, data_address, record, shrunken

_SIDE = 1024  # pixels of the photo beside its heat map
_THUMBNAIL = 320
AWAY = {429, 503, 504}  # worth asking again


@dataclass(frozen=True)
class Seen:
    """What the page shows for one photo."""

    card: str
    figure: str
    facts: str
    record: Record | None = None
    waiting: bool = False


NOTHING = Seen("", "", "")


@dataclass(frozen=True)
class Judged:
    """A photo of a batch; its file lies in this session's uploads."""

    number: int
    path: Path
    record: Record


@dataclass(frozen=True)
class Desk:
    """One service; `key` is a session's own, or nothing for the client's."""

    client: Client

    def _asking(self, key: str) -> Client:
        return self.client.with_key(key) if key else self.client

    def health(self, key: str) -> Health | Problem:
        try:
            return self._asking(key).health()
        except DetectorError as error:
            return as_problem(error, "")

    def drift(self, key: str) -> str:
        """What the service says of drift, or why it says nothing."""
        try:
            return str(self._asking(key).drift())
        except DetectorError as error:
            return error.detail

    def look(self, path: str | None, colormap: Colormap, key: str) -> Seen:
        """Judge one photo and show why."""
        if not path:
            return NOTHING
        photo = Path(path)
        answer = self._explain(photo, colormap, key)
        if isinstance(answer, Problem):
            waiting = answer.status in AWAY
            return Seen(
                fragments.problem(answer, photo.name, waiting), "", "", record(photo.name, answer, None), waiting
            )
        return Seen(
            fragments.verdict(answer.verdict, photo.name),
            fragments.figure(answer, data_address(photo, _SIDE)),
            fragments.facts(answer.verdict),
            record(photo.name, answer.verdict, photo),
        )

    def _explain(self, path: Path, colormap: Colormap, key: str) -> Explanation | Problem:
        """At full opacity: the page lays the colours over the photo itself, so that the slider asks nobody."""
        try:
            return self._asking(key).explain(path, alpha=1.0, colormap=colormap, format="png")
        except DetectorError as error:
            return as_problem(error, "")
        except OSError:
            return as_problem(NotAFile("The photo is no longer kept here; choose it again."), "")

    def judge(self, paths: Sequence[str], key: str, on_progress: Callable[[int, int], None]) -> list[Judged]:
        """Judge many photos; each has its verdict or its error, in the order chosen."""
        photos = [Path(path) for path in paths]
        answer = self._asking(key).predict_batch(photos, on_progress=on_progress)
        judged = []
        for item, path in zip(answer.items, photos, strict=True):
            outcome: Verdict | Problem | None = item.verdict or item.error
            assert outcome is not None
            judged.append(Judged(item.index + 1, path, record(path.name, outcome, path)))
        return judged


def rows(judged: Sequence[Judged]) -> list[list[str | float | int | None]]:
    """Number, photo, verdict, AI probability in percent, confidence, error."""
    found: list[list[str | float | int | None]] = []
    for one in judged:
        verdict, problem = one.record.verdict, one.record.problem
        number = round(100 * verdict.probability, 1) if verdict else None
        found.append(
            [
                one.number,
                one.record.name,
                one.record.said,
                number,
                verdict.confidence if verdict else "",
                problem.detail if problem else "",
            ]
        )
    return found


def pictures(judged: Sequence[Judged]) -> list[tuple[Image.Image, str]]:
    """Thumbnails with their captions; a photo that was refused has a crossed sheet in its place."""
    found = []
    for one in judged:
        verdict = one.record.verdict
        picture = shrunken(one.path, _THUMBNAIL) if verdict else None
        number = f", {words.percent(verdict.probability)} AI" if verdict else ""
        found.append((picture or _crossed(), f"{one.number}. {one.record.said}{number}"))
    return found


def _crossed() -> Image.Image:
    sheet = Image.new("RGB", (_THUMBNAIL, _THUMBNAIL), "#d5dae1")
    pen, edge = ImageDraw.Draw(sheet), _THUMBNAIL // 3
    for start, end in (((edge, edge), (2 * edge, 2 * edge)), ((2 * edge, edge), (edge, 2 * edge))):
        pen.line((start, end), fill="#4b5563", width=10)
    return sheet
