"""Labelled photos: a manifest or a folder -> `Photo` rows, their weights, folds by source and an integrity check.

Holds no pixels beyond the photo in hand. What the photos suffer is `augment`'s, how they are judged `evaluate`'s.
"""

import csv
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.model_selection import StratifiedGroupKFold
from tqdm import tqdm

from detector.errors import InvalidImage
from detector.facts import TWIN_BITS, perceptual_hash
from detector.image import Limits, decode

LABELS = ("real", "ai")  # position = Photo.label
REQUIRED = ("path", "label")
OPTIONAL = ("split", "source", "generator", "category", "style", "licence", "width", "height", "bytes")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".avif"})
LIMITS = Limits(  # wider than the service's: the photos are the trainer's own
    max_bytes=100_000_000,
    max_pixels=100_000_000,
    max_side=30_000,
    min_side=16,
    formats=frozenset({"JPEG", "PNG", "WEBP", "AVIF"}),
)
TWIN_PIXELS = 8.0  # mean difference of 16 x 16 grey thumbnails, 0..255
GENERATOR_SHARE = 0.75  # see `balance`

Indices = NDArray[np.intp]


class InvalidDataset(ValueError):
    """The photos as a whole can't be used; one line that says what to change."""


@dataclass(frozen=True)
class Photo:
    """One labelled photo; what nobody noted is an empty string."""

    path: Path
    label: int  # 0 real, 1 ai
    split: str = ""
    source: str = ""  # the shop, repository or folder it comes from
    generator: str = ""  # model or tool; empty for real photos
    category: str = ""
    style: str = ""
    licence: str = ""


def load(path: Path) -> list[Photo]:
    """A manifest (a CSV file) or a folder of `real/` and `ai/`; InvalidDataset says what is wrong with it."""
    return load_folder(path) if path.is_dir() else load_manifest(path)


def load_manifest(path: Path) -> list[Photo]:
    """Rows of a CSV; photo paths are relative to it. A photo without a source is its own source."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            _check_columns(path.name, reader.fieldnames or ())
            photos = [_photo(path, row, reader.line_num) for row in reader]
    except OSError:
        raise InvalidDataset(f"{path}: there is no such manifest, or it can't be read") from None
    except (csv.Error, UnicodeDecodeError):
        raise InvalidDataset(f"{path.name}: is not a CSV file in UTF-8") from None
    missing = [photo.path for photo in photos if not photo.path.is_file()]
    if missing:
        raise InvalidDataset(f"{path.name}: {len(missing)} of {len(photos)} photos are missing, first {missing[0]}")
    return _checked(path.name, photos)


def load_folder(path: Path) -> list[Photo]:
    """`real/` and `ai/`; a sub-folder of either is a source, a photo outside one is its own source."""
    photos = []
    for label, name in enumerate(LABELS):
        root = path / name
        found = (file for file in sorted(root.rglob("*")) if file.suffix.lower() in SUFFIXES and file.is_file())
        for file in found:
            parts = file.relative_to(root).parts
            photos.append(Photo(file, label, source=parts[0] if len(parts) > 1 else f"{name}/{file.name}"))
    return _checked(str(path), photos)


def read_photo(photo: Photo) -> Image.Image:
    """The photo as the service would see it: upright, RGB, on white. InvalidImage or OSError where it can't be."""
    return decode(photo.path.read_bytes(), LIMITS).pixels


def in_split(photos: Sequence[Photo], split: str) -> list[Photo]:
    """The photos of one split; InvalidDataset where it is empty or lacks a class."""
    return _checked(f"split {split}", [photo for photo in photos if photo.split == split])


def fingerprint(photos: Sequence[Photo], root: Path) -> str:
    """A hash of every photo's bytes, place and facts: two reports with the same one judged the same photos."""
    digest = hashlib.sha256()
    for photo in sorted(photos, key=lambda photo: photo.path):
        place = photo.path.relative_to(root) if photo.path.is_relative_to(root) else photo.path
        facts = (place.as_posix(), photo.label, photo.split, photo.source, photo.generator)
        digest.update(repr(facts).encode() + hashlib.sha256(photo.path.read_bytes()).digest())
    return digest.hexdigest()


def balance(photos: Sequence[Photo]) -> NDArray[np.float64]:
    """Chance of each photo to be drawn; sums to 1, one half for each class present.

    A source counts by the square root of its size, so that a shop of 200 photos teaches more than a shop of two,
    yet not a hundred times more; its photos share alike. Within ai a generator counts by the power GENERATOR_SHARE
    of what its sources bring: what is learned must not be the trace of the commonest tool, and the one photo of a
    rare tool must not stand for it (on 104 generators a square root drew some photos 17 times too often, this 10).
    """
    labels = np.array([photo.label for photo in photos])
    sizes = Counter((photo.label, photo.source) for photo in photos)
    weights = np.array([sizes[photo.label, photo.source] ** -0.5 for photo in photos])
    mass: defaultdict[str, float] = defaultdict(float)
    for photo, weight in zip(photos, weights, strict=True):
        mass[photo.generator] += weight if photo.label else 0.0
    weights *= [mass[photo.generator] ** (GENERATOR_SHARE - 1) if photo.label else 1.0 for photo in photos]
    present = np.unique(labels)
    for label in present:
        weights[labels == label] /= weights[labels == label].sum() * len(present)
    return weights


