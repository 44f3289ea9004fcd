"""How often drift is seen where it is, and where it is none: streams made from the default model's own baseline.

`python -m benchmarks.drift` writes benchmarks/drift.md, and prints what measuring and counting cost a photo.
"""

import argparse
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detector.artefact import Artefact, load
from detector.drift import BLOCKS, Baseline, Rules, read_baseline, report
from detector.facts import measure
from detector.schema import Movement
from detector.windows import Bucket, History, Windows

ROOT = Path(__file__).parent.parent
PAGE = Path(__file__).with_name("drift.md")
PROFILE = "accurate"
RULES = Rules()
PER_BUCKET = RULES.photos // BLOCKS
BEGIN = 4  # windows of clean traffic before a change
Values = dict[str, NDArray[np.float64]]  # of consecutive photos, by feature
Change = Callable[[Values, float, np.random.Generator], Values]  # photos, windows since the change began


@dataclass(frozen=True)
class Stream:
    """Traffic as it is: photos come by source, `size` at a time on average, `alike` (0..1) within one."""

    said: str
    alike: float = 0.0
    size: int = 1


CLEAN = (
    Stream("independent photos"),
    Stream("20 photos of a source in a row, alike by 0.5", 0.5, 20),
    Stream("50 photos of a source in a row, alike by 0.8", 0.8, 50),
)


@cache
def default_model() -> Artefact:
    return load(ROOT / "detector/default_model")


@cache
def default_baseline() -> Baseline:
    model = default_model()
    return read_baseline(model.document("baseline.json"), PROFILE, model.calibrations[PROFILE].thresholds)


def draw(baseline: Baseline, stream: Stream, rng: np.random.Generator, count: int) -> Values:
    """Photos with the baseline's own distributions; a source's lie around a place of its own in each."""
    sizes = rng.geometric(1 / stream.size, count)
    source = np.repeat(np.arange(count), sizes)[:count]
    drawn = {}
    for name, held in baseline.features.items():
        if held.edges:
            own = rng.normal(size=count)[source] * stream.alike**0.5
            ranks = _rank(own + rng.normal(size=count) * (1 - stream.alike) ** 0.5)
            total = np.concatenate([[0.0], np.cumsum(held.counts) / held.counts.sum()])
            drawn[name] = np.interp(ranks, total, held.edges)
    return drawn


def _rank(normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of a standard normal below each value."""
    grid = np.linspace(-6, 6, 4001)
    density = np.exp(-(grid**2) / 2)
    ranks: NDArray[np.float64] = np.interp(normal, grid, np.cumsum(density) / density.sum())
    return ranks


def poisoned(photos: Values, windows: float, rng: np.random.Generator) -> Values:
    """Every window one more in a hundred photos is one of a generator the model knows."""
    struck = rng.random(len(photos["probability"])) < 0.01 * windows
    return photos | {"probability": np.where(struck, rng.uniform(0.9, 1, len(struck)), photos["probability"])}


def hidden(photos: Values, windows: float, _: np.random.Generator) -> Values:
    """Generators learn to be missed: every window the logit of every photo sinks by 0.05."""
    kept = np.clip(photos["probability"], 1e-3, 1 - 1e-3)
    return photos | {"probability": 1 / (1 + np.exp(-(np.log(kept / (1 - kept)) - 0.05 * windows)))}


def times(feature: str, factor: float) -> Change:
    return lambda photos, *_: photos | {feature: photos[feature] * factor}


def sizes(photos: Values, *_: object) -> Values:
    return photos | {"width": photos["width"] * 2, "height": photos["height"] * 2}


SLOW: dict[str, Change] = {
    "one more photo in a hundred is generated, each window": poisoned,
    "every photo's logit sinks by 0.05, each window": hidden,
}
SUDDEN: dict[str, Change] = {
    "half as sharp": times("sharpness", 0.5),
    "JPEG quality 60 instead of 83": times("jpeg_quality", 0.72),
    "twice as wide and high": sizes,
    "a fifth darker": times("brightness", 0.8),
    "half the contrast": times("contrast", 0.5),
}


def bucketed(baseline: Baseline, photos: Values) -> Iterator[Bucket]:
    """Photos counted as the service counts them, PER_BUCKET to a bucket."""
    rows = [dict(zip(photos, row, strict=True)) for row in np.stack(list(photos.values()), 1).tolist()]
    for start in range(0, len(rows) - PER_BUCKET + 1, PER_BUCKET):
        counts: Counter[str] = Counter()
        for row in rows[start : start + PER_BUCKET]:
            facts = {name: value for name, value in row.items() if name != "probability"}
            counts.update(baseline.names(row["probability"], facts))
        yield Bucket(float(start), counts)


def verdicts(baseline: Baseline, photos: Values, rules: Rules = RULES) -> Iterator[dict[str, Movement]]:
    """Every feature's verdict after every bucket, from the first two full windows on."""
    kept: deque[Bucket] = deque(maxlen=(rules.windows + 1) * BLOCKS)
    for bucket in bucketed(baseline, photos):
        kept.appendleft(bucket)
        if len(kept) >= rules.windows * BLOCKS:
            found = report(baseline, History(tuple(kept), False), rules, default_model().info(PROFILE))
            yield {one.feature: one.verdict for one in found.features}


def false_alarms(baseline: Baseline, stream: Stream, windows: int, seed: int) -> tuple[int, int]:
    """How often a feature of a clean stream begins to be drifted, and worth watching, in so many windows."""
    photos = draw(baseline, stream, np.random.default_rng(seed), windows * RULES.photos)
    alarms = watched = 0
    before: dict[str, Movement] = {}
    for now in verdicts(baseline, photos):
        for feature, verdict in now.items():
            alarms += verdict == "drifted" != before.get(feature)
            watched += verdict == "watch" and before.get(feature) in (None, "quiet", "too_few")
        before = now
    return alarms, watched


def time_to_alarm(
    baseline: Baseline, stream: Stream, change: Change, windows: int, seed: int
) -> tuple[float | None, float | None]:
    """Windows from the begin of a change to the first watch and to the first alarm; None where there is none."""
    rng = np.random.default_rng(seed)
    photos = draw(baseline, stream, rng, (BEGIN + windows) * RULES.photos)
    changed = _changed(photos, change, rng)
    first: dict[str, float] = {}
    for step, now in enumerate(verdicts(baseline, changed)):
        after = (step + 1 + RULES.windows * BLOCKS) / BLOCKS - BEGIN
        if after > 0:
            for verdict in ("watch", "drifted"):
                if verdict in now.values():
                    first.setdefault(verdict, after)
        if "drifted" in first:
            break
    return first.get("watch", first.get("drifted")), first.get("drifted")


def _changed(photos: Values, change: Change, rng: np.random.Generator) -> Values:
    """The change takes hold bucket by bucket; before BEGIN nothing is touched."""
    count = len(photos["probability"])
    parts = []
    for start in range(0, count, PER_BUCKET):
        part = {name: values[start : start + PER_BUCKET] for name, values in photos.items()}
        since = start / RULES.photos - BEGIN
        parts.append(change(part, since, rng) if since >= 0 else part)
    return {name: np.concatenate([part[name] for part in parts]) for name in photos}


def cost() -> tuple[float, float]:
    """Milliseconds to measure a photo of a megapixel, and to count it."""
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 255, (1000, 1000, 3), dtype=np.uint8))
    file = BytesIO()
    photo.save(file, "JPEG")
    facts, windows = measure(photo, file.getvalue()), Windows("bench", 60, 3600)
    measured = _median(lambda: measure(photo, file.getvalue()))
    return measured, _median(lambda: windows.add(default_baseline().names(0.5, facts)))


