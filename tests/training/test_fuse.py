"""training.fuse: recovers known weights, never a negative one, and says which expert adds nothing."""

import json
from pathlib import Path

import numpy as np
import pytest

from detector.calibration import sigmoid
from training.data import InvalidDataset, Photo
from training.fuse import adds_nothing, cross_fit, describe, fuse
from training.scores import Row, Scores


def draw(weights: tuple[float, ...], count: int = 3000, seed: int = 0, sources: int = 20) -> Scores:
    """Experts a, b ... with independent logits; the label follows their weighted sum."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (count, len(weights)))
    labels = (rng.random(count) < sigmoid(logits @ np.array(weights) - 0.5)).astype(int)
    rows = [
        Row(Photo(Path(str(n)), int(label), "val", f"{label}-{n % sources}"), "clean", tuple(said.tolist()))
        for n, (label, said) in enumerate(zip(labels, logits, strict=True))
    ]
    return Scores(tuple("abc"[: len(weights)]), tuple(rows))


def test_known_weights_are_recovered() -> None:
    found = fuse(draw((1.5, 0.5)), ["a", "b"]).fusion
    assert found.weights == pytest.approx({"a": 1.5, "b": 0.5}, rel=0.15)


def test_an_expert_that_is_wrong_gets_no_weight_and_leaves_the_profile() -> None:
    fused = fuse(draw((1.0, -0.5)), ["a", "b"])
    assert set(fused.fusion.weights) == {"a"}
    assert adds_nothing(fused.report) == ["b"]
    assert "b adds nothing on sources left out" in describe(fused.report)


def test_an_expert_of_noise_is_seen_on_sources_left_out_and_one_that_helps_is_not_accused() -> None:
    fused = fuse(draw((1.0, 0.7, 0.0), 1200), ["a", "b", "c"])
    gains = {name: found["gain"]["auc"] for name, found in fused.report["experts"].items()}
    assert gains["a"] > gains["b"] > 0.02 > 0.002 > gains["c"]
    assert fused.report["experts"]["b"]["gain"]["low"] > 0
    assert not {"a", "b"} & set(adds_nothing(fused.report))


def test_one_expert_is_a_profile_with_nothing_to_compare() -> None:
    fused = fuse(draw((1.0, 0.5)), ["b"])
    assert set(fused.fusion.weights) == {"b"}
    assert adds_nothing(fused.report) == []
    assert list(fused.report["experts"]["b"]) == ["alone"]


def test_the_report_is_json() -> None:
    report = fuse(draw((1.0, 0.5), 300), ["a", "b"]).report
    assert json.loads(json.dumps(report)) == report


def test_a_left_out_source_is_judged_by_weights_of_the_others_alone() -> None:
    """With the labels of a source's logits turned around, its own rows keep their weight and the others' change."""
    scores = draw((2.0,), 400, sources=2)
    turned = Scores(scores.experts, tuple(_turned(row) if row.photo.source == "1-0" else row for row in scores.rows))
    assert _slope(turned, "1-0") == pytest.approx(_slope(scores, "1-0"))
    assert _slope(turned, "1-1") < 0.8 * _slope(scores, "1-1")


def _turned(row: Row) -> Row:
    return Row(row.photo, row.variant, (-row.logits[0],))


def _slope(scores: Scores, source: str) -> float:
    """The weight that judged a source."""
    here = np.array([row.photo.source == source for row in scores.rows])
    return float(np.polyfit(scores.logits[here, 0], cross_fit(scores, 2)[here], 1)[0])


def test_too_few_sources_or_no_signal_end_in_one_line() -> None:
    with pytest.raises(InvalidDataset, match="two sources in each class; one class has 1"):
        fuse(draw((1.0,), sources=1), ["a"])
    with pytest.raises(InvalidDataset, match="no expert's logit rises"):
        fuse(draw((-2.0,)), ["a"])
