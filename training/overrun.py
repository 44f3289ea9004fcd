"""How often a threshold that keeps its budget on some sources overruns it on others.

Sources are dealt at random into those that set a threshold and those that judge it, over and over. The probabilities
must come from heads that saw none of a photo's source, such as `probe` writes for a teacher.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.calibrate import allowed


@dataclass(frozen=True)
class Overrun:
    """What one confidence is worth, over all deals."""

    confidence: float
    flagged: float  # mean share of the other sources' real photos over the threshold
    overrun: float  # share of deals in which that is more than the budget
    caught: float  # mean share of ai photos over the threshold


def trials(
    probabilities: NDArray[np.float64],
    labels: NDArray[np.int_],
    sources: Sequence[str],
    photos: int = 550,
    budget: float = 0.01,
    confidences: Sequence[float] = (0.5, 0.8, 0.9, 0.95),
    rounds: int = 300,
    seed: int = 0,
) -> list[Overrun]:
    """Thresholds set on about so many real photos; ValueError where the sources are too few to deal."""
    real, names = np.flatnonzero(labels == 0), np.asarray(sources)
    rng = np.random.default_rng(seed)
    deals = [_deal(names[real], photos, rng) for _ in range(rounds)]
    if not all(kept.any() and (~kept).any() for kept in deals):
        raise ValueError(f"{len(set(names[real]))} sources of real photos are too few to set thresholds on {photos}")
    ai = probabilities[labels == 1]
    found = []
    for confidence in confidences:
        shares = np.array(list(_shares(probabilities[real], ai, deals, budget, confidence)))
        over = float((shares[:, 0] > budget).mean())
        found.append(Overrun(confidence, float(shares[:, 0].mean()), over, float(shares[:, 1].mean())))
    return found


def _deal(sources: NDArray[np.str_], photos: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which photos set the threshold: those of random sources, until they are enough."""
    kept = np.zeros(len(sources), bool)
    for name in rng.permutation(np.unique(sources)):
        if kept.sum() >= photos:
            break
        kept |= sources == name
    return kept


def _shares(
    real: NDArray[np.float64],
    ai: NDArray[np.float64],
    deals: Sequence[NDArray[np.bool_]],
    budget: float,
    confidence: float,
) -> Iterator[tuple[float, float]]:
    for kept in deals:
        known = np.sort(real[kept])
        limit = known[-1 - allowed(known.size, budget, confidence)]
        yield float((real[~kept] > limit).mean()), float((ai > limit).mean())
