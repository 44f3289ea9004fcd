"""Whether today's photos and verdicts are like those the model was judged on: decided, and said in words.

Pure: baseline and counted buckets in, a report out. Counting is `windows`', keeping watch `watch`'s. An alarm needs an
effect that matters, a test that chance does not explain over all features, and several windows that agree.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from detector import divergence
from detector.calibration import label
from detector.divergence import Counts
from detector.errors import InvalidArtefact
from detector.schema import Drift, DriftFeature, Label, ModelInfo, Movement, Thresholds
from detector.windows import Bucket, History

PHOTOS, CACHED = "photos", "cached"  # names counted beside the features' bins
BLOCKS = 10  # stretches of a window that are compared with each other, for the design effect
LEAST_BLOCKS = 5  # buckets a window needs at least
POOLED = 10  # photos that a bin needs, live and baseline together
_ORDER: tuple[Label, ...] = ("real", "uncertain", "ai_generated")  # by rising probability
_WORST: tuple[Movement, ...] = ("drifted", "watch", "quiet", "too_few")
_SPOKEN = {
    "label": "verdicts",
    "probability": "probability of AI",
    "bytes_per_pixel": "bytes per pixel",
    "jpeg_quality": "JPEG quality",
    "aspect": "width / height",
}


class _Histogram(BaseModel):
    model_config = ConfigDict(frozen=True)

    edges: tuple[float, ...] = Field(min_length=2)
    counts: tuple[float, ...] = Field(min_length=1)


class _Document(BaseModel):
    """baseline.json; `{}` is a model that has none."""

    photos: int = 0
    probability: dict[str, _Histogram] = {}
    logit: dict[str, _Histogram] = {}
    labels: dict[str, dict[Label, float]] = {}
    facts: dict[str, _Histogram] = {}


@dataclass(frozen=True)
class Reference:
    """One feature of the baseline: photos by bin, in order; no edges where the bins are labels."""

    counts: Counts
    edges: tuple[float, ...] = ()

    def place(self, value: float) -> int:
        """The bin of a value; what lies outside counts in the outermost."""
        return min(max(bisect_right(self.edges, value) - 1, 0), len(self.counts) - 1)

    def bins(self) -> tuple[str, ...]:
        ends = zip(self.edges, self.edges[1:], strict=False)
        return tuple(f"{low:g}..{high:g}" for low, high in ends) if self.edges else _ORDER


@dataclass(frozen=True)
class Baseline:
    """What photos and verdicts looked like when the model was made; labels are by the model's own thresholds."""

    features: Mapping[str, Reference]
    thresholds: Thresholds

    def names(self, probability: float, facts: Mapping[str, float]) -> Iterator[str]:
        """What to count for one photo: a name for each feature's bin."""
        values = {**facts, "probability": probability}
        yield PHOTOS
        for feature, reference in self.features.items():
            if feature == "label":
                yield f"label:{_ORDER.index(label(probability, self.thresholds))}"
            elif feature in values:
                yield f"{feature}:{reference.place(values[feature])}"


def read_baseline(document: Any, profile: str, thresholds: Thresholds) -> Baseline:
    """baseline.json as training wrote it; raises InvalidArtefact where it is something else."""
    try:
        read = _Document.model_validate(document)
        said = {"probability": read.probability, "logit": read.logit}
        found = {name: held[profile] for name, held in said.items() if profile in held}
        features = {name: _reference(held) for name, held in (found | read.facts).items()}
    except (ValidationError, ValueError):
        raise InvalidArtefact("The model's baseline.json does not have the form this version reads.") from None
    if profile in read.labels:
        shares = read.labels[profile]
        counts = np.array([read.photos * shares.get(name, 0.0) for name in _ORDER])
        features = {"label": Reference(counts)} | features
    return Baseline({name: held for name, held in features.items() if held.counts.sum() > 0}, thresholds)


def own_baseline(model: Baseline, saved: Drift, model_hash: str) -> Baseline:
    """The photos of an earlier report in the place of the model's, counted for as many as they are independent.

    A feature that the report lacks, or has in other bins, stays the model's; so does what another model said of them.
    """
    kept = {one.feature: one for one in saved.features if one.live}
    if saved.model.hash != model_hash:
        kept = {name: one for name, one in kept.items() if name not in ("probability", "logit", "label")}
    features = dict(model.features)
    for name, held in model.features.items():
        if name in kept and kept[name].bins == held.bins():
            photos = kept[name].photos / (kept[name].design_effect or 1.0)
            features[name] = Reference(np.array(kept[name].live) * photos, held.edges)
    return Baseline(features, model.thresholds)


