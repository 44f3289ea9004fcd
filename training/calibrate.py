"""Held-out logits -> `detector.calibration.Calibration`: a curve chosen by log loss, and two thresholds.

Fits and reports; applying is the detector's, the weights of a profile's experts are `fuse`'s. The probability's
prior is that of the photos given.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.isotonic import IsotonicRegression
from sklearn.model_selection import StratifiedGroupKFold

from detector.artefact import Artefact
from detector.calibration import Calibration, Isotonic, Platt, Temperature, sigmoid
from detector.schema import Thresholds
from training import plots
from training.fuse import fuse
from training.metrics import at_most, clopper_pearson, ece, log_loss, mce, plain, reliability
from training.scores import Scores

Curve = Temperature | Platt | Isotonic
Floats = NDArray[np.float64]
Labels = NDArray[np.int_]  # 0 real, 1 ai
CONFIDENCE = 0.9  # that other photos keep a budget of accusations; `overrun` measures what it is worth


@dataclass(frozen=True)
class Rows:
    """Held-out logits, one row for each photo and tier."""

    logits: Floats
    labels: Labels
    sources: Sequence[str]
    tiers: Sequence[str]


@dataclass(frozen=True)
class Fitted:
    """A calibration and, ready for JSON, what it was chosen by and what its thresholds cost."""

    calibration: Calibration
    report: dict[str, Any]


def settle(
    artefact: Artefact,
    scores: Scores,
    profiles: Mapping[str, Sequence[str]],
    budget: float = 0.01,
    misses: float = 0.05,
    confidence: float = CONFIDENCE,
) -> dict[str, Any]:
    """Fuse and calibrate each profile on held-out scores; returns the folder's new documents, by name.

    profiles: the experts each may use. The report starts anew, for earlier figures judged another calibration.
    """
    fused = {name: fuse(scores, experts) for name, experts in profiles.items()}
    rows = {
        name: Rows(scores.fused(found.fusion), scores.labels, scores.sources, scores.variants)
        for name, found in fused.items()
    }
    fitted = {name: fit(found, budget, misses, confidence) for name, found in rows.items()}
    spec = artefact.spec.model_copy(update={"profiles": {name: found.fusion for name, found in fused.items()}})
    report = {
        "labels": {},
        "fusion": {name: found.report for name, found in fused.items()},
        "calibration": {name: found.report for name, found in fitted.items()},
    }
    return {
        "spec": spec.model_dump(),
        "calibration": {name: found.calibration.model_dump() for name, found in fitted.items()},
        "baseline": {},
        "report": plain(report),
    }


def draw(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Reliability of each profile in a settled report, as pictures."""
    made = []
    for profile, found in report["calibration"].items():
        made.append(folder / f"reliability-{profile}.png")
        plots.reliability(found["before"]["reliability"], found["after"]["reliability"], made[-1])
    return made


def describe(profile: str, report: Mapping[str, Any], calibration: Calibration) -> str:
    """A profile's calibration report as lines to read."""
    losses = ", ".join(f"{name} {value:.4f}" for name, value in report["log_loss"].items())
    before, after, limits = report["before"], report["after"], calibration.thresholds
    lines = [
        f"{profile}: {report['method']}, by log loss on sources left out ({losses})",
        f"  ECE {before['ece']:.4f} -> {after['ece']:.4f}, MCE {before['mce']:.4f} -> {after['mce']:.4f}",
        f"  real below {limits.real:.4f}, ai_generated from {limits.ai_generated:.4f}, uncertain between",
    ]
    for tier, costs in report["tiers"].items():
        shares = (
            f"{name.replace('_', ' ')} {cost['share']:.1%} ({cost['low']:.1%} .. {cost['high']:.1%})"
            for name, cost in costs.items()
        )
        lines.append(f"  {tier}: {', '.join(shares)}")
    return "\n".join(lines)


def fit(
    rows: Rows,
    budget: float = 0.01,
    misses: float = 0.05,
    confidence: float = CONFIDENCE,
    folds: int = 5,
    seed: int = 0,
) -> Fitted:
    """Choose the curve by leaving sources out, fit it on all rows, and set the thresholds, each by its worst tier.

    budget: share of real photos that may be called ai_generated, and confidence that others keep it; misses: share of
    ai photos that may be called real.
    """
    held_out = {name: _cross_fit(rows, make, folds, seed) for name, make in CURVES.items()}
    losses = {name: log_loss(rows.labels, said) for name, said in held_out.items()}
    chosen = min(losses, key=losses.__getitem__)
    curve = CURVES[chosen](rows.logits, rows.labels)
    said = np.asarray(curve.apply(rows.logits), np.float64)
    tiers = {tier: np.asarray(rows.tiers) == tier for tier in dict.fromkeys(rows.tiers)}
    every = [thresholds(said[here], rows.labels[here], budget, misses, confidence) for here in tiers.values()]
    limits = Thresholds(
        real=min(found.real for found in every), ai_generated=max(found.ai_generated for found in every)
    )
    report = {
        "method": chosen,
        "log_loss": {"uncalibrated": log_loss(rows.labels, sigmoid(rows.logits))} | losses,
        "before": _errors(rows.labels, np.asarray(sigmoid(rows.logits), np.float64)),
        "after": _errors(rows.labels, held_out[chosen]),
        "budget": {"real_flagged": budget, "ai_missed": misses, "confidence": confidence},
        "tiers": {tier: _costs(said[here], rows.labels[here], limits) for tier, here in tiers.items()},
    }
    return Fitted(Calibration(curve=curve, thresholds=limits), report)


