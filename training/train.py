"""Fine-tune an expert: a convolutional one whole, CLIP's trunk from a block on.

Reads like its story: model, loop, losses, checkpoint. Settings are `recipe`'s, batches `lessons`'s. A run goes on from
its last checkpoint; the best one by the worst tier is kept apart.
"""

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss
from tqdm import tqdm

from detector.errors import InvalidImage
from detector.networks import Clip, ClipExpert, ConvExpert, quantise_linears
from detector.preprocess import make_views
from detector.runtime import Device
from training.augment import cutmix, mixup, to_tier
from training.data import Photo, read_photo
from training.features import Lessons
from training.lessons import Batch, Insight, Retold, Showings, batches, targets_of
from training.metrics import auc
from training.recipe import Recipe
from training.weights import load_clip, load_conv, load_finished_conv

IMITATION = "imitation"  # the part of a student that is left behind when it has learned
FINISHED = "finished"  # .safetensors
Log = Callable[[int, Mapping[str, float]], None]  # (step, figures), such as a tracker's


class Imitation(nn.Module):
    """Reads off a student's features what CLIP's trunk would say: (n, channels, 7, 7) -> maps and tokens."""

    def __init__(self, channels: int, tokens: int) -> None:
        super().__init__()
        self.maps = nn.Conv2d(channels, 768, 1)
        self.tokens = nn.Linear(channels, tokens)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.maps(features), self.tokens(features.mean((2, 3)))


def start(recipe: Recipe, finished: Path | None = None) -> ConvExpert | ClipExpert:
    """A pretrained expert with an empty head, and gradients only where the recipe trains.

    finished: the weights of a convolutional expert that was trained before, to train further.
    """
    torch.manual_seed(recipe.seed)  # what no pretraining fills is drawn
    if recipe.pretrained and not recipe.architecture.startswith("timm."):
        raise ValueError(f"{recipe.architecture} brings its weights; `pretrained` is for timm's")
    clip = Clip.parse(recipe.architecture)
    if clip and finished:
        raise ValueError(f"only a convolutional expert can be trained further; {recipe.architecture} is none")
    if clip:
        return load_clip(clip, tuned=recipe.tuned_blocks)
    if finished:
        return load_finished_conv(recipe.architecture, finished)
    return load_conv(recipe.architecture, recipe.pretrained, recipe.size)


def _silent(_: int, __: Mapping[str, float]) -> None:
    """Tracks nothing."""


def train(
    photos: Sequence[Photo],
    judged: Sequence[Photo],
    expert: ConvExpert | ClipExpert,
    recipe: Recipe,
    folder: Path,
    teacher: Mapping[str, float] | None = None,
    log: Log = _silent,
    lessons: Lessons | None = None,
    device: Device = "cpu",
) -> nn.Module:
    """Train, or continue what `folder` holds; returns the averaged weights that did best on the worst tier.

    They are written to FINISHED in the folder, as the artefact takes them: CLIP's linear layers as int8 again.
    judged: held-out photos (the val split) that choose among checkpoints and end the run early. lessons: what CLIP's
    trunk says of the photos, for a convolutional expert to learn from instead of the photos' files. device: what
    learns; the expert comes back on the CPU.
    """
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(recipe.threads)
    torch.backends.cudnn.deterministic = True
    if lessons:
        expert.add_module(IMITATION, Imitation(expert.head.in_channels, lessons.tokens.shape[1]))  # type: ignore[arg-type]
    expert.to(device)
    averaged, optimiser = deepcopy(expert), _optimiser(expert, recipe)
    run = _Run(folder, expert, averaged, optimiser, recipe)
    first = run.resume()
    targets = targets_of(photos, teacher or {}, recipe)
    source = Retold(photos, targets, recipe, lessons) if lessons else Showings(photos, targets, recipe)
    bar = tqdm(total=recipe.steps, initial=first, unit="step", disable=None)
    for step, batch in zip(range(first, recipe.steps), batches(source, first, _loaders(device)), strict=False):
        for group in optimiser.param_groups:
            group["lr"] = group["base"] * _schedule(step, recipe)
        losses = _losses(expert, batch, recipe, np.random.default_rng((recipe.seed, step, 1)))
        optimiser.zero_grad()
        losses["total"].backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(expert.parameters(), recipe.clip)
        optimiser.step()
        _average(averaged, expert, min(recipe.average, (1 + step) / (10 + step)))
        bar.update()
        done, last = step + 1, step + 1 == recipe.steps
        if done % recipe.judge_every == 0 or last:
            figures = judge(averaged, judged, recipe)
            run.consider(done, figures)
            log(done, figures)
        if done % recipe.save_every == 0 or last or run.ended:
            figures = {name: round(loss.item(), 4) for name, loss in losses.items()}
            log(done, figures)
            run.save(done, figures | {"broken": batch.broken})
        if run.ended:
            break
    bar.close()
    run.restore_best()
    finished = averaged.cpu().eval()
    if lessons:
        delattr(finished, IMITATION)
    if isinstance(finished, ClipExpert):
        quantise_linears(finished.trunk)
    run.write(FINISHED, finished.state_dict())
    return finished


