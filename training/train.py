"""Fine-tune a convolutional expert on degraded views of photos, optionally towards a teacher's logits.

Reads like its story: recipe, views, model, loop, checkpoint. What a photo suffers is `augment`'s, which photos
there are `data`'s. Every checkpoint is safetensors beside a readable meta.json, and a run continues from it.
"""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import asdict, dataclass, fields
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from detector.errors import InvalidImage
from detector.networks import ConvExpert
from detector.preprocess import View, make_views
from training.augment import Degradation, degrade
from training.data import Photo, balance, read_photo
from training.weights import load_b0


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run."""

    photos: int = 16  # a step; each is shown twice, as it is and degraded
    steps: int = 1500
    warmup: int = 100
    learning_rate: float = 5e-4
    head_learning_rate: float = 2e-3
    weight_decay: float = 0.05
    clip: float = 1.0  # gradient norm
    average: float = 0.995  # of the exponential moving average of the weights
    consistency: float = 0.5  # weight of agreement between the two showings of a photo
    teacher: float = 0.5  # weight of the teacher's probability against the label's
    smoothing: float = 0.02
    crops: float = 0.6  # share of showings that are a crop and not the whole photo
    size: int = 224
    threads: int = 2
    seed: int = 0
    save_every: int = 100

    @classmethod
    def read(cls, path: Path) -> "Recipe":
        """A recipe from YAML; ValueError that names what is not one of its settings."""
        given = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        unknown = given.keys() - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"{path.name}: {', '.join(sorted(unknown))} is not a setting of a recipe")
        return cls(**given)


@dataclass(frozen=True)
class Pair:
    """A photo shown twice: (2, 3, s, s) uint8, its label and the probability it is taught."""

    views: NDArray[np.uint8]
    target: float


class Showings:
    """Draws photos by weight and shows each twice; a photo that can't be read is skipped and counted."""

    def __init__(self, photos: Sequence[Photo], targets: NDArray[np.float64], recipe: Recipe) -> None:
        self._photos, self._targets, self._recipe = photos, targets, recipe
        self._chance = balance(photos)
        self._chance /= self._chance.sum()
        self.broken: set[Path] = set()

    def batches(self, first: int) -> Iterator[list[Pair]]:
        """Endless batches from step `first` on; what a step shows depends on the seed and its number alone."""
        with ThreadPoolExecutor(2) as pool:
            waiting = pool.submit(self._batch, first)
            for step in count(first + 1):
                following = pool.submit(self._batch, step)
                yield waiting.result()
                waiting = following

    def _batch(self, step: int) -> list[Pair]:
        rng = np.random.default_rng((self._recipe.seed, step))
        pairs: list[Pair] = []
        while len(pairs) < self._recipe.photos:
            index = int(rng.choice(len(self._photos), p=self._chance))
            try:
                photo = read_photo(self._photos[index])
            except (InvalidImage, OSError):
                self.broken.add(self._photos[index].path)
                continue
            pairs.append(Pair(self._show(photo, rng), float(self._targets[index])))
        return pairs

    def _show(self, photo: Image.Image, rng: np.random.Generator) -> NDArray[np.uint8]:
        size = self._recipe.size
        shown = [photo, degrade(photo, rng, Degradation())]
        return np.concatenate([make_views(one, [self._view(rng)], size) for one in shown])

    def _view(self, rng: np.random.Generator) -> View:
        """The whole photo, or a crop somewhere at one of several scales, so that no one scale is learned."""
        if rng.random() >= self._recipe.crops:
            return View(kind="whole")
        centre = (float(rng.random()), float(rng.random()))
        long_side = None if rng.random() < 0.3 else int(rng.integers(320, 640))
        return View(kind="crop", long_side=long_side, centre=centre)


def targets_of(photos: Sequence[Photo], teacher: Mapping[str, float], recipe: Recipe) -> NDArray[np.float64]:
    """What each photo is taught: its label, smoothed, mixed with the teacher's probability where there is one.

    teacher: probability by photo path; it must come from folds that did not see the photo.
    """
    labels = np.array([photo.label for photo in photos], np.float64)
    smooth = labels * (1 - 2 * recipe.smoothing) + recipe.smoothing
    taught = np.array([teacher.get(str(photo.path), math.nan) for photo in photos])
    return np.where(np.isnan(taught), smooth, recipe.teacher * taught + (1 - recipe.teacher) * smooth)


