"""A fused logit -> calibrated probability -> label and confidence, by figures stored beside the weights.

Applies only; `training.calibrate` fits them.
"""

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from detector.schema import Confidence, Label, Thresholds

Logits = NDArray[np.floating]  # of any shape; probabilities come back in the same


class _Method(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Temperature(_Method):
    """Guo et al. 2017, On Calibration of Modern Neural Networks: sigmoid(logit / temperature)."""

    method: Literal["temperature"]
    temperature: float = Field(gt=0)

    def apply(self, logits: Logits) -> Logits:
        return sigmoid(logits / self.temperature)


class Platt(_Method):
    """Platt 1999: sigmoid(slope * logit + intercept)."""

    method: Literal["platt"]
    slope: float = Field(gt=0)
    intercept: float

    def apply(self, logits: Logits) -> Logits:
        return sigmoid(self.slope * logits + self.intercept)


class Isotonic(_Method):
    """Zadrozny & Elkan 2002: a rising line through (logit, probability) knots, flat beyond both ends."""

    method: Literal["isotonic"]
    logits: tuple[float, ...] = Field(min_length=2)
    probabilities: tuple[float, ...] = Field(min_length=2)

    def apply(self, logits: Logits) -> Logits:
        return np.interp(logits, self.logits, self.probabilities)


class Calibration(BaseModel):
    """One profile's way from logit to label."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    curve: Annotated[Temperature | Platt | Isotonic, Field(discriminator="method")]
    thresholds: Thresholds

    def probability(self, logit: float) -> float:
        return float(self.curve.apply(np.asarray([logit]))[0])


def sigmoid(logits: Logits) -> Logits:
    """1 / (1 + exp(-logit)), without overflow at either end."""
    result: Logits = 0.5 + 0.5 * np.tanh(logits / 2)
    return result


def label(probability: float, thresholds: Thresholds) -> Label:
    if probability >= thresholds.ai_generated:
        return "ai_generated"
    return "real" if probability < thresholds.real else "uncertain"


def confidence(probability: float, given: Label, medium: float, high: float) -> Confidence:
    """How sure the label is: by the calibrated probability that it is right; an uncertain verdict is always low."""
    right = {"ai_generated": probability, "real": 1 - probability, "uncertain": 0.0}[given]
    return "high" if right >= high else "medium" if right >= medium else "low"