@torch.inference_mode()
def judge(
    expert: nn.Module, photos: Sequence[Photo], recipe: Recipe, tiers: Sequence[str] = ("clean", "hard")
) -> dict[str, float]:
    """AUC by tier over the recipe's views, as the expert will be asked in service, on the device where it lies."""
    expert.eval()
    with ThreadPoolExecutor(_loaders(_place(expert).type)) as pool:
        return {
            f"auc_{tier}": auc([photo.label for photo in photos], _scores(expert, photos, tier, recipe, pool))
            for tier in tiers
        }


def _scores(
    expert: nn.Module, photos: Sequence[Photo], tier: str, recipe: Recipe, pool: ThreadPoolExecutor, at_once: int = 16
) -> NDArray[np.float64]:
    """Each photo's logit; one that can't be read gets 0."""

    def show(some: Sequence[Photo]) -> list[NDArray[np.uint8] | None]:
        return [_judged_views(photo, tier, recipe) for photo in some]

    chunks = [photos[at : at + at_once] for at in range(0, len(photos), at_once)]
    logits = np.zeros(len(photos))
    for at, shown in enumerate(pool.map(show, chunks)):
        there = [index for index, views in enumerate(shown) if views is not None]
        if there:
            views = np.stack([one for one in shown if one is not None])
            found = _logits(expert, torch.from_numpy(views.reshape(-1, *views.shape[2:])), recipe)
            logits[at * at_once + np.array(there)] = found.reshape(len(there), -1).mean(1).cpu().double().numpy()
    return logits


def _judged_views(photo: Photo, tier: str, recipe: Recipe) -> NDArray[np.uint8] | None:
    try:
        return make_views(to_tier(read_photo(photo), tier), recipe.views, recipe.size)
    except (InvalidImage, OSError):
        return None


def _logits(expert: nn.Module, views: Tensor, recipe: Recipe) -> Tensor:
    """(n, 3, s, s), 0..255 -> (n,) float32"""
    place = _place(expert)
    with torch.autocast(place.type, torch.bfloat16, enabled=recipe.bfloat16):
        evidence: Tensor = expert(views.to(place).contiguous(memory_format=torch.channels_last))
    return evidence.float().mean((1, 2))


