"""training.calibrate: recovers known curves, keeps budgets, and writes what the detector reads."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.artefact import Artefact
from detector.calibration import Calibration, Platt, sigmoid
from training import scores
from training.assemble import write
from training.calibrate import (
    CURVES,
    Rows,
    allowed,
    describe,
    draw,
    fit,
    isotonic,
    platt,
    settle,
    temperature,
    thresholds,
)
from training.metrics import at_most, fpr, tpr


def invent(scale: float = 1.0, shift: float = 0.0, count: int = 4000, seed: int = 0) -> Rows:
    """Logits that are `scale` times too large and `shift` too high, of 40 sources and two tiers."""
    rng = np.random.default_rng(seed)
    honest = rng.normal(0, 2, count)
    labels = (rng.random(count) < sigmoid(honest)).astype(int)
    sources = [f"{label}{n % 20}" for n, label in enumerate(labels)]
    return Rows(honest * scale + shift, labels, sources, ["clean", "hard"] * (count // 2))


def test_a_known_temperature_is_recovered() -> None:
    rows = invent(scale=3.0)
    assert temperature(rows.logits, rows.labels).temperature == pytest.approx(3.0, rel=0.08)


def test_a_known_slope_and_shift_are_recovered() -> None:
    rows = invent(scale=2.0, shift=1.5)
    curve = platt(rows.logits, rows.labels)
    assert curve.slope == pytest.approx(0.5, rel=0.08)
    assert curve.intercept == pytest.approx(-0.75, abs=0.08)


def test_isotonic_follows_a_curve_that_is_no_sigmoid_and_never_claims_certainty() -> None:
    rng = np.random.default_rng(0)
    logits = rng.uniform(-4, 4, 4000)
    labels = (rng.random(4000) < np.where(logits > 0, 0.8, 0.3)).astype(int)
    curve = isotonic(logits, labels)
    assert curve.apply(np.array([-2.0, 2.0])) == pytest.approx([0.3, 0.8], abs=0.05)
    assert min(curve.probabilities) > 0
    assert max(curve.probabilities) < 1


@pytest.mark.parametrize("name", CURVES)
def test_every_curve_writes_what_the_detector_reads(name: str) -> None:
    rows = invent()
    curve = CURVES[name](rows.logits, rows.labels)
    written = Calibration(curve=curve, thresholds=thresholds(curve.apply(rows.logits), rows.labels)).model_dump_json()
    assert Calibration.model_validate(json.loads(written)).curve == curve


def test_the_shift_that_a_temperature_cannot_mend_is_not_mended_by_one() -> None:
    fitted = fit(invent(scale=2.0, shift=3.0))
    assert isinstance(fitted.calibration.curve, Platt)
    losses = fitted.report["log_loss"]
    assert losses["platt"] < losses["temperature"] < losses["uncalibrated"]
    assert fitted.report["after"]["ece"] < 0.03 < fitted.report["before"]["ece"]


def test_the_report_is_json_and_counts_each_tier_apart() -> None:
    report = fit(invent()).report
    assert json.loads(json.dumps(report)) == report
    assert list(report["tiers"]) == ["clean", "hard"]
    flagged = report["tiers"]["hard"]["real_flagged"]
    assert flagged["low"] <= flagged["share"] <= flagged["high"]
    assert (
        sum(report["tiers"][tier]["real_flagged"]["photos"] for tier in ("clean", "hard"))
        == (invent().labels == 0).sum()
    )


@pytest.mark.parametrize("budget", [0.0, 0.01, 0.1])
def test_both_wrong_verdicts_stay_within_their_budgets(budget: float) -> None:
    rows = invent()
    said = sigmoid(rows.logits)
    limits = thresholds(said, rows.labels, budget=budget, misses=0.05)
    assert fpr(rows.labels, said, limits.ai_generated) <= budget
    assert 1 - tpr(rows.labels, said, limits.real) <= 0.05


def test_a_budget_is_used_up_as_far_as_it_can_be_proved() -> None:
    """Of 600 photos two may be flagged: with three, one in ten such draws would come from more than 1 %."""
    assert [allowed(600, 0.01, 0.9), allowed(600, 0.01, 0.5), allowed(60_000, 0.01, 0.9)] == [2, 5, 568]
    assert at_most(2, 600, 0.9) <= 0.01 < at_most(3, 600, 0.9)
    rows = invent()
    said, real = sigmoid(rows.logits), int((rows.labels == 0).sum())
    limits = thresholds(said, rows.labels, budget=0.01)
    assert (said[rows.labels == 0] >= limits.ai_generated).sum() == allowed(real, 0.01, 0.9)


def test_too_few_photos_prove_no_budget_and_none_is_flagged() -> None:
    assert allowed(100, 0.01, 0.9) == 0
    said, labels = np.linspace(0, 0.8, 100), np.array([0] * 99 + [1])
    assert fpr(labels, said, thresholds(said, labels).ai_generated) == 0


def test_a_threshold_holds_in_the_worst_tier() -> None:
    rows = invent()
    shifted = np.where(np.asarray(rows.tiers) == "hard", rows.logits + 1, rows.logits)
    report = fit(Rows(shifted, rows.labels, rows.sources, rows.tiers)).report
    for tier in ("clean", "hard"):
        assert at_most(report["tiers"][tier]["real_flagged"]["hits"], 2000, 0.9) <= 0.011


def test_many_equal_probabilities_never_overrun_the_budget() -> None:
    said, labels = np.array([0.7] * 50 + [0.9] * 50), np.array([0] * 50 + [1] * 50)
    limits = thresholds(said, labels)
    assert 0.7 < limits.ai_generated < 0.9
    assert fpr(labels, said, limits.ai_generated) == 0


def test_no_verdict_contradicts_its_probability() -> None:
    said, labels = np.array([0.01] * 999 + [0.02] + [0.98] * 1000), np.array([0] * 1000 + [1] * 1000)
    limits = thresholds(said, labels)
    assert limits.real == limits.ai_generated == 0.5


def test_one_class_or_a_budget_of_all_photos_sets_no_threshold() -> None:
    with pytest.raises(ValueError, match="both classes"):
        thresholds(np.array([0.2]), np.array([0]))
    with pytest.raises(ValueError, match="below 1"):
        thresholds(np.array([0.2, 0.7]), np.array([0, 1]), budget=1.0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        thresholds(np.array([0.2, 0.7]), np.array([0, 1]), confidence=1.0)


def test_the_same_rows_give_the_same_calibration() -> None:
    assert fit(invent()) == fit(invent())


def test_a_model_is_fused_and_calibrated_on_its_scores(artefact: Artefact, table: Path, tmp_path: Path) -> None:
    """The documents load, the thresholds keep the budget they were given, and the curve is the one reported."""
    val = scores.read(table, artefact).of("val")
    documents = settle(artefact, val, {"accurate": ["a", "b"], "fast": ["b"]}, budget=0.1, misses=0.2)
    folder = Path(shutil.copytree(artefact.folder, tmp_path / "model"))
    settled = write(folder, "next", documents)
    assert set(settled.spec.profiles["fast"].weights) == {"b"}
    for profile, calibration in settled.calibrations.items():
        said = calibration.curve.apply(val.fused(settled.spec.profiles[profile]))
        assert fpr(val.labels, said, calibration.thresholds.ai_generated) <= 0.1
        assert calibration.curve.method == documents["report"]["calibration"][profile]["method"]
        lines = describe(profile, documents["report"]["calibration"][profile], calibration)
        assert lines.startswith(f"{profile}: {calibration.curve.method}")
    pictures = draw(documents["report"], tmp_path / "plots")
    assert [picture.name for picture in pictures] == ["reliability-accurate.png", "reliability-fast.png"]
    for picture in pictures:
        with Image.open(picture) as drawn:
            assert len(drawn.convert("L").getcolors() or []) > 10
