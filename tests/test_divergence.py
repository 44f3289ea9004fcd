"""detector.divergence: the tests are the field's, against scipy, and the design effect is what sampling theory says."""

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import ks_2samp, kstwobign

from detector import divergence

RNG = np.random.default_rng(5)


def histograms(shift: float) -> tuple[np.ndarray, np.ndarray]:
    edges = np.linspace(-4, 5, 20)
    pair = (RNG.normal(0, 1, 900), RNG.normal(shift, 1, 500))
    first, second = (np.histogram(values, edges)[0].astype(float) for values in pair)
    return first, second


@pytest.mark.parametrize("shift", [0.0, 0.3, 2.0])
def test_the_jensen_shannon_distance_is_scipy_s(shift: float) -> None:
    first, second = histograms(shift)
    assert divergence.jensen_shannon(first, second) == pytest.approx(jensenshannon(first, second, base=2))


@pytest.mark.parametrize("shift", [0.0, 0.3, 2.0])
def test_the_kolmogorov_smirnov_distance_is_scipy_s(shift: float) -> None:
    first, second = histograms(shift)
    places = np.arange(19)
    expected = ks_2samp(np.repeat(places, first.astype(int)), np.repeat(places, second.astype(int))).statistic
    assert divergence.kolmogorov_smirnov(first, second) == pytest.approx(expected)


@pytest.mark.parametrize("distance", [0.0, 0.01, 0.05, 0.08, 0.2, 1.0])
def test_the_probability_of_chance_is_kolmogorov_s_limit(distance: float) -> None:
    reach = distance * np.sqrt(900 * 500 / 1400)
    assert divergence.kolmogorov_p(distance, 900, 500) == pytest.approx(kstwobign.sf(reach), abs=1e-9)


def test_the_stability_index_of_known_shares() -> None:
    """(0.7 - 0.5) ln(0.7 / 0.5) + (0.3 - 0.5) ln(0.3 / 0.5); half a photo in each bin vanishes among a million."""
    found = divergence.psi(np.array([5e5, 5e5]), np.array([7e5, 3e5]))
    assert found == pytest.approx(0.2 * np.log(1.4) + 0.2 * np.log(5 / 3), abs=1e-5)
    assert divergence.psi(np.array([0.0, 9.0]), np.array([9.0, 0.0])) > 3


def test_chance_alone_moves_the_index_by_what_theory_says() -> None:
    shares = np.full(12, 1 / 12)
    found = [divergence.psi(RNG.multinomial(900, shares) * 1.0, RNG.multinomial(500, shares) * 1.0) for _ in range(400)]
    assert np.mean(found) == pytest.approx(divergence.psi_by_chance(12, 900, 500), rel=0.1)


def test_independent_photos_have_a_design_effect_of_one() -> None:
    shares = RNG.dirichlet(np.ones(15))
    found = [divergence.design_effect(RNG.multinomial(50, shares, 10).astype(float)) for _ in range(200)]
    assert 1.0 <= np.mean(found) < 1.4


def test_photos_sent_in_copies_count_as_one() -> None:
    shares = RNG.dirichlet(np.ones(15))
    found = [divergence.design_effect(5.0 * RNG.multinomial(10, shares, 10)) for _ in range(200)]
    assert np.mean(found) == pytest.approx(5.0, rel=0.15)


def test_one_block_or_one_bin_says_nothing_of_resemblance() -> None:
    assert divergence.design_effect(np.array([[3.0, 4.0]])) == 1.0
    assert divergence.design_effect(np.array([[3.0], [4.0]])) == 1.0
    assert divergence.design_effect(np.array([[3.0, 0.0], [0.0, 0.0], [4.0, 0.0]])) == 1.0


def test_nearly_empty_bins_are_merged_with_their_neighbours() -> None:
    pooled = np.array([0.0, 3.0, 9.0, 20.0, 0.0, 0.0, 12.0, 1.0])
    starts = divergence.merge(pooled, 10)
    assert np.add.reduceat(pooled, starts).tolist() == [12.0, 20.0, 13.0]
    assert np.add.reduceat(np.array([1.0, 2.0]), divergence.merge(np.array([1.0, 2.0]), 10)).tolist() == [3.0]
