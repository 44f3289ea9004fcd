"""What a frozen CLIP trunk says of photos, kept on disk so that heads train in minutes.

One row a showing: a photo as a tier, or degraded at random. Resumable; heads are `probe`'s.
"""

import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from detector.errors import InvalidImage
from detector.networks import Clip, ClipExpert
from detector.preprocess import View, make_views
from training.augment import TIERS, Degradation, degrade, to_tier
from training.data import Photo, read_photo
from training.export import convert
from training.weights import load_clip

WHOLE = (View(kind="whole"),)


@dataclass(frozen=True)
class Showing:
    """One row of the cache: a photo in one of TIERS, or `degraded-<n>`."""

    photo: Photo
    variant: str


@dataclass(frozen=True)
class Features:
    """A cache read back; rows in the order of `showings`."""

    clip: Clip
    rows: dict[tuple[str, str], int]  # (photo path, variant) -> row
    values: NDArray[np.float16]  # (rows, 2, 768 * taps): class token, mean patch token

    def of(self, photos: Sequence[Photo], variant: str, taps: Sequence[int]) -> NDArray[np.float32]:
        """(photos, 2 * 768 * taps): class tokens, then patch tokens, of the taps asked for."""
        rows = [self.rows[str(photo.path), variant] for photo in photos]
        columns = np.concatenate([np.arange(768) + 768 * self.clip.taps.index(tap) for tap in taps])
        return np.asarray(self.values[rows][:, :, columns], np.float32).reshape(len(rows), -1)


@dataclass(frozen=True)
class Lessons:
    """What a cache keeps for a student of the trunk: what it was shown, and what it saw where."""

    rows: dict[tuple[str, str], int]
    views: NDArray[np.uint8]  # (rows, 3, size, size)
    tokens: NDArray[np.float16]  # (rows, 2 * 768 * taps)
    maps: NDArray[np.float16]  # (rows, 768, grid / 2, grid / 2): patch tokens of the last tap, two by two averaged


