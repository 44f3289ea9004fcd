"""Logits become probabilities by the stored curve, and probabilities labels by the stored thresholds."""

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from detector.calibration import Calibration, confidence, label, sigmoid
from detector.schema import Thresholds

THRESHOLDS = Thresholds(real=0.3, ai_generated=0.9)


def calibrated(**curve: object) -> Calibration:
    return TypeAdapter(Calibration).validate_python({"curve": curve, "thresholds": THRESHOLDS.model_dump()})


def test_temperature_divides_the_logit() -> None:
    assert calibrated(method="temperature", temperature=2.0).probability(np.log(9) * 2) == pytest.approx(0.9)


def test_platt_scales_and_shifts_the_logit() -> None:
    assert calibrated(method="platt", slope=2.0, intercept=-1.0).probability(0.5) == pytest.approx(0.5)


def test_isotonic_interpolates_and_is_flat_beyond_its_ends() -> None:
    curve = calibrated(method="isotonic", logits=(-1.0, 1.0), probabilities=(0.1, 0.7))
    assert [curve.probability(logit) for logit in (-9, 0, 9)] == pytest.approx([0.1, 0.4, 0.7])


def test_extreme_logits_neither_overflow_nor_leave_the_range() -> None:
    assert sigmoid(np.array([-1e6, 0.0, 1e6])).tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(
    ("probability", "expected"),
    [(0.0, "real"), (0.2999, "real"), (0.3, "uncertain"), (0.8999, "uncertain"), (0.9, "ai_generated")],
)
def test_labels_change_at_the_thresholds(probability: float, expected: str) -> None:
    assert label(probability, THRESHOLDS) == expected


def test_confidence_is_the_probability_that_the_label_is_right() -> None:
    assert confidence(0.97, "ai_generated", 0.8, 0.95) == "high"
    assert confidence(0.10, "real", 0.8, 0.95) == "medium"
    assert confidence(0.25, "real", 0.8, 0.95) == "low"


def test_an_uncertain_verdict_is_never_confident() -> None:
    assert confidence(0.89, "uncertain", 0.5, 0.6) == "low"


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValidationError):
        calibrated(method="guess")


def test_thresholds_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValidationError):
        Thresholds(real=0.9, ai_generated=0.3)
