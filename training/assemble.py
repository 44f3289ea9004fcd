"""Trained experts -> a sealed model folder, first as a draft that can be scored, then with all its documents.

Which weights are good is decided elsewhere: fusion by `fuse`, calibration by `calibrate`, promotion by `promote`.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import yaml
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from detector.artefact import Artefact, load, seal
from detector.calibration import Calibration, sigmoid
from detector.ensemble import Expert, Fusion, Spec
from detector.networks import Clip, batch_norms, build, build_conv, fold_batch_norm
from detector.preprocess import View, make_views
from detector.runtime import load_runtime
from training import probe
from training.export import save_network
from training.features import WHOLE
from training.recipe import Recipe
from training.train import FINISHED
from training.weights import load_clip

NAME = "product-photo-detector"
AGREED = 1e-3  # probability: how far the exported networks may be from the trained ones
_UNCALIBRATED = {
    "curve": {"method": "temperature", "temperature": 1.0},
    "thresholds": {"real": 0.5, "ai_generated": 0.5},
}


class InvalidExperts(ValueError):
    """Trained experts that can't become a model; one line that says why."""


@dataclass(frozen=True)
class Trained:
    """An expert as trained, and how it is asked and stored."""

    name: str
    architecture: str
    module: nn.Module  # (n, 3, size, size) uint8 -> (n, grid, grid), in evaluation mode
    views: tuple[View, ...]
    parts: Mapping[str, str]  # weight file -> what goes into it, as `save_network` takes it; "" takes the rest


class _Entry(BaseModel):
    """The folder of a training run, a probe's head for CLIP's frozen trunk, or a whole state with what it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    run: Path | None = None
    probe: Path | None = None
    architecture: str = ""
    state: tuple[Path, ...] = Field((), description="safetensors of the whole module, laid together")
    views: tuple[View, ...] = ()
    parts: dict[str, str] = {}

    @model_validator(mode="after")
    def _one_of_three(self) -> Self:
        told = bool(self.architecture), bool(self.state), bool(self.views)
        if not (all(told) or not any(told)) or [self.run is None, self.probe is None, not any(told)].count(False) != 1:
            raise ValueError("give either run, or probe, or architecture, state and views")
        return self


class _Listing(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = 224
    experts: tuple[_Entry, ...] = Field(min_length=1)


def read_experts(listing: Path) -> tuple[list[Trained], int]:
    """The experts that a YAML file lists, with their weights, and the side of their views; paths are relative to it."""
    try:
        given = _Listing.model_validate(yaml.safe_load(listing.read_text(encoding="utf-8")))
    except OSError:
        raise InvalidExperts(f"{listing}: there is no such file, or it can't be read") from None
    except yaml.YAMLError:
        raise InvalidExperts(f"{listing.name}: is not YAML") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InvalidExperts(f"{listing.name}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    return [_trained(entry, listing) for entry in given.experts], given.size


def draft(experts: Sequence[Trained], size: int, folder: Path, fast: str | None = None) -> Artefact:
    """Write a model folder whose profiles weigh their experts alike and are not calibrated.

    `fast` names the expert that answers alone in the profile of that name (None: the first).
    """
    names = [expert.name for expert in experts]
    alone = fast or names[0]
    if alone not in names:
        raise InvalidExperts(f"there is no expert {alone} to be the profile fast; there are {', '.join(names)}")
    folder.mkdir(parents=True, exist_ok=True)
    views = tuple(dict.fromkeys(view for expert in experts for view in expert.views))
    spec = Spec(
        name=NAME,
        size=size,
        views=views,
        experts=tuple(_save(expert, views, size, folder) for expert in experts),
        profiles={"accurate": Fusion(weights=dict.fromkeys(names, 1.0)), "fast": Fusion(weights={alone: 1.0})},
    )
    calibration = dict.fromkeys(spec.profiles, _UNCALIBRATED)
    written = {"spec": spec.model_dump(), "calibration": calibration, "baseline": {}, "report": {"labels": {}}}
    return write(folder, "draft", written)


def write(folder: Path, version: str, documents: Mapping[str, Any]) -> Artefact:
    """Replace some of a folder's documents (spec, calibration, baseline, report), and seal it anew."""
    for name, content in documents.items():
        part = folder / f".{name}.part"
        part.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        part.replace(folder / f"{name}.json")
    seal(folder, version)
    return load(folder)


def agreement(artefact: Artefact, modules: Mapping[str, nn.Module], photos: Sequence[Image.Image]) -> dict[str, float]:
    """By profile, the largest difference in probability between the folder on OpenVINO and the modules in torch."""
    spec = artefact.spec
    worst = dict.fromkeys(spec.profiles, 0.0)
    for profile, fusion in spec.profiles.items():
        plan = spec.plan(profile)
        runtime, calibration = load_runtime(artefact.folder, plan, "cpu"), artefact.calibrations[profile]
        for photo in photos:
            views = make_views(photo, plan.views, plan.size)
            shipped = plan.fuse(runtime.score(views[np.newaxis])[0])
            taught = fusion.bias + sum(
                fusion.weights[expert.name] * _logit(modules[expert.name], views[list(expert.views)])
                for expert in plan.experts
            )
            worst[profile] = max(worst[profile], _apart(calibration, shipped, taught))
    return worst