def temperature(logits: Floats, labels: Labels) -> Temperature:
    """The one divisor that makes the labels likeliest."""
    found = minimize(lambda x: log_loss(labels, sigmoid(logits / np.exp(x[0]))), [0.0], method="Nelder-Mead")
    return Temperature(method="temperature", temperature=float(np.exp(found.x[0])))


def platt(logits: Floats, labels: Labels) -> Platt:
    """The slope, held positive, and intercept that make the labels likeliest."""
    found = minimize(
        lambda x: log_loss(labels, sigmoid(np.exp(x[0]) * logits + x[1])), [0.0, 0.0], method="Nelder-Mead"
    )
    return Platt(method="platt", slope=float(np.exp(found.x[0])), intercept=float(found.x[1]))


def isotonic(logits: Floats, labels: Labels) -> Isotonic:
    """The rising steps that fit best, kept 1 / (n + 2) away from a certainty that n photos cannot show."""
    edge = 1 / (len(labels) + 2)
    model = IsotonicRegression(y_min=edge, y_max=1 - edge).fit(logits, labels)
    return Isotonic(
        method="isotonic", logits=tuple(model.X_thresholds_.tolist()), probabilities=tuple(model.y_thresholds_.tolist())
    )


CURVES: dict[str, Callable[[Floats, Labels], Curve]] = {
    "temperature": temperature,
    "platt": platt,
    "isotonic": isotonic,
}


def thresholds(
    probabilities: Floats,
    labels: Labels,
    budget: float = 0.01,
    misses: float = 0.05,
    confidence: float = CONFIDENCE,
) -> Thresholds:
    """Where the verdicts begin: each wrong verdict has a budget, and what neither allows is `uncertain`.

    A wrong accusation costs a seller more than a miss costs a marketplace, hence 1 % against 5 %, and hence the
    confidence that a budget holds on other photos is asked for the accusation alone. Neither verdict contradicts its
    own probability: nothing under one half is called ai_generated, nothing over it real. Where the model is good
    enough for both budgets at one half, the band closes.
    """
    if not (0 <= budget < 1 and 0 <= misses < 1):
        raise ValueError(f"budgets are shares of photos below 1, not {budget} and {misses}")
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence lies between 0 and 1, and is not {confidence}")
    real, ai = (np.sort(probabilities[labels == label]) for label in (0, 1))
    if not (real.size and ai.size):
        raise ValueError("thresholds need photos of both classes")
    flagged = _just_above(real, real[-1 - allowed(real.size, budget, confidence)])
    missed = float(ai[int(misses * ai.size)])
    return Thresholds(real=min(missed, 0.5), ai_generated=max(flagged, 0.5))


def allowed(photos: int, budget: float, confidence: float) -> int:
    """The most wrong verdicts on `photos` that still show, with this confidence, that the budget is kept on others.

    By the one-sided bound of Clopper & Pearson (1934): as many wrong as the budget allows would be overrun every
    second time. None where the photos are too few to show it.
    """
    return max(
        (hits for hits in range(int(budget * photos) + 1) if at_most(hits, photos, confidence) <= budget), default=0
    )


def _just_above(ordered: Floats, value: float) -> float:
    """Half-way from `value` to the next larger one (or to 1)."""
    larger = ordered[ordered > value]
    return float((value + (larger[0] if larger.size else 1.0)) / 2)


def _cross_fit(rows: Rows, make: Callable[[Floats, Labels], Curve], folds: int, seed: int) -> Floats:
    """Probabilities of all rows, each from a curve that saw none of its source."""
    said = np.empty(len(rows.labels))
    sources = np.array(rows.sources)
    fewest = min(len(set(sources[rows.labels == label])) for label in (0, 1))
    splitter = StratifiedGroupKFold(min(folds, max(2, fewest)), shuffle=True, random_state=seed)
    for kept, left in splitter.split(rows.labels, rows.labels, sources):
        said[left] = make(rows.logits[kept], rows.labels[kept]).apply(rows.logits[left])
    return said


def _errors(labels: Labels, said: Floats) -> dict[str, Any]:
    points = [[point.probability, point.share, point.count] for point in reliability(labels, said)]
    return {"ece": ece(labels, said), "mce": mce(labels, said), "reliability": points}


def _costs(said: Floats, labels: Labels, limits: Thresholds) -> dict[str, Any]:
    """How a tier's photos fare, with bounds; tiers apart, for the tiers of one photo are no separate trials."""
    real, ai = (said[labels == label] for label in (0, 1))
    return {
        "real_flagged": _proportion(real >= limits.ai_generated),
        "real_uncertain": _proportion((real >= limits.real) & (real < limits.ai_generated)),
        "ai_missed": _proportion(ai < limits.real),
        "ai_uncertain": _proportion((ai >= limits.real) & (ai < limits.ai_generated)),
    }


def _proportion(hits: NDArray[np.bool_]) -> dict[str, float]:
    """With Clopper-Pearson bounds; photos of a source resemble each other, so the truth is wider still."""
    count = int(hits.sum())
    low, high = clopper_pearson(count, hits.size)
    return {"photos": hits.size, "hits": count, "share": count / max(1, hits.size), "low": low, "high": high}