def _losses(expert: nn.Module, batch: Batch, recipe: Recipe, rng: np.random.Generator) -> dict[str, Tensor]:
    """Fit of every showing to its target, and agreement of the two showings of a photo (symmetric KL)."""
    expert.eval()  # batch statistics stay ImageNet's: batches are small and half degraded
    count, size, place = len(batch.views), batch.views.shape[-1], _place(expert)
    views = torch.from_numpy(batch.views).to(place)
    views = views.reshape(count, 6, size, size).float()  # both showings are mixed alike
    targets, drawn = torch.from_numpy(batch.targets).to(place), rng.random()
    if drawn < recipe.mixup:
        views, targets = mixup(views, targets, rng)
    elif drawn < recipe.mixup + recipe.cutmix:
        views, targets = cutmix(views, targets, rng)
    shown = views.reshape(count * 2, 3, size, size)
    alike = torch.zeros((), device=place)
    if batch.insight:
        logits, alike = _imitate(expert, shown, batch.insight, recipe)
    else:
        logits = _logits(expert, shown, recipe)
    logits = logits.reshape(count, 2)
    fit = binary_cross_entropy_with_logits(logits, targets[:, None].expand(-1, 2).float())
    chances = torch.sigmoid(logits)
    agreement = ((chances[:, 0] - chances[:, 1]) * (logits[:, 0] - logits[:, 1])).mean()
    total = fit + recipe.consistency * agreement + recipe.imitation * alike
    return {"total": total, "fit": fit, "consistency": agreement, "imitation": alike}