class _Taps(nn.Module):
    """Tokens, patches averaged: (n, 2, 768 * taps); and the last tap's patches as a map, two by two averaged."""

    def __init__(self, expert: ClipExpert) -> None:
        super().__init__()
        self.expert = expert

    def forward(self, views: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.expert.tokens(views)
        patches = tokens[:, 1:, -768:].transpose(1, 2).reshape(-1, 768, self.expert.clip.grid, self.expert.clip.grid)
        return torch.stack([tokens[:, 0], tokens[:, 1:].mean(1)], 1), nn.functional.avg_pool2d(patches, 2)


def plan(photos: Sequence[Photo], copies: int) -> list[Showing]:
    """Training photos as stored and `copies` times degraded; the val split in every tier."""
    trained = [photo for photo in photos if photo.split == "train"]
    judged = [photo for photo in photos if photo.split == "val"]
    showings = [Showing(photo, "clean") for photo in trained]
    showings += [Showing(photo, tier) for photo in judged for tier in TIERS]
    return showings + [Showing(photo, f"degraded-{copy}") for copy in range(copies) for photo in trained]


def extract(
    showings: Sequence[Showing],
    clip: Clip,
    folder: Path,
    precision: str = "bf16",
    lessons: bool = False,
    size: int | None = None,
) -> int:
    """Fill the cache in `folder`, going on where it stopped; returns how many photos could not be read.

    size: a side of the views in pixels, a multiple of what the trunk looks at (None: just that). bf16 moves a feature
    by 2.7 % of its size on average and halves the time. lessons: also keep what a student of the trunk learns from, .23
    MB a showing at 224 pixels.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / "index.json"
    size = size or clip.side
    wanted = {
        "architecture": str(clip),
        "size": size,
        "lessons": lessons,
        "rows": [[str(one.photo.path), one.variant] for one in showings],
    }
    done = _continue(index, wanted)
    stores = _stores(folder, len(showings), clip, size if lessons else 0, fresh=not done)
    _note(index, wanted, done)
    network, broken, nothing = _network(clip, size, precision), 0, np.zeros((3, size, size), np.uint8)
    with tqdm(total=len(showings), initial=done, unit="view") as bar:
        for shown in _batches(showings[done:], size):
            views = np.stack([nothing if one is None else one for one in shown])
            for name, said in zip(("values", "maps", "views"), (*network(views), views), strict=True):
                if name in stores:
                    stores[name][done : done + len(views)] = said
            broken += sum(one is None for one in shown)
            done += len(views)
            bar.update(len(views))
            if done % 1024 < len(views) or done == len(showings):
                for store in stores.values():
                    store.flush()
                _note(index, wanted, done)
    return broken


def _stores(folder: Path, rows: int, clip: Clip, size: int, fresh: bool) -> dict[str, np.memmap]:
    """The cache's arrays by the name of their file, one row a showing; those of lessons where `size` is given."""
    kinds: dict[str, tuple[tuple[int, ...], type]] = {"values": ((2, 768 * len(clip.taps)), np.float16)}
    if size:
        kinds |= {"maps": ((768, clip.grid // 2, clip.grid // 2), np.float16), "views": ((3, size, size), np.uint8)}
    mode = "w+" if fresh else "r+"
    return {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", mode=mode, dtype=kind, shape=(rows, *shape))
        for name, (shape, kind) in kinds.items()
    }


def read(folder: Path) -> Features:
    """A finished cache; ValueError where it is not finished."""
    index = _finished(folder)
    clip = Clip.parse(index["architecture"])
    assert clip
    return Features(clip, _rows(index), np.load(folder / "values.npy", mmap_mode="r"))


def read_lessons(folder: Path) -> Lessons:
    """A finished cache's lessons; ValueError where it is not finished or keeps none."""
    index = _finished(folder)
    if not index["lessons"]:
        raise ValueError(f"the features in {folder} were taken without lessons; take them again with --lessons")
    views, values, maps = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("views", "values", "maps"))
    return Lessons(_rows(index), views, values.reshape(len(values), -1), maps)


def _finished(folder: Path) -> dict[str, Any]:
    index: dict[str, Any] = json.loads((folder / "index.json").read_text())
    if Clip.parse(index.get("architecture", "")) is None:
        raise ValueError(f"the features in {folder} do not say which CLIP they are of; take them again")
    if index["done"] < len(index["rows"]):
        raise ValueError(f"the features in {folder} are not finished; run the same command again")
    return index


def _rows(index: Mapping[str, Any]) -> dict[tuple[str, str], int]:
    return {(path, variant): row for row, (path, variant) in enumerate(index["rows"])}


def _continue(index: Path, wanted: Mapping[str, object]) -> int:
    """How many rows of the cache are there already; ValueError where it is a cache of something else."""
    if not index.exists():
        return 0
    found = json.loads(index.read_text())
    done = int(found.pop("done"))
    if found != json.loads(json.dumps(wanted)):
        raise ValueError(
            f"{index.parent} holds features of other photos, taps or sides; give these a folder of their own"
        )
    return done


def _note(index: Path, wanted: Mapping[str, object], done: int) -> None:
    """Say how far the rows go; by a rename, so that a stop at any moment leaves the old word or the new."""
    draft = index.with_suffix(".part")
    draft.write_text(json.dumps({**wanted, "done": done}))
    draft.replace(index)


def _batches(showings: Sequence[Showing], size: int, count: int = 16) -> Iterator[list[NDArray[np.uint8] | None]]:
    with ThreadPoolExecutor(2) as pool:
        rest = iter(showings)
        waiting = [pool.submit(_show, one, size) for one in islice(rest, count)]
        while waiting:
            following = [pool.submit(_show, one, size) for one in islice(rest, count)]
            yield [one.result() for one in waiting]
            waiting = following


def _show(showing: Showing, size: int) -> NDArray[np.uint8] | None:
    """The whole view of one showing; None where the photo can't be read."""
    try:
        photo = read_photo(showing.photo)
    except (InvalidImage, OSError):
        return None
    if showing.variant in TIERS:
        shown = to_tier(photo, showing.variant)
    else:
        seed = zlib.crc32(f"{showing.photo.path.name} {showing.variant}".encode())
        shown = degrade(photo, np.random.default_rng(seed), Degradation())
    square: NDArray[np.uint8] = make_views(shown, WHOLE, size)[0]
    return square


def _network(
    clip: Clip, size: int, precision: str
) -> Callable[[NDArray[np.uint8]], tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """(n, 3, s, s) uint8 views -> what _Taps says of them."""
    model = convert(_Taps(load_clip(clip)).eval(), size)
    options = {"INFERENCE_PRECISION_HINT": precision, "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
    request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()

    def run(views: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        found = request.infer([views], share_inputs=True)
        return found[0], found[1]

    return run