def folds(
    photos: Sequence[Photo], count: int = 5, by: Literal["source", "generator"] = "source", seed: int = 0
) -> list[tuple[Indices, Indices]]:
    """(kept, left) indices: no source stands on both sides; by generator, no generator does either.

    Leaving generators out drops the kept photos of sources that made any left photo, so kept and left may not
    add up to all.
    """
    labels = np.array([photo.label for photo in photos])
    sources = np.array([photo.source for photo in photos])
    groups = sources
    if by == "generator":
        groups = np.array([photo.generator or photo.source for photo in photos])
    fewest = min(len(set(groups[labels == label])) for label in (0, 1))
    if fewest < count:
        raise InvalidDataset(f"{count} folds by {by} need {count} of them in each class; one class has {fewest}")
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    return [
        (kept[~np.isin(sources[kept], sources[left])], left) for kept, left in splitter.split(labels, labels, groups)
    ]


def assign_splits(photos: Sequence[Photo], seed: int = 0) -> list[Photo]:
    """Photos without splits -> train, val and test (5 : 1 : 1), no source in two of them."""
    fewest = min(len({photo.source for photo in photos if photo.label == label}) for label in (0, 1))
    if fewest < 3:
        raise InvalidDataset(f"three splits by source need three sources in each class; one class has {fewest}")
    splits = np.full(len(photos), "train", object)
    for name, (_, left) in zip(("test", "val"), folds(photos, min(7, fewest), seed=seed), strict=False):
        splits[left] = name
    return [replace(photo, split=split) for photo, split in zip(photos, splits, strict=True)]


@dataclass(frozen=True)
class Twins:
    """Two photos that look the same."""

    first: Photo
    second: Photo


@dataclass(frozen=True)
class Inspection:
    """What an integrity check found; `sound` when nothing of it spoils a measurement."""

    photos: Sequence[Photo]
    sizes: Sequence[tuple[int, int]]  # of the photos that could be read
    labels: Sequence[int]  # theirs
    unreadable: Sequence[tuple[Photo, str]]  # with the reason
    twins: Sequence[Twins]  # all pairs
    leaks: Sequence[tuple[str, tuple[str, ...]]]  # source, the splits it stands in

    @property
    def across(self) -> list[Twins]:
        """Twins in two splits: a test on them is a test of memory."""
        return [pair for pair in self.twins if pair.first.split != pair.second.split]

    @property
    def contradictions(self) -> list[Twins]:
        """Twins with different labels: one of the two is wrong."""
        return [pair for pair in self.twins if pair.first.label != pair.second.label]

    @property
    def sound(self) -> bool:
        return not (self.unreadable or self.across or self.contradictions or self.leaks)

    def __str__(self) -> str:
        return "\n".join([*_count_lines(self.photos), *_size_lines(self), *_fault_lines(self)])


def inspect(photos: Sequence[Photo]) -> Inspection:
    """Read every photo once and look for what would spoil training or flatter a test.

    Twins have perceptual hashes within TWIN_BITS of each other (Zauner 2010) and thumbnails within TWIN_PIXELS:
    the hash alone takes different packshots on white for one. Recompression and resizing are covered, crops and
    mirror images are not.
    """
    with ThreadPoolExecutor(2) as pool:
        seen = list(tqdm(pool.map(_look, photos), total=len(photos), unit="photo", desc="inspect", disable=None))
    read = [(photo, look) for photo, look in zip(photos, seen, strict=True) if isinstance(look, _Look)]
    splits: defaultdict[str, set[str]] = defaultdict(set)
    for photo in photos:
        splits[photo.source].add(photo.split)
    return Inspection(
        photos=photos,
        sizes=[look.size for _, look in read],
        labels=[photo.label for photo, _ in read],
        unreadable=[(photo, look) for photo, look in zip(photos, seen, strict=True) if isinstance(look, str)],
        twins=[Twins(read[a][0], read[b][0]) for a, b in _twins([look for _, look in read])],
        leaks=[(source, tuple(sorted(found))) for source, found in sorted(splits.items()) if len(found) > 1],
    )


@dataclass(frozen=True)
class _Look:
    size: tuple[int, int]
    hash: int
    thumbnail: NDArray[np.float32]  # (256,) grey 0..255