def _imitate(expert: nn.Module, views: Tensor, insight: Insight, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Logits, and how far the expert's features are from telling what the trunk saw: 2 where they tell nothing."""
    place = _place(expert)
    with torch.autocast(place.type, torch.bfloat16, enabled=recipe.bfloat16):
        features = expert.features(views.contiguous(memory_format=torch.channels_last))  # type: ignore[operator]
        evidence = expert.head(features)  # type: ignore[operator]
        maps, tokens = getattr(expert, IMITATION)(features)
    seen, said = (torch.from_numpy(some).to(place).flatten(0, 1) for some in (insight.maps, insight.tokens))
    far = mse_loss(maps.float(), seen) + mse_loss(tokens.float(), said)
    return evidence.float().mean((1, 2, 3)), far


def _place(expert: nn.Module) -> torch.device:
    return next(expert.parameters()).device


def _loaders(device: str) -> int:
    """Threads that make batches: beside a CPU's own work one, for an accelerator what the machine has, to feed it."""
    return 1 if device == "cpu" else max(1, min(16, (os.cpu_count() or 2) - 1))


def _optimiser(expert: ConvExpert | ClipExpert, recipe: Recipe) -> torch.optim.AdamW:
    tuned = [weight for weight in expert.trunk.parameters() if weight.requires_grad]
    imitation = getattr(expert, IMITATION).parameters() if hasattr(expert, IMITATION) else ()
    groups = [
        {"params": [w for w in tuned if w.ndim > 1], "base": recipe.learning_rate, "weight_decay": recipe.weight_decay},
        {"params": [w for w in tuned if w.ndim <= 1], "base": recipe.learning_rate, "weight_decay": 0.0},
        {"params": [*expert.head.parameters(), *imitation], "base": recipe.head_learning_rate, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=recipe.learning_rate)


def _schedule(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then a cosine to nothing (Loshchilov & Hutter 2017)."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    return 0.5 * (1 + math.cos(math.pi * (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)))


@torch.no_grad()
def _average(averaged: nn.Module, expert: nn.Module, keep: float) -> None:
    for mean, latest in zip(averaged.parameters(), expert.parameters(), strict=True):
        if latest.requires_grad:
            mean.lerp_(latest, 1 - keep)


class _Run:
    """A run's folder: the last checkpoint, to go on from, and the best, to ship; meta.json tells of both.

    A checkpoint is complete or absent: its tensors are written under the step's name, meta.json last, by a rename.
    """

    def __init__(
        self, folder: Path, expert: nn.Module, averaged: nn.Module, optimiser: torch.optim.Optimizer, recipe: Recipe
    ) -> None:
        self._folder, self._expert, self._averaged = folder, expert, averaged
        self._optimiser, self._recipe = optimiser, recipe
        self._origin = _fingerprint(trained(expert))
        self._judged: list[dict[str, float]] = []
        self._started = time.monotonic()

    @property
    def ended(self) -> bool:
        """The best of the judgements is `patience` behind."""
        return bool(self._judged) and len(self._judged) - 1 - self._best() >= self._recipe.patience

    def consider(self, step: int, figures: Mapping[str, float]) -> None:
        """Keep the averaged weights where the worst tier is better than it ever was."""
        self._judged.append({"step": step, **{name: round(value, 4) for name, value in figures.items()}})
        print(f"judged {self._judged[-1]}", flush=True)
        if self._best() == len(self._judged) - 1:
            self.write(f"best-{step}", trained(self._averaged))

    def save(self, step: int, figures: Mapping[str, float]) -> None:
        moments = self._optimiser.state_dict()["state"]
        flat = {
            f"{index}.{name}": torch.as_tensor(value)
            for index, entry in moments.items()
            for name, value in entry.items()
        }
        parts = {"expert": trained(self._expert), "averaged": trained(self._averaged), "optimiser": flat}
        for name, tensors in parts.items():
            self.write(f"{name}-{step}", tensors)
        facts = {
            "step": step,
            "minutes": round((time.monotonic() - self._started) / 60, 1),
            "losses": dict(figures),
            "judged": self._judged,
            "recipe": self._recipe.model_dump(mode="json"),
            "origin": self._origin,
        }
        draft = self._folder / "meta.json.part"
        draft.write_text(json.dumps(facts, indent=1) + "\n")
        os.replace(draft, self._folder / "meta.json")
        kept = {f"{name}-{step}" for name in parts} | {self._best_name(), FINISHED}
        for old in self._folder.glob("*.safetensors"):
            if old.stem not in kept:
                old.unlink()
        print(f"step {step} of {self._recipe.steps}: {dict(figures)}", flush=True)

    def resume(self) -> int:
        """Load the last checkpoint and return its step; 0 where there is none."""
        meta = self._folder / "meta.json"
        if not meta.exists():
            return 0
        facts = json.loads(meta.read_text())
        if facts["recipe"] != self._recipe.model_dump(mode="json"):
            raise ValueError(f"{self._folder} holds a run of another recipe; give this one a folder of its own")
        if facts.get("origin", self._origin) != self._origin:
            raise ValueError(f"{self._folder} holds a run that began with other weights; give this one its own folder")
        step, self._judged = int(facts["step"]), facts["judged"]
        self._expert.load_state_dict(load_file(self._folder / f"expert-{step}.safetensors"), strict=False)
        self._averaged.load_state_dict(load_file(self._folder / f"averaged-{step}.safetensors"), strict=False)
        moments: dict[int, dict[str, Tensor]] = {}
        for key, tensor in load_file(self._folder / f"optimiser-{step}.safetensors").items():
            index, _, name = key.partition(".")
            moments.setdefault(int(index), {})[name] = tensor
        groups = self._optimiser.state_dict()["param_groups"]
        self._optimiser.load_state_dict({"state": moments, "param_groups": groups})
        print(f"continuing at step {step}", flush=True)
        return step

    def restore_best(self) -> None:
        best = self._folder / f"{self._best_name()}.safetensors"
        if best.exists():
            self._averaged.load_state_dict(load_file(best), strict=False)

    def _best(self) -> int:
        return max(range(len(self._judged)), key=lambda at: _worst(self._judged[at]))

    def _best_name(self) -> str:
        return f"best-{int(self._judged[self._best()]['step'])}" if self._judged else "best"

    def write(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {key: tensor.cpu().contiguous() for key, tensor in tensors.items()}, self._folder / f"{name}.safetensors"
        )


def trained(expert: nn.Module) -> dict[str, Tensor]:
    """The weights that a run changes, by name."""
    return {name: weight.detach() for name, weight in expert.named_parameters() if weight.requires_grad}


def _fingerprint(weights: Mapping[str, Tensor]) -> str:
    """Of what a run begins with, so that none goes on from a folder that began with something else."""
    digest = sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _worst(figures: Mapping[str, float]) -> float:
    return min(value for name, value in figures.items() if name != "step")
