"""Whether a candidate is fit to take the current model's place, from the metrics of every process that tries it.

`python -m detector.comparison http://localhost:3000/metrics ...` prints the figures with 95 % intervals. Exit codes: 0
fit, 1 not fit, 2 wrong usage, 3 too few photos to tell, 4 metrics that can't be read.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, inf, sqrt
from pathlib import Path
from typing import get_args

import httpx
from prometheus_client.parser import text_string_to_metric_families

from detector.schema import Label

FIT, UNFIT, TOO_FEW, UNREADABLE = 0, 1, 3, 4
Z = 1.96  # 95 % of a normal distribution lie this many standard deviations around its mean
LABELS: tuple[Label, ...] = get_args(Label)


@dataclass(frozen=True)
class Bar:
    """What a candidate must reach; shares are judged by the unfavourable end of their interval."""

    photos: int = 1000
    agreement: float = 0.97  # share of photos with the same label, at least
    accusations: float = 0.005  # share of photos `real` to the current model and `ai_generated` to it, at most
    failures: float = 0.01  # share of photos it failed in, at most
    slower: float = 1.5  # times the current model's mean seconds, at most


@dataclass(frozen=True)
class Share:
    """So many of so many, with Wilson's interval (1927), which holds for few and for none."""

    count: float
    of: float

    @property
    def interval(self) -> tuple[float, float]:
        if not self.of:
            return 0.0, 1.0
        share, spread = self.count / self.of, Z**2 / self.of
        middle = share + spread / 2
        width = Z * sqrt(share * (1 - share) / self.of + spread / (4 * self.of))
        return max(0.0, (middle - width) / (1 + spread)), min(1.0, (middle + width) / (1 + spread))

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.count:.0f} of {self.of:.0f} = {self.count / max(1, self.of):.2%} [{low:.2%}, {high:.2%}]"


@dataclass(frozen=True)
class Distribution:
    """A Prometheus histogram: observations up to each limit, and their sum."""

    upto: Mapping[float, float]
    sum: float

    @property
    def count(self) -> float:
        return self.upto.get(inf, 0.0)

    @property
    def mean(self) -> float:
        return self.sum / self.count if self.count else 0.0

    def quantile(self, share: float) -> float:
        """The limit of the bucket that holds it: at most so much."""
        return next((limit for limit in sorted(self.upto) if self.upto[limit] >= share * self.count), inf)

    def error(self) -> float:
        """Standard error of the mean, taking a bucket's middle for what lies in it."""
        spread, before = 0.0, (0.0, 0.0)  # a limit, and how many lie below it
        for limit, count in sorted(self.upto.items()):
            middle = before[0] if limit == inf else (before[0] + limit) / 2
            spread += (count - before[1]) * (middle - self.mean) ** 2
            before = limit, count
        return sqrt(spread) / self.count if self.count else 0.0


@dataclass(frozen=True)
class Comparison:
    """What the processes counted, added up."""

    samples: Mapping[tuple[str, frozenset[tuple[str, str]]], float]

    def count(self, name: str, **labels: str) -> float:
        return self.samples.get((f"ppd_rollout_{name}", frozenset(labels.items())), 0.0)

    def distribution(self, name: str, **labels: str) -> Distribution:
        wanted, bucket = frozenset(labels.items()), f"ppd_rollout_{name}_bucket"
        upto = {
            float(dict(given)["le"]): value
            for (sample, given), value in self.samples.items()
            if sample == bucket and {pair for pair in given if pair[0] != "le"} == wanted
        }
        return Distribution(upto, self.count(f"{name}_sum", **labels))

    @property
    def compared(self) -> float:
        return self.count("shadow_total", result="compared")

    @property
    def agreement(self) -> Share:
        return Share(sum(self.pair(label, label) for label in LABELS), self.compared)

    @property
    def accusations(self) -> Share:
        return Share(self.pair("real", "ai_generated"), self.compared)

    @property
    def failures(self) -> Share:
        failed = self.count("shadow_total", result="failed") + self.count("fallbacks_total")
        return Share(failed, failed + self.compared + sum(self.answers("candidate").values()))

    @property
    def seconds(self) -> tuple[Distribution, Distribution]:
        return self.distribution("seconds", model="current"), self.distribution("seconds", model="candidate")

    def pair(self, current: Label, candidate: Label) -> float:
        return self.count("labels_total", current=current, candidate=candidate)

    def answers(self, model: str) -> dict[Label, float]:
        return {label: self.count("answers_total", model=model, label=label) for label in LABELS}

    def slower(self) -> tuple[float, float, float]:
        """The ratio of the mean seconds with its interval, as if the photos of both were others: wider than needed."""
        current, candidate = self.seconds
        if not (current.mean and candidate.mean):
            return 1.0, 0.0, inf
        ratio = candidate.mean / current.mean
        width = exp(Z * sqrt((current.error() / current.mean) ** 2 + (candidate.error() / candidate.mean) ** 2))
        return ratio, ratio / width, ratio * width


