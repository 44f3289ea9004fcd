"""What a model's experts say of photos: one row for each photo and variant, kept in a table that grows.

Scored by the runtime that ships, on the views that ship. Fusion, calibration and judgement read the table; a change
of theirs leaves it valid, a change of a network or a view does not.
"""

import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import islice
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from detector.artefact import Artefact
from detector.ensemble import Fusion, Plan
from detector.errors import InvalidImage
from detector.preprocess import make_views
from detector.runtime import Runtime, load_runtime
from training.augment import TIERS, to_tier
from training.data import LABELS, Photo, read_photo

FACTS = ("path", "label", "split", "source", "generator", "category", "style", "licence")
RESAVES = ("q90", "q75", "resize75")  # what a shop does to a photo without anyone's asking; see `to_variant`
VARIANTS = (*TIERS, *RESAVES)


class InvalidScores(ValueError):
    """A table of scores that can't be used; one line that says what to do."""


@dataclass(frozen=True)
class Row:
    """What the experts say of one photo in one variant."""

    photo: Photo  # its path is relative to the data's folder
    variant: str
    logits: tuple[float, ...]  # in the order of the table's experts


@dataclass(frozen=True)
class Scores:
    """Rows with the arrays that judging needs."""

    experts: tuple[str, ...]
    rows: tuple[Row, ...]

    def of(self, split: str | None = None, variants: Sequence[str] = TIERS) -> "Scores":
        """The rows of a split (None: of all) in some variants."""
        kept = (row for row in self.rows if row.variant in variants and split in (None, row.photo.split))
        return replace(self, rows=tuple(kept))

    def where(self, wanted: Callable[[Photo], bool]) -> "Scores":
        return replace(self, rows=tuple(row for row in self.rows if wanted(row.photo)))

    @property
    def photos(self) -> list[Photo]:
        return [row.photo for row in self.rows]

    @property
    def labels(self) -> NDArray[np.int_]:
        return np.array([row.photo.label for row in self.rows], np.int_)

    @property
    def sources(self) -> list[str]:
        return [row.photo.source for row in self.rows]

    @property
    def variants(self) -> list[str]:
        return [row.variant for row in self.rows]

    @property
    def logits(self) -> NDArray[np.float64]:
        """(rows, experts)"""
        return np.array([row.logits for row in self.rows], np.float64).reshape(len(self.rows), len(self.experts))

    def fused(self, fusion: Fusion) -> NDArray[np.float64]:
        """(rows,) logits of a profile, uncalibrated."""
        weights = np.array([fusion.weights.get(name, 0.0) for name in self.experts])
        return np.asarray(self.logits @ weights + fusion.bias, np.float64)


def to_variant(photo: Image.Image, variant: str) -> Image.Image:
    """A tier, or one more save: `q<quality>` as JPEG, `resize<percent>` of each side and then JPEG q90."""
    if variant in TIERS:
        return to_tier(photo, variant)
    if variant not in RESAVES:
        raise ValueError(f"{variant!r} is no variant; there are {', '.join(VARIANTS)}")
    if variant.startswith("resize"):
        share = int(variant.removeprefix("resize")) / 100
        width, height = (max(1, round(side * share)) for side in photo.size)
        return _saved(photo.resize((width, height), Image.Resampling.LANCZOS), 90)
    return _saved(photo, int(variant.removeprefix("q")))


def fingerprint(artefact: Artefact) -> str:
    """A hash of all that decides the experts' logits: networks, weights, views; fusion and calibration are left out."""
    spec, files = artefact.spec, artefact.manifest.files
    experts = [
        [expert.model_dump(), *(files[name] for name in (expert.network, *expert.weights))] for expert in spec.experts
    ]
    decides = {"size": spec.size, "views": [view.model_dump() for view in spec.views], "experts": experts}
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def everything(artefact: Artefact) -> Plan:
    """A plan of every expert, whatever the profiles use."""
    spec = artefact.spec
    return Plan("all", spec.size, spec.views, spec.experts, Fusion(weights={one.name: 1.0 for one in spec.experts}))