def train(photos: Sequence[Photo], teacher: Mapping[str, float], recipe: Recipe, folder: Path) -> ConvExpert:
    """Train, or continue what `folder` holds; returns the averaged expert."""
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(recipe.threads)
    expert = ConvExpert(load_b0())
    averaged = deepcopy(expert)
    optimiser = _optimiser(expert, recipe)
    first = _resume(folder, expert, averaged, optimiser)
    showings = Showings(photos, targets_of(photos, teacher, recipe), recipe)
    started = time.monotonic()
    for step, pairs in zip(range(first, recipe.steps), showings.batches(first), strict=False):
        for group in optimiser.param_groups:
            group["lr"] = group["base"] * _schedule(step, recipe)
        losses = _losses(expert, pairs, recipe)
        optimiser.zero_grad()
        losses["total"].backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(expert.parameters(), recipe.clip)
        optimiser.step()
        _average(averaged, expert, min(recipe.average, (1 + step) / (10 + step)))
        if (step + 1) % recipe.save_every == 0 or step + 1 == recipe.steps:
            facts = {name: round(float(loss), 4) for name, loss in losses.items()}
            facts |= {"minutes": round((time.monotonic() - started) / 60, 1), "broken": len(showings.broken)}
            _save(folder, step + 1, expert, averaged, optimiser, recipe, facts)
            print(f"step {step + 1} of {recipe.steps}: {facts}", flush=True)
    return averaged.eval()


def _losses(expert: ConvExpert, pairs: list[Pair], recipe: Recipe) -> dict[str, Tensor]:
    """Fit of every showing to its target, and agreement of the two showings of a photo (symmetric KL)."""
    expert.eval()  # batch statistics stay ImageNet's: batches are small and half degraded
    views = torch.from_numpy(np.concatenate([pair.views for pair in pairs])).contiguous(
        memory_format=torch.channels_last
    )
    logits = expert(views).mean((1, 2)).reshape(-1, 2)
    targets = torch.tensor([pair.target for pair in pairs], dtype=torch.float32)[:, None].expand(-1, 2)
    fit = binary_cross_entropy_with_logits(logits, targets)
    chances = torch.sigmoid(logits)
    agreement = ((chances[:, 0] - chances[:, 1]) * (logits[:, 0] - logits[:, 1])).mean()
    return {"total": fit + recipe.consistency * agreement, "fit": fit, "consistency": agreement}


def _optimiser(expert: ConvExpert, recipe: Recipe) -> torch.optim.AdamW:
    decayed = [weight for weight in expert.trunk.parameters() if weight.ndim > 1]
    plain = [weight for weight in expert.trunk.parameters() if weight.ndim <= 1]
    return torch.optim.AdamW(
        [
            {"params": decayed, "base": recipe.learning_rate, "weight_decay": recipe.weight_decay},
            {"params": plain, "base": recipe.learning_rate, "weight_decay": 0.0},
            {"params": list(expert.head.parameters()), "base": recipe.head_learning_rate, "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
    )


def _schedule(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then a cosine to nothing (Loshchilov & Hutter 2017)."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    return 0.5 * (1 + math.cos(math.pi * (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)))


@torch.no_grad()
def _average(averaged: nn.Module, expert: nn.Module, keep: float) -> None:
    for mean, latest in zip(averaged.parameters(), expert.parameters(), strict=True):
        mean.lerp_(latest, 1 - keep)


def _save(
    folder: Path,
    step: int,
    expert: nn.Module,
    averaged: nn.Module,
    optimiser: torch.optim.Optimizer,
    recipe: Recipe,
    facts: Mapping[str, Any],
) -> None:
    """A checkpoint is complete or absent: meta.json is written last, by a rename."""
    folder.mkdir(parents=True, exist_ok=True)
    moments = optimiser.state_dict()["state"]
    flat = {
        f"{index}.{name}": torch.as_tensor(value) for index, entry in moments.items() for name, value in entry.items()
    }
    for name, tensors in (("expert", expert.state_dict()), ("averaged", averaged.state_dict()), ("optimiser", flat)):
        contiguous = {key: tensor.contiguous() for key, tensor in tensors.items()}
        save_file(contiguous, folder / f"{name}-{step}.safetensors")
    draft = folder / "meta.json.part"
    draft.write_text(json.dumps({"step": step, "recipe": asdict(recipe), "facts": dict(facts)}, indent=1) + "\n")
    draft.replace(folder / "meta.json")
    for old in folder.glob("*.safetensors"):
        if not old.stem.endswith(f"-{step}"):
            old.unlink()


def _resume(folder: Path, expert: nn.Module, averaged: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """Load the checkpoint in `folder` and return its step; 0 where there is none."""
    if not (folder / "meta.json").exists():
        return 0
    step = int(json.loads((folder / "meta.json").read_text())["step"])
    expert.load_state_dict(load_file(folder / f"expert-{step}.safetensors"))
    averaged.load_state_dict(load_file(folder / f"averaged-{step}.safetensors"))
    moments: dict[int, dict[str, Tensor]] = {}
    for key, tensor in load_file(folder / f"optimiser-{step}.safetensors").items():
        index, _, name = key.partition(".")
        moments.setdefault(int(index), {})[name] = tensor
    state = optimiser.state_dict()
    optimiser.load_state_dict({"state": moments, "param_groups": state["param_groups"]})
    print(f"continuing at step {step}", flush=True)
    return step