def read(texts: Sequence[str]) -> Comparison:
    """Add up what several processes' /metrics say; ValueError where one is no such text."""
    samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for text in texts:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                key = sample.name, frozenset(sample.labels.items())
                if sample.name.startswith("ppd_rollout_"):
                    samples[key] = samples.get(key, 0.0) + sample.value
    return Comparison(samples)


def complaints(found: Comparison, bar: Bar) -> list[str]:
    """Why the candidate is not fit; empty where it is."""
    said = []
    if found.compared and found.agreement.interval[0] < bar.agreement:
        said.append(f"the labels may agree in less than {bar.agreement:.1%} of the photos")
    if found.compared and found.accusations.interval[1] > bar.accusations:
        said.append(f"it may call more than {bar.accusations:.1%} of the photos AI that were real")
    if found.failures.interval[1] > bar.failures:
        said.append(f"it may fail in more than {bar.failures:.1%} of the photos")
    if found.slower()[0] > bar.slower:
        said.append(f"it takes more than {bar.slower} times as long")
    return said


def conclude(found: Comparison, bar: Bar) -> tuple[int, str]:
    """The exit code and the sentence."""
    photos = found.compared or sum(found.answers("candidate").values())
    if photos < bar.photos:
        return TOO_FEW, f"Too few photos to tell: {photos:.0f} of {bar.photos}."
    said = complaints(found, bar)
    return (UNFIT, f"Not fit to promote: {'; '.join(said)}.") if said else (FIT, "Fit to promote.")


def lines(found: Comparison) -> list[str]:
    """The figures, for a person."""
    current, candidate = found.seconds
    ratio, low, high = found.slower()
    return [
        *(_in_shadow(found) if found.compared else []),
        *(_in_split(found) if sum(found.answers("candidate").values()) else []),
        f"failed          {found.failures}",
        f"seconds         current mean {current.mean:.3f}, 95 % within {current.quantile(0.95):g}",
        f"                candidate mean {candidate.mean:.3f}, 95 % within {candidate.quantile(0.95):g}",
        f"                candidate / current = {ratio:.2f} [{low:.2f}, {high:.2f}]",
    ]


def _in_shadow(found: Comparison) -> list[str]:
    shift, dropped = found.distribution("probability_shift"), found.count("shadow_total", result="dropped")
    header = "".join(f"{label:>15}" for label in LABELS)
    rows = [f"{one:>15} " + "".join(f"{found.pair(one, other):>15.0f}" for other in LABELS) for one in LABELS]
    return [
        f"compared        {found.compared:.0f}, left out for lack of time {dropped:.0f}",
        f"same label      {found.agreement}",
        f"real -> AI      {found.accusations}",
        f"AI -> real      {Share(found.pair('ai_generated', 'real'), found.compared)}",
        f"probability     moves by {shift.mean:.4f} in the mean, 95 % of them by {shift.quantile(0.95):g} at most",
        f"current \\ cand. {header}",
        *rows,
    ]


def _in_split(found: Comparison) -> list[str]:
    """Not the models' difference alone: other callers send other photos."""
    said = []
    for model in ("current", "candidate"):
        answers = found.answers(model)
        said.append(f"{model:<9} says AI {Share(answers['ai_generated'], sum(answers.values()))}")
    return said


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m detector.comparison", description=__doc__)
    parser.add_argument(
        "metrics", nargs="+", help="/metrics of every process that tries the candidate, or a saved file"
    )
    for name, default in vars(Bar()).items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"({default})")
    options = vars(parser.parse_args(arguments))
    try:
        found = read([_text(source) for source in options.pop("metrics")])
    except (httpx.HTTPError, OSError, ValueError) as error:
        print(f"The metrics can't be read ({type(error).__name__}).", file=sys.stderr)
        return UNREADABLE
    code, sentence = conclude(found, Bar(**options))
    print("\n".join([*lines(found), sentence]))
    return code


def _text(source: str) -> str:
    if "://" not in source:
        return Path(source).read_text(encoding="utf-8")
    return httpx.get(source, timeout=30).raise_for_status().text


if __name__ == "__main__":
    sys.exit(main())