def _reference(held: _Histogram) -> Reference:
    if len(held.edges) != len(held.counts) + 1 or list(held.edges) != sorted(set(held.edges)):
        raise ValueError
    return Reference(np.array(held.counts, np.float64), held.edges)


@dataclass(frozen=True)
class Rules:
    """When a feature has moved; docs/operations.md says how often these are wrong."""

    photos: int = 1000  # of one window
    min_photos: int = 200  # with the feature, for a comparison
    windows: int = 2  # that must agree, one after another
    watch: float = 0.1  # PSI beyond chance
    drifted: float = 0.2
    alpha: float = 0.01  # chance of an error in one round of all features

    def enough(self, buckets: Sequence[Bucket]) -> bool:
        return len(cut(buckets, self)) > self.windows

    def level(self, finding: "Finding | None", features: int) -> Movement:
        """What one window says of one feature; alpha is shared among the features (Bonferroni)."""
        if finding is None:
            return "too_few"
        if finding.p_value >= self.alpha / features or finding.psi < self.watch:
            return "quiet"
        return "drifted" if finding.psi >= self.drifted else "watch"


@dataclass(frozen=True)
class Finding:
    """One window of one feature against its baseline."""

    photos: int
    psi: float  # beyond chance
    jensen_shannon: float
    kolmogorov_smirnov: float
    p_value: float
    design_effect: float


def cut(buckets: Sequence[Bucket], rules: Rules) -> list[list[Bucket]]:
    """Windows, newest first, of `photos` photos and LEAST_BLOCKS buckets or more; the oldest may be short."""
    windows: list[list[Bucket]] = [[]]
    for bucket in buckets:
        if _full(windows[-1], rules):
            windows.append([])
        windows[-1].append(bucket)
    return windows


def _full(window: Sequence[Bucket], rules: Rules) -> bool:
    return len(window) >= LEAST_BLOCKS and _photos(window) >= rules.photos


def _photos(window: Sequence[Bucket]) -> int:
    return sum(bucket.counts.get(PHOTOS, 0) for bucket in window)


def count(window: Sequence[Bucket], feature: str, bins: int) -> NDArray[np.float64]:
    """(k, bins) photos by stretch of the window; at most BLOCKS stretches, of about as many photos each."""
    blocks, share = [np.zeros(bins)], _photos(window) / BLOCKS
    for bucket in window:
        if blocks[-1].sum() >= share > 0:
            blocks.append(np.zeros(bins))
        blocks[-1] += [bucket.counts.get(f"{feature}:{place}", 0) for place in range(bins)]
    return np.array(blocks)


def compare(reference: Counts, blocks: NDArray[np.float64], least: int) -> Finding | None:
    """One window, by stretches, against the baseline; None for fewer photos than `least`."""
    photos = blocks.sum()
    if photos < max(1, least):
        return None
    starts = divergence.merge(reference + blocks.sum(axis=0), POOLED)
    held, cuts = np.add.reduceat(reference, starts), np.add.reduceat(blocks, starts, axis=1)
    live, effect = cuts.sum(axis=0), divergence.design_effect(cuts)
    independent = max(1.0, photos / effect)
    distance = divergence.kolmogorov_smirnov(held, live)
    chance = divergence.psi_by_chance(len(starts), held.sum(), independent)
    return Finding(
        photos=int(photos),
        psi=max(0.0, divergence.psi(held, live) - chance),
        jensen_shannon=divergence.jensen_shannon(held, live),
        kolmogorov_smirnov=distance,
        p_value=divergence.kolmogorov_p(distance, held.sum(), independent),
        design_effect=effect,
    )


def judge(levels: Sequence[Movement], needed: int) -> Movement:
    """A feature's verdict: what `needed` windows, one after another, agree on at least."""
    if len(levels) < needed:
        return "too_few"
    return max(levels[:needed], key=_WORST.index)


