"""What a model is made of: views, experts, and their fusion into one logit.

Pure descriptions and arithmetic; loading is `artefact`'s, execution `runtime`'s. Every network maps a view to
an evidence map whose mean IS its logit (class-activation mapping, Zhou et al. 2016, arXiv 1512.04150), so the
heat map explains the verdict exactly and costs nothing extra.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from detector.preprocess import View


class _Described(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Expert(_Described):
    """One network and the views it is shown; its photo logit is the mean over them."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    architecture: str
    views: tuple[int, ...] = Field(min_length=1, description="indices into the spec's views")
    grid: int = Field(ge=1, description="its evidence map is grid x grid")
    network: str = Field(description="OpenVINO IR; its constants lie in `weights`, laid end to end")
    weights: tuple[str, ...] = Field(min_length=1, description="safetensors files")


class Fusion(_Described):
    """A profile: logit = bias + sum of weight x expert logit."""

    weights: dict[str, float] = Field(min_length=1)
    bias: float = 0.0


class Spec(_Described):
    """spec.json: everything about a model but its numbers."""

    name: str
    size: int = Field(ge=32, description="pixels, side of every view")
    views: tuple[View, ...] = Field(min_length=1)
    experts: tuple[Expert, ...] = Field(min_length=1)
    profiles: dict[str, Fusion] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = {expert.name for expert in self.experts}
        if len(names) < len(self.experts):
            raise ValueError("two experts share a name")
        if any(not 0 <= index < len(self.views) for expert in self.experts for index in expert.views):
            raise ValueError("an expert asks for a view that is not in the list")
        if any(not names >= fusion.weights.keys() for fusion in self.profiles.values()):
            raise ValueError("a profile names an expert that does not exist")
        return self

    def plan(self, profile: str) -> "Plan":
        """The part of the spec that `profile` needs; KeyError where there is no such profile."""
        fusion = self.profiles[profile]
        chosen = [expert for expert in self.experts if expert.name in fusion.weights]
        needed = sorted({index for expert in chosen for index in expert.views})
        experts = tuple(
            expert.model_copy(update={"views": tuple(needed.index(index) for index in expert.views)})
            for expert in chosen
        )
        return Plan(profile, self.size, tuple(self.views[index] for index in needed), experts, fusion)


@dataclass(frozen=True)
class Plan:
    """One profile of a spec, ready to run: just its experts, with views renumbered to match."""

    profile: str
    size: int
    views: tuple[View, ...]
    experts: tuple[Expert, ...]
    fusion: Fusion

    @property
    def width(self) -> int:
        """Floats in one photo's evidence: every map of every expert, laid end to end."""
        return sum(len(expert.views) * expert.grid**2 for expert in self.experts)

    def split(self, evidence: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """One photo's evidence, (width,), back into (views, grid, grid) maps by expert."""
        maps, start = {}, 0
        for expert in self.experts:
            shape = (len(expert.views), expert.grid, expert.grid)
            end = start + shape[0] * shape[1] * shape[2]
            maps[expert.name] = evidence[start:end].reshape(shape)
            start = end
        return maps

    def logits(self, evidence: NDArray[np.float32]) -> dict[str, float]:
        """Each expert's logit for the photo."""
        return {name: float(maps.mean(dtype=np.float64)) for name, maps in self.split(evidence).items()}

    def fuse(self, evidence: NDArray[np.float32]) -> float:
        """The photo's fused, uncalibrated logit."""
        logits = self.logits(evidence)
        return self.fusion.bias + sum(weight * logits[name] for name, weight in self.fusion.weights.items())
