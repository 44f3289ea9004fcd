"""What a run is taught: batches of views and targets, drawn from photos or from what `features` kept of them.

What a photo suffers is `augment`'s, what a batch is worth `train`'s. A step's batch depends on the seed and its number
alone, so that a run goes on where it was stopped.
"""

import math
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detector.errors import InvalidImage
from detector.preprocess import View, make_views
from training.augment import Degradation, degrade
from training.data import Photo, balance, read_photo
from training.features import Lessons
from training.recipe import Recipe


@dataclass(frozen=True)
class Batch:
    """Photos shown twice, and the probability each is taught."""

    views: NDArray[np.uint8]  # (photos, 2, 3, s, s)
    targets: NDArray[np.float32]  # (photos,)
    insight: "Insight | None" = None
    broken: int = 0  # photos that could not be read so far


@dataclass(frozen=True)
class Insight:
    """What CLIP's trunk sees in each view, each number as its distance from the mean in standard deviations."""

    maps: NDArray[np.float32]  # (photos, 2, 768, g, g), a value each place of a view
    tokens: NDArray[np.float32]  # (photos, 2, values): class token and mean patch token of every tap


class Source(Protocol):
    """Where batches come from."""

    def batch(self, step: int) -> Batch: ...


def batches(source: Source, first: int, loaders: int = 1) -> Iterator[Batch]:
    """Endless batches from step `first` on, the next ones made by `loaders` threads while one is learned from."""
    with ThreadPoolExecutor(loaders) as pool:
        waiting = deque(pool.submit(source.batch, first + ahead) for ahead in range(loaders))
        for step in count(first + loaders):
            waiting.append(pool.submit(source.batch, step))
            yield waiting.popleft().result()


class Showings:
    """Draws photos by weight and shows each twice; a photo that can't be read is skipped and counted."""

    def __init__(self, photos: Sequence[Photo], targets: NDArray[np.float64], recipe: Recipe) -> None:
        self._photos, self._targets, self._recipe = photos, targets, recipe
        self._chance = balance(photos)
        self._degradation = Degradation(**recipe.degradation)  # type: ignore[arg-type]
        self.broken: set[Path] = set()

    def batch(self, step: int) -> Batch:
        rng = np.random.default_rng((self._recipe.seed, step))
        views: list[NDArray[np.uint8]] = []
        targets: list[float] = []
        while len(views) < self._recipe.photos:
            index = int(rng.choice(len(self._photos), p=self._chance))
            try:
                photo = read_photo(self._photos[index])
            except (InvalidImage, OSError):
                self.broken.add(self._photos[index].path)
                if len(self.broken) == len(self._photos):
                    raise ValueError("none of the photos can be read") from None
                continue
            views.append(self._show(photo, rng))
            targets.append(self._targets[index])
        return Batch(np.stack(views), np.array(targets, np.float32), broken=len(self.broken))

    def _show(self, photo: Image.Image, rng: np.random.Generator) -> NDArray[np.uint8]:
        shown = [photo, degrade(photo, rng, self._degradation)]
        return np.concatenate([make_views(one, [self._view(rng)], self._recipe.size) for one in shown])

    def _view(self, rng: np.random.Generator) -> View:
        """The whole photo, or a crop somewhere at one of several scales, so that no one scale is learned."""
        if rng.random() >= self._recipe.crops:
            return View(kind="whole")
        centre = (float(rng.random()), float(rng.random()))
        long_side = None if rng.random() < 0.3 else int(rng.integers(320, 640))
        return View(kind="crop", long_side=long_side, centre=centre)


class Retold:
    """Draws photos by weight from a cache of lessons: two of each one's showings, and what the trunk saw in them."""

    def __init__(
        self,
        photos: Sequence[Photo],
        targets: NDArray[np.float64],
        recipe: Recipe,
        lessons: Lessons,
        sample: int = 2048,
    ) -> None:
        self._targets, self._recipe, self._lessons = targets, recipe, lessons
        self._chance = balance(photos)
        kept: dict[str, list[int]] = defaultdict(list)
        for (path, _), row in lessons.rows.items():
            kept[path].append(row)
        self._rows = [kept[str(photo.path)] for photo in photos]
        if min(map(len, self._rows), default=0) < 2:
            raise ValueError("the lessons lack photos of the train split; take the features again, with copies")
        every = np.sort(np.concatenate([np.array(rows) for rows in self._rows]))
        some = every[:: max(1, len(every) // sample)]
        self._map_scale = _scale(lessons.maps[some].astype(np.float32), (0, 2, 3))
        self._token_scale = _scale(lessons.tokens[some].astype(np.float32), (0,))

    def batch(self, step: int) -> Batch:
        rng = np.random.default_rng((self._recipe.seed, step))
        chosen = rng.choice(len(self._rows), self._recipe.photos, p=self._chance)
        rows = np.array([rng.choice(self._rows[index], 2, replace=False) for index in chosen])
        flip = (rng.random(rows.shape) < 0.5)[..., None, None, None]
        views, maps = self._lessons.views[rows], self._lessons.maps[rows]
        views, maps = (np.where(flip, some[..., ::-1], some) for some in (views, maps))
        if rng.random() < self._recipe.crops:
            views, maps = _cut(views, maps, rng)
        insight = Insight(
            _standard(maps.astype(np.float32), *self._map_scale),
            _standard(self._lessons.tokens[rows].astype(np.float32), *self._token_scale),
        )
        return Batch(np.ascontiguousarray(views), self._targets[chosen].astype(np.float32), insight)


def _cut(
    views: NDArray[np.uint8], maps: NDArray[np.float16], rng: np.random.Generator, cells: int = 6
) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """Each view's `cells` x `cells` places of the map's grid, somewhere in it, and what was seen there."""
    cell, spare = views.shape[-1] // maps.shape[-1], maps.shape[-1] - cells
    cut_views = np.empty((*views.shape[:-2], cells * cell, cells * cell), np.uint8)
    cut_maps = np.empty((*maps.shape[:-2], cells, cells), np.float16)
    for at in np.ndindex(views.shape[:2]):
        top, left = rng.integers(spare + 1, size=2)
        cut_maps[at] = maps[at][:, top : top + cells, left : left + cells]
        top, left = top * cell, left * cell
        cut_views[at] = views[at][:, top : top + cells * cell, left : left + cells * cell]
    return cut_views, cut_maps


def _scale(values: NDArray[np.float32], axes: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation over `axes`, which stay as ones, the first one dropped."""
    return values.mean(axes, keepdims=True)[0], values.std(axes, keepdims=True)[0] + 1e-6


def _standard(
    values: NDArray[np.float32], mean: NDArray[np.float32], spread: NDArray[np.float32], most: float = 5.0
) -> NDArray[np.float32]:
    """Distances from the mean, none above `most`: a few of CLIP's numbers stand far out."""
    return ((values - mean) / spread).clip(-most, most)


def targets_of(photos: Sequence[Photo], teacher: Mapping[str, float], recipe: Recipe) -> NDArray[np.float64]:
    """What each photo is taught: its label, smoothed, mixed with the teacher's probability where there is one.

    teacher: probability by photo path; it must come from folds that did not see the photo.
    """
    labels = np.array([photo.label for photo in photos], np.float64)
    smooth = labels * (1 - 2 * recipe.smoothing) + recipe.smoothing
    taught = np.array([teacher.get(str(photo.path), math.nan) for photo in photos])
    return np.where(np.isnan(taught), smooth, recipe.teacher * taught + (1 - recipe.teacher) * smooth)