def report(baseline: Baseline, history: History, rules: Rules, model: ModelInfo) -> Drift:
    """Every feature's windows against the baseline."""
    windows = cut(history.buckets, rules)
    full = sum(_full(window, rules) for window in windows)
    features = [_feature(name, held, windows, rules, baseline) for name, held in baseline.features.items()]
    verdicts = {one.verdict for one in features}
    newest = windows[0]
    verdict: Movement = next((level for level in _WORST if level in verdicts), "too_few")
    sharing: Literal["all_processes", "this_process"] = "all_processes" if history.shared else "this_process"
    return Drift(
        verdict=verdict,
        sentence=_summary(verdict, features, baseline),
        model=model,
        sharing=sharing,
        photos=_photos(newest),
        cached=sum(bucket.counts.get(CACHED, 0) for bucket in newest),
        windows=min(full, rules.windows),
        windows_needed=rules.windows,
        since=datetime.fromtimestamp(newest[-1].start, UTC) if newest else None,
        features=tuple(features),
    )


def _feature(
    name: str, held: Reference, windows: Sequence[Sequence[Bucket]], rules: Rules, baseline: Baseline
) -> DriftFeature:
    bins = len(held.counts)
    blocks = [count(window, name, bins) for window in windows[: rules.windows]]
    findings = [compare(held.counts, one, rules.min_photos) for one in blocks]
    verdict = judge([rules.level(one, len(baseline.features)) for one in findings], rules.windows)
    live, found = blocks[0].sum(axis=0), findings[0]
    return DriftFeature(
        feature=name,
        verdict=verdict,
        photos=int(live.sum()),
        sentence=_sentence(name, verdict, held, live, found, rules),
        psi=round(found.psi, 4) if found else None,
        jensen_shannon=round(found.jensen_shannon, 4) if found else None,
        kolmogorov_smirnov=round(found.kolmogorov_smirnov, 4) if found else None,
        p_value=found.p_value if found else None,
        design_effect=round(found.design_effect, 2) if found else None,
        bins=held.bins(),
        baseline=_shares(held.counts),
        live=_shares(live),
    )


def _shares(counts: Counts) -> tuple[float, ...]:
    return tuple((counts / counts.sum()).round(4).tolist()) if counts.sum() else ()


def _summary(verdict: Movement, features: Sequence[DriftFeature], baseline: Baseline) -> str:
    moved = [_SPOKEN.get(one.feature, one.feature) for one in features if one.verdict == verdict]
    if not baseline.features:
        return "The model carries no baseline to compare with."
    if verdict == "too_few":
        return "Too few photos were seen lately for a comparison."
    if verdict == "quiet":
        return "Photos and verdicts are like those the model was judged on."
    if verdict == "watch":
        return f"Worth watching: {', '.join(moved)}."
    return f"No longer as when the model was judged: {', '.join(moved)}. Look at these photos before trusting figures."


def _sentence(name: str, verdict: Movement, held: Reference, live: Counts, found: Finding | None, rules: Rules) -> str:
    spoken = _SPOKEN.get(name, name)
    if found is None:
        return f"{spoken}: {int(live.sum())} photos; a comparison needs {rules.min_photos}."
    if verdict == "quiet":
        return f"{spoken}: as in the baseline{_middles(held, live)}."
    said = {"watch": "has moved", "drifted": "has moved far, and stayed there"}[verdict]
    chance = "under 0.001" if found.p_value < 0.001 else f"{found.p_value:.3f}"
    return (
        f"{spoken} {said}{_middles(held, live)}; {_largest_move(held, live)}. "
        f"PSI {found.psi:.2f} beyond chance, KS {found.kolmogorov_smirnov:.2f}, p {chance}; {found.photos} photos."
    )


def _middles(held: Reference, live: Counts) -> str:
    if not held.edges:
        return ""
    return f" (median {median(held.edges, live):.3g}, baseline {median(held.edges, held.counts):.3g})"


def _largest_move(held: Reference, live: Counts) -> str:
    before, now = held.counts / held.counts.sum(), live / live.sum()
    place = int(np.abs(now - before).argmax())
    return f"{held.bins()[place]} {now[place]:.0%} of photos, {before[place]:.0%} in the baseline"


def median(edges: Sequence[float], counts: Counts) -> float:
    """The middle value, as if values lay evenly within their bin."""
    total = np.concatenate([[0.0], np.cumsum(counts)])
    return float(np.interp(total[-1] / 2, total, edges))