def _median(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(300):
        started = time.perf_counter()
        work()
        taken.append(1e3 * (time.perf_counter() - started))
    return median(taken)


def clean_rows(windows: int) -> Iterator[str]:
    for seed, stream in enumerate(CLEAN):
        alarms, watched = false_alarms(default_baseline(), stream, windows, seed)
        yield f"| {stream.said} | {1000 * alarms / windows:.1f} | {1000 * watched / windows:.1f} |"


def change_rows(changes: dict[str, Change], windows: int, rounds: int) -> Iterator[str]:
    for said, change in changes.items():
        for stream in CLEAN[:2]:
            found = [time_to_alarm(default_baseline(), stream, change, windows, seed) for seed in range(rounds)]
            watched = [first for first, _ in found if first is not None]
            alarms = [second for _, second in found if second is not None]
            first, last = (f"{median(ones):.1f}" if ones else "never" for ones in (watched, alarms))
            yield f"| {said} | {stream.said} | {len(alarms)} of {rounds} | {first} | {last} |"


def page(windows: int, rounds: int) -> str:
    (measured, counted), features = cost(), len(default_baseline().features)
    head = "| change | stream | alarms | windows to watch | to the alarm |\n| --- | --- | --- | --- | --- |"
    return f"""# Drift

`make bench-drift` writes this page. Streams are drawn from the default model's own baseline, profile `{PROFILE}`,
{features} features; a window has {RULES.photos} photos, and a verdict is asked after every {PER_BUCKET}.

## Clean streams

Over {windows:,} windows each, per 1000 windows and over all features together; a verdict that stays counts once.

| stream | alarms | watches |
| --- | --- | --- |
{_lines(clean_rows(windows))}

## Slow changes

After {BEGIN} clean windows; medians of {rounds} streams, in windows since the change began.

{head}
{_lines(change_rows(SLOW, 60, rounds))}

## Sudden changes

The same; {RULES.windows} windows have to agree, so an alarm takes as many at least.

{head}
{_lines(change_rows(SUDDEN, 8, rounds))}

## Cost

Measuring a photo of one megapixel took {measured:.2f} ms in the decode thread, counting it {counted:.3f} ms (medians).
"""


def _lines(rows: Iterator[str]) -> str:
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.drift", description="Detections and false alarms of drift.")
    parser.add_argument("--windows", type=int, default=1000, help="of each clean stream")
    parser.add_argument("--rounds", type=int, default=20, help="streams with each change")
    given = parser.parse_args()
    text = page(given.windows, given.rounds)
    PAGE.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