def fill(
    table: Path,
    artefact: Artefact,
    photos: Sequence[Photo],
    root: Path,
    variants: Sequence[str] = VARIANTS,
    threads: int = 0,
) -> dict[str, str]:
    """Score what the table lacks, and return the photos that can't be read, by path, with the reason.

    A broken photo is not kept in the table, so that it is tried again. InvalidScores where the table holds the
    scores of other networks.
    """
    plan = everything(artefact)
    done = _open(table, fingerprint(artefact), plan)
    todo = []
    for photo in photos:
        missing = tuple(variant for variant in variants if (_relative(photo, root), variant) not in done)
        if missing:
            todo.append((photo, missing))
    broken: dict[str, str] = {}
    if not todo:
        return broken
    runtime = load_runtime(artefact.folder, plan, "cpu", threads=threads)
    with table.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        bar = tqdm(_prepared(todo, plan), total=len(todo), unit="photo", desc="score", disable=None)
        for (photo, missing), views in bar:
            path = _relative(photo, root)
            if isinstance(views, str):
                broken[path] = views
                continue
            for variant, logits in zip(missing, _logits(runtime, views), strict=True):
                writer.writerow([*_facts(photo, path), variant, *(f"{logit:.6g}" for logit in logits)])
            file.flush()
    return broken


def read(table: Path, artefact: Artefact | None = None) -> Scores:
    """A table's rows; InvalidScores where there is none, or it belongs to other networks than `artefact`'s."""
    try:
        header = json.loads(_header(table).read_text(encoding="utf-8"))
        with table.open(encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file))
    except (OSError, ValueError):
        raise InvalidScores(f"{table}: there are no scores; `python -m training score` makes them") from None
    if artefact is not None and header["fingerprint"] != fingerprint(artefact):
        raise InvalidScores(f"{table}: holds the scores of other networks; name another file, or remove it")
    return Scores(tuple(header["experts"]), tuple(_row(line) for line in lines))


def _open(table: Path, wanted: str, plan: Plan) -> set[tuple[str, str]]:
    """(path, variant) of the rows that are there; half a line, from a run that was killed, is cut off."""
    header = {"fingerprint": wanted, "experts": [expert.name for expert in plan.experts]}
    if not table.exists():
        table.parent.mkdir(parents=True, exist_ok=True)
        _header(table).write_text(json.dumps(header) + "\n", encoding="utf-8")
        table.touch()
        return set()
    whole = table.read_bytes()
    if not whole.endswith(b"\n"):
        table.write_bytes(whole[: whole.rfind(b"\n") + 1])
    scores = read(table)
    if json.loads(_header(table).read_text(encoding="utf-8")) != header:
        raise InvalidScores(f"{table}: holds the scores of other networks; name another file, or remove it")
    return {(row.photo.path.as_posix(), row.variant) for row in scores.rows}


def _header(table: Path) -> Path:
    return table.with_suffix(".json")


def _row(line: list[str]) -> Row:
    path, label, *facts = line[: len(FACTS)]
    variant, *logits = line[len(FACTS) :]
    photo = Photo(Path(path), LABELS.index(label), *facts)
    return Row(photo, variant, tuple(map(float, logits)))


def _facts(photo: Photo, path: str) -> list[str]:
    return [
        path,
        LABELS[photo.label],
        photo.split,
        photo.source,
        photo.generator,
        photo.category,
        photo.style,
        photo.licence,
    ]


def _relative(photo: Photo, root: Path) -> str:
    """As the table names a photo: by its place in the data's folder, the same on every machine."""
    path = photo.path.relative_to(root) if photo.path.is_relative_to(root) else photo.path
    return str(PurePosixPath(path))


Job = tuple[Photo, tuple[str, ...]]


def _prepared(todo: Sequence[Job], plan: Plan) -> Iterator[tuple[Job, NDArray[np.uint8] | str]]:
    """Each job with its views, cut two photos ahead of the network."""
    with ThreadPoolExecutor(2) as pool:
        rest = iter(todo)
        waiting = [(job, pool.submit(_views, job, plan)) for job in islice(rest, 4)]
        while waiting:
            job, views = waiting.pop(0)
            yield job, views.result()
            waiting += [(job, pool.submit(_views, job, plan)) for job in islice(rest, 1)]


def _views(job: Job, plan: Plan) -> NDArray[np.uint8] | str:
    """(variants, views, 3, size, size), or why the photo can't be read."""
    photo, variants = job
    try:
        pixels = read_photo(photo)
    except InvalidImage as error:
        return error.detail
    except OSError:
        return "The file can't be opened."
    return np.stack([make_views(to_variant(pixels, variant), plan.views, plan.size) for variant in variants])


def _logits(runtime: Runtime, views: NDArray[np.uint8]) -> Iterator[list[float]]:
    for evidence in runtime.score(views):
        found = runtime.plan.logits(evidence)
        yield [found[expert.name] for expert in runtime.plan.experts]


def _saved(photo: Image.Image, quality: int) -> Image.Image:
    buffer = BytesIO()
    photo.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")
