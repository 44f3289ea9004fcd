"""How far two histograms of one quantity are apart: PSI, Jensen-Shannon, Kolmogorov-Smirnov, and the design effect.

Pure functions of counts, bins in order. What is compared, and how far is too far, is `drift`'s.
"""

from math import exp, sqrt

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.float64]
_HALF = 0.5  # added to every bin, so that an empty one has a logarithm
_TERMS = 20  # of Kolmogorov's series; where it is used the next one is under 1e-14


def merge(pooled: Counts, least: float) -> NDArray[np.intp]:
    """Where groups of neighbouring bins begin, each with `least` in it, for np.add.reduceat.

    Nearly empty bins say nothing and cost certainty: chance alone moves PSI by the number of bins.
    """
    starts, held = [0], 0.0
    for at, count in enumerate(pooled[:-1].tolist(), start=1):
        held += count
        if held >= least:
            starts.append(at)
            held = 0.0
    if len(starts) > 1 and pooled[starts[-1] :].sum() < least:
        starts.pop()
    return np.array(starts, np.intp)


def psi(reference: Counts, live: Counts) -> float:
    """Population stability index: the sum of (live - reference) ln(live / reference) over shares."""
    expected, found = _shares(reference + _HALF), _shares(live + _HALF)
    return float(((found - expected) * np.log(found / expected)).sum())


def psi_by_chance(bins: int, reference: float, live: float) -> float:
    """What PSI is on average between two samples of one population (Yurdakul 2018); sizes in independent photos."""
    return (bins - 1) * (1 / reference + 1 / live)


def jensen_shannon(reference: Counts, live: Counts) -> float:
    """Jensen-Shannon distance in base 2: 0 the same, 1 nothing in common."""
    expected, found = _shares(reference), _shares(live)
    middle = (expected + found) / 2
    return sqrt(max(0.0, (_divergence(expected, middle) + _divergence(found, middle)) / 2))


def kolmogorov_smirnov(reference: Counts, live: Counts) -> float:
    """The largest difference between the cumulated shares, 0..1."""
    return float(np.abs(np.cumsum(_shares(reference)) - np.cumsum(_shares(live))).max())


def kolmogorov_p(distance: float, reference: float, live: float) -> float:
    """How often chance alone puts two samples this far apart; sizes in independent photos.

    Kolmogorov's limit. On bins it errs to the safe side: too large, never too small.
    """
    reach = distance * sqrt(reference * live / (reference + live))
    if reach < 0.2:  # the series needs too many terms where its value is 1
        return 1.0
    total = sum((1.0 if k % 2 else -1.0) * exp(-2 * (k * reach) ** 2) for k in range(1, _TERMS))
    return min(1.0, max(0.0, 2 * total))


def design_effect(blocks: NDArray[np.float64]) -> float:
    """By how much photos of one time resemble each other: 1 not at all, 5 as if four of five were copies.

    blocks: (k, bins) counts of consecutive stretches of a stream. Their cumulated shares vary this many times as much
    as independent photos' would (Kish 1965); as many photos count as one. What is alike over more than a block, and
    what drifts within the window, is not told from each other.
    """
    sizes = blocks.sum(axis=1)
    blocks, sizes = blocks[sizes > 0], sizes[sizes > 0]
    if len(blocks) < 2:
        return 1.0
    within = np.cumsum(blocks, axis=1)[:, :-1] / sizes[:, np.newaxis]
    common = np.cumsum(blocks.sum(axis=0))[:-1] / sizes.sum()
    chance = (common * (1 - common)).sum() * (len(blocks) - 1)
    spread = (sizes[:, np.newaxis] * (within - common) ** 2).sum()
    return max(1.0, float(spread / chance)) if chance > 0 else 1.0


def _shares(counts: Counts) -> Counts:
    return np.asarray(counts / counts.sum(), np.float64)


def _divergence(first: Counts, second: Counts) -> float:
    there = first > 0
    return float((first[there] * np.log2(first[there] / second[there])).sum())
