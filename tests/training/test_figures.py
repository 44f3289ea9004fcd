"""training.metrics: known answers, and intervals that know how many sources there are."""

import math

import numpy as np
import pytest

from training.metrics import (
    Interval,
    auc,
    balanced_accuracy,
    bootstrap,
    clopper_pearson,
    ece,
    fpr,
    log_loss,
    mce,
    reliability,
    tpr,
    tpr_at_fpr,
)

LABELS = [0, 0, 0, 0, 1, 1, 1, 1]
SAID = [0.1, 0.2, 0.3, 0.8, 0.4, 0.7, 0.9, 0.95]


def test_auc_counts_the_pairs_in_order() -> None:
    assert auc(LABELS, SAID) == 14 / 16  # 0.8 stands above 0.4 and 0.7


def test_auc_of_one_class_is_no_number() -> None:
    assert math.isnan(auc([1, 1], [0.2, 0.3]))
    assert math.isnan(tpr_at_fpr([0, 0], [0.2, 0.3], 0.01))


@pytest.mark.parametrize(("budget", "caught"), [(0.0, 0.5), (0.24, 0.5), (0.25, 1.0)])
def test_tpr_is_the_best_within_the_budget(budget: float, caught: float) -> None:
    assert tpr_at_fpr(LABELS, SAID, budget) == caught


def test_rates_count_the_threshold_itself_as_flagged() -> None:
    assert fpr(LABELS, SAID, 0.8) == 0.25
    assert tpr(LABELS, SAID, 0.7) == 0.75
    assert balanced_accuracy(LABELS, SAID, 0.7) == 0.75
    assert math.isnan(fpr([1], [0.5], 0.5))


def test_log_loss_of_a_coin_is_log_two_and_of_a_certain_error_finite() -> None:
    assert log_loss([0, 1], [0.5, 0.5]) == pytest.approx(math.log(2))
    assert log_loss([0], [1.0]) == pytest.approx(math.log(1e6))


def test_calibration_errors_are_the_mean_and_the_largest_gap() -> None:
    labels = [0] * 6 + [1] * 4 + [1] * 5 + [0] * 5
    said = [0.4] * 10 + [0.9] * 10  # right of the first ten, .4 too high of the others
    assert ece(labels, said) == pytest.approx(0.2)
    assert mce(labels, said) == pytest.approx(0.4)


def test_honest_probabilities_have_almost_no_calibration_error() -> None:
    rng = np.random.default_rng(0)
    said = rng.random(50_000)
    assert ece(rng.random(50_000) < said, said) < 0.01


def test_reliability_keeps_certainty_in_the_last_bin() -> None:
    (point,) = reliability([1, 1], [1.0, 0.99], bins=10)
    assert (point.share, point.count) == (1.0, 2)


def test_nothing_to_judge_is_an_error() -> None:
    with pytest.raises(ValueError, match="no photos"):
        ece([], [])


def test_the_interval_holds_the_figure_and_repeats_by_seed() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], 100)
    said = np.clip(labels * 0.3 + rng.random(200) * 0.7, 0, 1)
    sources = [f"{n // 10}" for n in range(200)]
    found = bootstrap(auc, labels, said, sources, rounds=200)
    assert found.low < found.value < found.high
    assert found == bootstrap(auc, labels, said, sources, rounds=200)


def test_few_sources_give_a_wider_interval_than_as_many_photos() -> None:
    """Photos of a source are all right or all wrong: a hundred of them say no more than one."""
    labels = np.zeros(200, int)
    said = np.repeat([0.9, 0.1, 0.1, 0.1], 50)
    by_source = bootstrap(lambda y, p: fpr(y, p, 0.5), labels, said, np.repeat(list("abcd"), 50).tolist(), 300)
    by_photo = bootstrap(lambda y, p: fpr(y, p, 0.5), labels, said, [str(n) for n in range(200)], 300)
    assert by_source.value == by_photo.value == 0.25
    assert by_source.high - by_source.low > 3 * (by_photo.high - by_photo.low)


def test_one_source_a_class_gives_no_interval() -> None:
    found = bootstrap(auc, [0, 1], [0.2, 0.8], ["a", "b"])
    assert found.value == 1
    assert math.isnan(found.low)
    assert isinstance(found, Interval)


@pytest.mark.parametrize(
    ("hits", "trials", "bounds"),
    [  # 0 of n: 1 - (alpha / 2) ** (1 / n); the middle row is a table value
        (0, 10, (0.0, 1 - 0.025**0.1)),
        (10, 10, (0.025**0.1, 1.0)),
        (5, 10, (0.18709, 0.81291)),
        (0, 0, (0.0, 1.0)),
    ],
)
def test_clopper_pearson_bounds(hits: int, trials: int, bounds: tuple[float, float]) -> None:
    assert clopper_pearson(hits, trials) == pytest.approx(bounds, abs=1e-5)


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="3 hits in 2 trials"):
        clopper_pearson(3, 2)
