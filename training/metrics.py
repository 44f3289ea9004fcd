"""Figures that judge probabilities against labels, with intervals that resample whole sources.

Pure functions of arrays: labels are 0 real and 1 ai, probabilities 0 .. 1. What to judge is `evaluate`'s.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta
from sklearn.metrics import roc_auc_score, roc_curve

Floats = NDArray[np.float64]
Metric = Callable[[NDArray[np.int_], Floats], float]  # (labels, probabilities) -> figure

NAN = float("nan")  # a figure that these photos can't give, such as an AUC of one class


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval; all three may be NaN."""

    value: float
    low: float
    high: float


def auc(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Area under the ROC curve; NaN where a class is absent."""
    given = np.asarray(labels)
    return float(roc_auc_score(given, probabilities)) if 0 < given.sum() < given.size else NAN


def tpr_at_fpr(labels: ArrayLike, probabilities: ArrayLike, budget: float) -> float:
    """The largest share of ai caught by any threshold that flags at most `budget` of real; NaN without a class."""
    given = np.asarray(labels)
    if not 0 < given.sum() < given.size:
        return NAN
    fpr, tpr, _ = roc_curve(given, probabilities, drop_intermediate=False)
    return float(tpr[fpr <= budget].max())


def fpr(labels: ArrayLike, probabilities: ArrayLike, threshold: float) -> float:
    """Share of real photos at or above the threshold; NaN where there are none."""
    return _share(np.asarray(probabilities)[np.asarray(labels) == 0] >= threshold)


def tpr(labels: ArrayLike, probabilities: ArrayLike, threshold: float) -> float:
    """Share of ai photos at or above the threshold; NaN where there are none."""
    return _share(np.asarray(probabilities)[np.asarray(labels) == 1] >= threshold)


def balanced_accuracy(labels: ArrayLike, probabilities: ArrayLike, threshold: float) -> float:
    """Mean of the share of ai caught and of the share of real let pass; NaN where a class is absent."""
    return (tpr(labels, probabilities, threshold) + 1 - fpr(labels, probabilities, threshold)) / 2


def log_loss(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean negative log likelihood in nats; probabilities are held 1e-6 away from certainty."""
    held = np.clip(np.asarray(probabilities, float), 1e-6, 1 - 1e-6)
    return float(-np.log(np.where(np.asarray(labels) == 1, held, 1 - held)).mean())


def ece(labels: ArrayLike, probabilities: ArrayLike, bins: int = 15) -> float:
    """Expected calibration error (Guo et al. 2017): the mean gap of `reliability`, weighted by photos."""
    points = reliability(labels, probabilities, bins)
    return float(sum(abs(point.share - point.probability) * point.count for point in points) / np.size(labels))


def mce(labels: ArrayLike, probabilities: ArrayLike, bins: int = 15) -> float:
    """Maximum calibration error: the largest gap of `reliability`; noisy where bins hold few photos."""
    return max(abs(point.share - point.probability) for point in reliability(labels, probabilities, bins))


@dataclass(frozen=True)
class Reliability:
    """One bin of a reliability diagram."""

    probability: float  # mean of what was said
    share: float  # of photos that are ai
    count: int


def reliability(labels: ArrayLike, probabilities: ArrayLike, bins: int = 15) -> list[Reliability]:
    """The bins of equal width over 0 .. 1 that hold photos."""
    given, said = np.asarray(labels), np.asarray(probabilities, float)
    if not given.size:
        raise ValueError("no photos to judge")
    places = np.minimum((said * bins).astype(int), bins - 1)
    held = [places == place for place in np.unique(places)]
    return [Reliability(float(said[here].mean()), float(given[here].mean()), int(here.sum())) for here in held]


def bootstrap(
    metric: Metric,
    labels: ArrayLike,
    probabilities: ArrayLike,
    sources: Sequence[str],
    rounds: int = 1000,
    seed: int = 0,
) -> Interval:
    """A figure and the 2.5 .. 97.5 % range of its values over resamples of whole sources.

    Photos of one source resemble each other: resampling photos would claim a precision that new sources belie.
    Sources are drawn within each class, so that no round lacks one; rounds without a figure are left out. One
    source a class gives no interval (NaN).
    """
    given, said = np.asarray(labels), np.asarray(probabilities, float)
    value = metric(given, said)
    strata = [_members(given, sources, label) for label in (0, 1) if (given == label).any()]
    if all(len(stratum) < 2 for stratum in strata):
        return Interval(value, NAN, NAN)
    rng, values = np.random.default_rng(seed), np.empty(rounds)
    for turn in range(rounds):
        drawn = [stratum[index] for stratum in strata for index in rng.integers(len(stratum), size=len(stratum))]
        rows = np.concatenate(drawn)
        values[turn] = metric(given[rows], said[rows])
    found = values[~np.isnan(values)]
    low, high = np.percentile(found, [2.5, 97.5]) if found.size else (NAN, NAN)
    return Interval(value, float(low), float(high))


def clopper_pearson(hits: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact two-sided bounds of a proportion (Clopper & Pearson 1934); (0, 1) where nothing was tried."""
    if not 0 <= hits <= trials:
        raise ValueError(f"{hits} hits in {trials} trials")
    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, hits, trials - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, trials - hits)) if hits < trials else 1.0
    return low, high


def at_most(hits: int, trials: int, confidence: float) -> float:
    """The one-sided upper bound of a proportion (Clopper & Pearson 1934)."""
    return clopper_pearson(hits, trials, 2 * confidence - 1)[1]


def plain(value: Any) -> Any:
    """A report ready for JSON: a figure that the photos could not give becomes null, the others keep six digits."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, float):
        return round(float(value), 6) if np.isfinite(value) else None
    return value


def _members(labels: NDArray[np.int_], sources: Sequence[str], label: int) -> list[NDArray[np.intp]]:
    """Row numbers of each source of one class."""
    rows = np.flatnonzero(labels == label)
    names = np.asarray(sources, dtype=str)[rows]
    return [rows[names == name] for name in np.unique(names)]


def _share(hits: NDArray[np.bool_]) -> float:
    return float(hits.mean()) if hits.size else NAN
