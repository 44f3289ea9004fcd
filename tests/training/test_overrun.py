"""training.overrun: what a confidence in a budget is worth on sources that set no threshold."""

import numpy as np
import pytest

from training.overrun import trials


def invent(spread: float) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """80 real sources of 30 photos, whose means differ by `spread` standard deviations; 500 ai photos."""
    rng = np.random.default_rng(0)
    real = (rng.normal(0, spread, (80, 1)) + rng.normal(0, 1, (80, 30))).ravel()
    said = np.concatenate([real, rng.normal(3, 1, 500)])
    return said, np.repeat([0, 1], [2400, 500]), [f"r{n // 30}" for n in range(2400)] + ["a"] * 500


def test_a_confidence_keeps_the_budget_more_often_and_costs_detections() -> None:
    even, sure = trials(*invent(0.0), photos=600, confidences=(0.5, 0.9))
    assert 0.3 < even.overrun < 0.7
    assert sure.overrun < 0.2
    assert sure.caught < even.caught


def test_sources_that_differ_overrun_more_than_photos_alone_would() -> None:
    alike, unlike = (trials(*invent(spread), photos=600, confidences=(0.9,))[0] for spread in (0.0, 1.0))
    assert unlike.overrun > alike.overrun


def test_the_budget_is_the_others_share() -> None:
    """By hand: one source sets the threshold at its highest photo; the other has half its photos above."""
    said, labels = np.array([0.4, 0.5, 0.1, 0.6, 0.9]), np.array([0, 0, 0, 0, 1])
    found = trials(said, labels, ["a", "a", "b", "b", "c"], photos=1, confidences=(0.9,), rounds=50)[0]
    assert found.caught == 1
    assert 0 < found.flagged < 0.5  # .5 where a sets it, 0 where b does
    assert found.overrun == pytest.approx(2 * found.flagged)


def test_too_few_sources_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        trials(np.array([0.1, 0.9]), np.array([0, 1]), ["a", "b"], photos=10)