def _look(photo: Photo) -> _Look | str:
    try:
        pixels = read_photo(photo)
    except InvalidImage as error:
        return error.detail
    except OSError:
        return "The file can't be opened."
    small = pixels.convert("L").resize((16, 16), Image.Resampling.BOX)
    return _Look(pixels.size, perceptual_hash(pixels), np.asarray(small, np.float32).ravel())


def _twins(looks: Sequence[_Look]) -> Iterator[tuple[int, int]]:
    hashes = np.array([look.hash for look in looks], np.uint64)
    for first, look in enumerate(looks):
        near = np.bitwise_count(hashes[first + 1 :] ^ hashes[first]) <= TWIN_BITS
        for second in (np.flatnonzero(near) + first + 1).tolist():
            if np.abs(look.thumbnail - looks[second].thumbnail).mean() <= TWIN_PIXELS:
                yield first, second


def _check_columns(name: str, columns: Sequence[str]) -> None:
    unknown = [column for column in columns if column not in REQUIRED + OPTIONAL]
    if unknown:
        raise InvalidDataset(
            f"{name}: unknown columns {', '.join(unknown)}; known are {', '.join(REQUIRED + OPTIONAL)}"
        )
    missing = [column for column in REQUIRED if column not in columns]
    if missing:
        raise InvalidDataset(f"{name}: the column {missing[0]} is missing")


def _photo(manifest: Path, row: dict[str, str | None], line: int) -> Photo:
    if None in row.values() or None in row:
        raise InvalidDataset(f"{manifest.name}, line {line}: has more or fewer fields than the header")
    if row["label"] not in LABELS:
        raise InvalidDataset(f"{manifest.name}, line {line}: the label is {row['label']!r}; it must be real or ai")
    facts = {key: row.get(key) or "" for key in ("split", "source", "generator", "category", "style", "licence")}
    path = str(row["path"])
    facts["source"] = facts["source"] or path
    return Photo(manifest.parent / path, LABELS.index(row["label"]), **facts)


def _checked(name: str, photos: list[Photo]) -> list[Photo]:
    if not photos:
        raise InvalidDataset(f"{name}: holds no photos")
    for split in sorted({photo.split for photo in photos}):
        labels = {photo.label for photo in photos if photo.split == split}
        absent = [LABELS[label] for label in (0, 1) if label not in labels]
        if absent:
            where = f"split {split} of {name}" if split and not name.startswith("split ") else name
            raise InvalidDataset(f"{where}: holds no {absent[0]} photos")
    return photos


def _count_lines(photos: Sequence[Photo]) -> Iterator[str]:
    yield f"{'split':<8}{'label':<7}{'photos':>7}{'sources':>9}{'generators':>12}{'largest source':>16}"
    for split in sorted({photo.split for photo in photos}):
        for label, name in enumerate(LABELS):
            here = [photo for photo in photos if (photo.split, photo.label) == (split, label)]
            sources = Counter(photo.source for photo in here)
            generators = {photo.generator for photo in here if photo.generator}
            largest = max(sources.values(), default=0) / max(1, len(here))
            yield f"{split or '-':<8}{name:<7}{len(here):>7}{len(sources):>9}{len(generators):>12}{largest:>15.0%} "


def _size_lines(inspection: Inspection) -> Iterator[str]:
    labels = np.array(inspection.labels)
    sides = np.array([max(size) for size in inspection.sizes])
    shapes = np.array([width / height for width, height in inspection.sizes])
    for label, name in enumerate(LABELS):
        if (labels == label).any():
            low, middle, high = np.percentile(sides[labels == label], [5, 50, 95])
            sizes = f"long side {low:.0f} .. {middle:.0f} .. {high:.0f} px (5, 50, 95 %)"
            yield f"{name}: {sizes}, median width / height {np.median(shapes[labels == label]):.2f}"


def _fault_lines(inspection: Inspection) -> Iterator[str]:
    yield f"unreadable: {len(inspection.unreadable)}"
    yield from (f"  {photo.path}: {reason}" for photo, reason in inspection.unreadable)
    yield f"sources in two splits: {len(inspection.leaks)}"
    yield from (f"  {source}: {', '.join(splits)}" for source, splits in inspection.leaks)
    yield f"near-duplicates: {len(inspection.twins)} pairs, {len(inspection.across)} of them across splits"
    yield from _twin_lines(inspection.across)
    yield f"near-duplicates with different labels: {len(inspection.contradictions)}"
    yield from _twin_lines(inspection.contradictions)


def _twin_lines(pairs: Sequence[Twins], most: int = 20) -> Iterator[str]:
    for pair in pairs[:most]:
        yield f"  {pair.first.path} = {pair.second.path}"
    if len(pairs) > most:
        yield f"  and {len(pairs) - most} more"
