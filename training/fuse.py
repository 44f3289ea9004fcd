"""Experts' logits -> the fusion of each profile, and what each expert adds on sources left out.

Fits on a table's val rows; calibration of the fused logit is `calibrate`'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.model_selection import StratifiedGroupKFold

from detector.calibration import sigmoid
from detector.ensemble import Fusion
from training.data import InvalidDataset, balance
from training.metrics import auc, bootstrap, log_loss
from training.scores import Scores

Floats = NDArray[np.float64]
PENALTY = 1e-3  # on squared weights of standardised logits: keeps separable logits from running away


@dataclass(frozen=True)
class Fused:
    """A profile's fusion and, ready for JSON, what each of its experts adds."""

    fusion: Fusion
    report: dict[str, Any]


def fuse(scores: Scores, experts: Sequence[str], folds: int = 5, seed: int = 0) -> Fused:
    """Weights at the logit, none negative, fitted on all rows; every figure of the report is of sources left out.

    An expert that gets no weight is left out of the profile: it would cost time and change nothing.
    """
    chosen = _only(scores, experts)
    held_out = cross_fit(chosen, folds, seed)
    fusion = _fusion(chosen)
    report = {"fusion": fusion.model_dump(), "left_out": _figures(chosen, held_out), "experts": {}}
    for name in experts:
        alone = chosen.logits[:, chosen.experts.index(name)]
        report["experts"][name] = {"alone": _figures(chosen, alone)}
        if len(experts) > 1:
            without = cross_fit(_only(chosen, [other for other in experts if other != name]), folds, seed)
            report["experts"][name] |= _gain(chosen, held_out, without)
    return Fused(fusion, report)


def cross_fit(scores: Scores, folds: int = 5, seed: int = 0) -> Floats:
    """Fused logits of all rows, each from weights that saw none of its source."""
    labels, sources = scores.labels, np.array(scores.sources)
    fewest = min(len(set(sources[labels == label])) for label in (0, 1))
    if fewest < 2:
        raise InvalidDataset(f"fusing needs two sources in each class; one class has {fewest}")
    logits = np.empty(len(labels))
    splitter = StratifiedGroupKFold(min(folds, fewest), shuffle=True, random_state=seed)
    for kept, left in splitter.split(labels, labels, sources):
        *weights, bias = _fit(replace(scores, rows=tuple(scores.rows[row] for row in kept)))
        logits[left] = scores.logits[left] @ np.array(weights) + bias
    return logits


def adds_nothing(report: dict[str, Any]) -> list[str]:
    """The experts of a fusion's report that got no weight, or whose absence costs no AUC on sources left out."""
    used = report["fusion"]["weights"]
    return [
        name
        for name, found in report["experts"].items()
        if name not in used or ("gain" in found and found["gain"]["auc"] <= 0)
    ]


def describe(report: dict[str, Any]) -> str:
    """The report as lines to read."""
    left_out = report["left_out"]
    lines = [f"together, on sources left out: AUC {left_out['auc']:.4f}, log loss {left_out['log_loss']:.4f}"]
    for name, found in report["experts"].items():
        weight = report["fusion"]["weights"].get(name, 0.0)
        line = f"{name}: weight {weight:.3f}, alone AUC {found['alone']['auc']:.4f}"
        if "gain" in found:
            gain = found["gain"]
            line += f", adds {gain['auc']:+.4f} AUC ({gain['low']:+.4f} .. {gain['high']:+.4f})"
            line += f" and {gain['log_loss']:+.4f} log loss"
        lines.append(line)
    lines += [f"{name} adds nothing on sources left out; do not ship it" for name in adds_nothing(report)]
    return "\n".join(lines)


def _only(scores: Scores, experts: Sequence[str]) -> Scores:
    places = [scores.experts.index(name) for name in experts]
    rows = (replace(row, logits=tuple(row.logits[place] for place in places)) for row in scores.rows)
    return Scores(tuple(experts), tuple(rows))


def _fusion(scores: Scores) -> Fusion:
    *weights, bias = _fit(scores).tolist()
    used = {name: weight for name, weight in zip(scores.experts, weights, strict=True) if weight > 0}
    if not used:
        raise InvalidDataset("no expert's logit rises with the label; there is nothing to fuse")
    return Fusion(weights=used, bias=bias)


def _fit(scores: Scores) -> Floats:
    """(experts + 1,) weights, none negative, and bias, by logistic regression; photos count as `balance` says."""
    labels, importance = scores.labels, balance(scores.photos)
    mean, scale = scores.logits.mean(0), scores.logits.std(0) + 1e-9
    inputs = (scores.logits - mean) / scale

    def loss(point: Floats) -> tuple[float, Floats]:
        weights, bias = point[:-1], point[-1]
        logits = inputs @ weights + bias
        fit = importance @ (np.logaddexp(0, logits) - labels * logits)
        pull = importance * (np.asarray(sigmoid(logits)) - labels)
        slope = np.append(inputs.T @ pull + 2 * PENALTY * weights, pull.sum())
        return float(fit + PENALTY * weights @ weights), slope

    count = len(scores.experts)
    start = np.append(np.full(count, 1 / count), 0.0)
    bounds = [(0, None)] * count + [(None, None)]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    weights = found[:-1] / scale
    return np.append(weights, found[-1] - mean @ weights)


def _figures(scores: Scores, logits: Floats) -> dict[str, float]:
    return {"auc": auc(scores.labels, logits), "log_loss": log_loss(scores.labels, sigmoid(logits))}


def _gain(scores: Scores, together: Floats, without: Floats) -> dict[str, Any]:
    """What the whole has over the rest; the interval resamples sources, both sides on the same draw."""

    def difference(labels: NDArray[np.int_], rows: Floats) -> float:
        drawn = rows.astype(int)
        return auc(labels, together[drawn]) - auc(labels, without[drawn])

    rows = np.arange(len(scores.rows))
    gained = bootstrap(difference, scores.labels, rows, scores.sources, rounds=200)
    losses = [log_loss(scores.labels, sigmoid(logits)) for logits in (together, without)]
    gain = {"auc": gained.value, "low": gained.low, "high": gained.high, "log_loss": losses[0] - losses[1]}
    return {"without": _figures(scores, without), "gain": gain}