def rebuild(artefact: Artefact, make: Callable[[str], nn.Module] | None = None) -> dict[str, nn.Module]:
    """The folder's experts as torch modules, by name, from its own weight files."""
    modules = {}
    for expert in artefact.spec.experts:
        state = _lay_together([artefact.folder / name for name in expert.weights])
        try:
            module = (make or build)(expert.architecture)
            module.load_state_dict({name: state[name] for name in module.state_dict()})
        except (ValueError, RuntimeError, KeyError):
            raise InvalidExperts(
                f"{expert.name}: its weights do not fit the architecture {expert.architecture}"
            ) from None
        modules[expert.name] = module.eval()
    return modules


def remake(folder: Path) -> None:
    """Empty a folder that holds a model or nothing; InvalidExperts where it holds something else."""
    if folder.exists():
        if any(folder.iterdir()) and not (folder / "spec.json").exists():
            raise InvalidExperts(f"{folder}: is not empty and holds no model; name another folder")
        shutil.rmtree(folder)


def _trained(entry: _Entry, listing: Path) -> Trained:
    if entry.run is not None:
        return _from_run(entry, listing.parent / entry.run)
    if entry.probe is not None:
        return _from_probe(entry, listing.parent / entry.probe)
    state = _lay_together([listing.parent / path for path in entry.state])
    try:
        module = build_conv(entry.architecture) or build(entry.architecture)
        module.load_state_dict(state)
    except (ValueError, RuntimeError):
        raise InvalidExperts(f"{entry.name}: its weights do not fit the architecture {entry.architecture}") from None
    parts = entry.parts or {f"{entry.name}.safetensors": ""}
    return Trained(entry.name, entry.architecture, _folded(module.eval(), entry), entry.views, parts)


@torch.no_grad()
def _folded(module: nn.Module, entry: _Entry, side: int = 128) -> nn.Module:
    """The module without batch norms; InvalidExperts where one does not take what the convolution before it gives."""
    if next(batch_norms(module), None) is None:
        return module
    noise = torch.randint(256, (2, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before = module(noise)
    folded = fold_batch_norm(module)
    if not torch.allclose(folded(noise), before, rtol=1e-3, atol=1e-3):
        raise InvalidExperts(f"{entry.name}: the batch norms of {entry.architecture} can't be folded away")
    return folded


def _from_run(entry: _Entry, run: Path) -> Trained:
    """What a finished training run left for the artefact."""
    try:
        recipe = Recipe.model_validate(json.loads((run / "meta.json").read_text(encoding="utf-8"))["recipe"])
    except (OSError, ValueError, KeyError):
        raise InvalidExperts(f"{run}: holds no training run; `python -m training train` makes one") from None
    whole = _Entry(
        name=entry.name,
        architecture=recipe.architecture,
        state=((run / f"{FINISHED}.safetensors").absolute(),),
        views=recipe.views,
        parts=entry.parts or _parts(entry.name, recipe),
    )
    return _trained(whole, run)


def _from_probe(entry: _Entry, path: Path) -> Trained:
    """CLIP as it came, under a head; the trunk, which no later head changes, in a file of its own."""
    try:
        head = probe.read(path)
    except ValueError:
        raise InvalidExperts(f"{path}: holds no head; `python -m training probe` writes one") from None
    module = load_clip(head.clip)
    probe.install(head, module)
    parts = entry.parts or {f"{entry.name}-frozen.safetensors": r"trunk\.", f"{entry.name}.safetensors": ""}
    return Trained(entry.name, str(head.clip), module.eval(), WHOLE, parts)


def _parts(name: str, recipe: Recipe) -> dict[str, str]:
    """A file for each expert, and one more for what a CLIP trunk keeps of its origin."""
    own, clip = {f"{name}.safetensors": ""}, Clip.parse(recipe.architecture)
    if clip is None:
        return own
    frozen = "|".join(map(str, range(max(clip.taps) - recipe.tuned_blocks)))
    return {f"{name}-frozen.safetensors": rf"trunk\.(?!blocks)|trunk\.blocks\.({frozen or '-'})\."} | own


def _lay_together(paths: Sequence[Path]) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for path in paths:
        try:
            state |= load_file(path)
        except (OSError, SafetensorError):
            raise InvalidExperts(f"{path}: there are no weights, or they can't be read") from None
    return state


def _save(expert: Trained, views: Sequence[View], size: int, folder: Path) -> Expert:
    network = f"{expert.name}.xml"
    with torch.inference_mode():
        shape = expert.module(torch.zeros(1, 3, size, size, dtype=torch.uint8)).shape
    if len(shape) != 3 or shape[1] != shape[2]:
        raise InvalidExperts(f"{expert.name}: gives {tuple(shape[1:])} for a view and not a square map")
    save_network(expert.module, size, folder, network, expert.parts)
    return Expert(
        name=expert.name,
        architecture=expert.architecture,
        views=tuple(views.index(view) for view in expert.views),
        grid=shape[1],
        network=network,
        weights=tuple(expert.parts),
    )


@torch.inference_mode()
def _logit(module: nn.Module, views: Any) -> float:
    return float(module(torch.from_numpy(np.ascontiguousarray(views))).double().mean())


def _apart(calibration: Calibration, shipped: float, taught: float) -> float:
    """In probability; isotonic steps and steep curves are measured as they ship, and plain sigmoids beside them."""
    calibrated = abs(calibration.probability(shipped) - calibration.probability(taught))
    plain = np.abs(np.diff(sigmoid(np.array([shipped, taught]))))[0]
    return float(max(calibrated, plain))
