"""detector.drift: a change is seen and said, a clean stream stays quiet; on streams drawn from a baseline."""

from typing import Any

import numpy as np
import pytest

from benchmarks import drift as streams
from detector.drift import Baseline, Rules, compare, count, cut, judge, median, own_baseline, read_baseline, report
from detector.errors import InvalidArtefact
from detector.schema import Drift, ModelInfo, Thresholds
from detector.windows import Bucket, History

THRESHOLDS = Thresholds(real=0.2, ai_generated=0.9)
MODEL = ModelInfo(name="m", version="1", hash="0", profile="fast")
RULES = Rules(photos=500)
DOCUMENT: dict[str, Any] = {
    "photos": 1000,
    "probability": {"fast": {"edges": [0, 0.2, 0.5, 0.9, 1], "counts": [400, 100, 200, 300]}},
    "labels": {"fast": {"real": 0.4, "uncertain": 0.3, "ai_generated": 0.3}},
    "facts": {"sharpness": {"edges": [0, 1, 2, 4, 8], "counts": [100, 400, 400, 100]}},
}
BASELINE = read_baseline(DOCUMENT, "fast", THRESHOLDS)


def bucket(photos: int, sharpness: int = 1, probability: int = 0, start: float = 0.0) -> Bucket:
    """Photos that are all alike: the numbers of their bins."""
    counts = {"photos": photos, f"sharpness:{sharpness}": photos, f"probability:{probability}": photos}
    return Bucket(start, counts | {"cached": 2})


def like_baseline(photos: int, rng: np.random.Generator, **shares: list[float]) -> Bucket:
    counts = {"photos": photos}
    for name, held in BASELINE.features.items():
        drawn = rng.multinomial(photos, shares.get(name, held.counts / held.counts.sum()))
        counts |= {f"{name}:{place}": int(number) for place, number in enumerate(drawn)}
    return Bucket(0.0, counts)


def judged(buckets: list[Bucket], rules: Rules = RULES) -> Drift:
    return report(BASELINE, History(tuple(buckets), True), rules, MODEL)


def verdicts(found: Drift) -> dict[str, str]:
    return {one.feature: one.verdict for one in found.features}


def test_a_photo_counts_in_each_feature_s_bin() -> None:
    assert list(BASELINE.names(0.95, {"sharpness": 3.0})) == ["photos", "label:2", "probability:3", "sharpness:2"]
    assert list(BASELINE.names(0.1, {"unknown": 1.0})) == ["photos", "label:0", "probability:0"]


@pytest.mark.parametrize(("value", "place"), [(-5, 0), (0, 0), (1, 1), (3.99, 2), (8, 3), (99, 3)])
def test_a_value_lies_in_the_bin_numpy_puts_it_in(value: float, place: int) -> None:
    held = BASELINE.features["sharpness"]
    counts, _ = np.histogram(np.clip(value, 0, 8), held.edges)
    assert held.place(value) == place == counts.argmax()


@pytest.mark.parametrize(
    "document",
    [
        {"facts": {"width": {"edges": [0, 1], "counts": [1, 2]}}},
        {"facts": {"width": {"edges": [1, 0], "counts": [1]}}},
        {"facts": 5},
        [],
    ],
)
def test_a_baseline_of_another_form_is_refused(document: Any) -> None:
    with pytest.raises(InvalidArtefact, match="baseline"):
        read_baseline(document, "fast", THRESHOLDS)


def test_a_model_without_a_baseline_has_nothing_to_compare() -> None:
    found = report(Baseline({}, THRESHOLDS), History((bucket(9),), False), RULES, MODEL)
    assert (found.verdict, found.features) == ("too_few", ())
    assert "no baseline" in found.sentence


def test_windows_follow_each_other_and_are_filled_before_the_next() -> None:
    windows = cut([bucket(120, start=at) for at in range(12, 0, -1)], RULES)
    assert [[held.start for held in window] for window in windows] == [[12, 11, 10, 9, 8], [7, 6, 5, 4, 3], [2, 1]]
    assert RULES.enough([bucket(120)] * 11)
    assert not RULES.enough([bucket(120)] * 10)
    assert len(cut([bucket(9000)] * 5, RULES)) == 1  # one bucket is no window, whatever it holds


def test_a_window_is_cut_into_stretches_of_about_as_many_photos() -> None:
    assert count([bucket(10)] * 100, "sharpness", 4).sum(axis=1).tolist() == [100.0] * 10
    assert count([bucket(0)], "sharpness", 4).tolist() == [[0.0] * 4]


def test_too_few_photos_are_not_compared() -> None:
    found = judged([bucket(30)] * 6)
    assert found.verdict == "too_few"
    assert all(one.psi is None and "needs 200" in one.sentence for one in found.features)
    assert (found.photos, found.cached, found.windows) == (180, 12, 0)
    assert judged([]).since is None


def test_photos_like_the_baseline_are_quiet() -> None:
    rng = np.random.default_rng(1)
    found = judged([like_baseline(50, rng) for _ in range(24)])
    assert set(verdicts(found).values()) == {"quiet"}
    assert (found.windows, found.sharing) == (2, "all_processes")
    assert "like those" in found.sentence


def test_a_change_that_stays_is_an_alarm_in_words_and_numbers() -> None:
    rng = np.random.default_rng(1)
    soft = [0.6, 0.3, 0.1, 0.0]
    found = judged([like_baseline(50, rng, sharpness=soft) for _ in range(24)])
    assert verdicts(found) == {"label": "quiet", "probability": "quiet", "sharpness": "drifted"}
    assert found.verdict == "drifted" and "sharpness" in found.sentence
    moved = found.features[-1]
    assert moved.psi and moved.psi > 0.5 and moved.p_value is not None and moved.p_value < 0.001
    assert "median 0.8" in moved.sentence and "baseline 2" in moved.sentence
    assert "0..1" in moved.bins and moved.live[0] == pytest.approx(0.6, abs=0.07)
    assert moved.sentence in str(found)


def test_a_change_of_one_window_is_none() -> None:
    rng = np.random.default_rng(1)
    newest = [like_baseline(50, rng, sharpness=[0.6, 0.3, 0.1, 0.0]) for _ in range(10)]
    found = judged([*newest, *(like_baseline(50, rng) for _ in range(14))])
    assert verdicts(found)["sharpness"] == "quiet"


def test_what_windows_agree_on_counts() -> None:
    assert judge(["drifted", "drifted"], 2) == "drifted"
    assert judge(["drifted", "watch"], 2) == "watch"
    assert judge(["drifted", "quiet"], 2) == "quiet"
    assert judge(["drifted"], 2) == judge(["drifted", "too_few"], 2) == "too_few"


def test_copies_of_few_photos_are_no_evidence() -> None:
    """Ten uploads of fifty equal photos each say no more than ten photos do."""
    few = [np.eye(4)[place] * 50 for place in (0, 0, 0, 0, 1, 1, 1, 1, 2, 2)]
    found = compare(BASELINE.features["sharpness"].counts, np.array(few), 200)
    assert found and found.design_effect > 20
    assert RULES.level(found, 10) == "quiet"


def test_a_saved_report_can_be_the_baseline() -> None:
    rng = np.random.default_rng(1)
    soft = [0.6, 0.3, 0.1, 0.0]
    usual = [like_baseline(50, rng, sharpness=soft) for _ in range(24)]
    own = own_baseline(BASELINE, judged(usual), MODEL.hash)
    again = History(tuple(like_baseline(50, rng, sharpness=soft) for _ in range(24)), True)
    assert set(verdicts(report(own, again, RULES, MODEL)).values()) == {"quiet"}
    other = own_baseline(BASELINE, judged(usual), "another model")
    assert other.features["probability"] is BASELINE.features["probability"]
    assert other.features["sharpness"] is not BASELINE.features["sharpness"]


def test_the_median_lies_within_its_bin() -> None:
    assert median((0.0, 1.0, 2.0), np.array([1.0, 3.0])) == pytest.approx(1 + 1 / 3)


@pytest.mark.parametrize("change", ["one more photo in a hundred is generated, each window"])
def test_a_slow_poisoning_is_caught_on_the_default_model_s_baseline(change: str) -> None:
    _, alarm = streams.time_to_alarm(streams.default_baseline(), streams.CLEAN[1], streams.SLOW[change], 45, seed=3)
    assert alarm is not None


@pytest.mark.parametrize("change", ["half as sharp", "JPEG quality 60 instead of 83", "twice as wide and high"])
def test_a_new_camera_pipeline_is_caught_within_three_windows(change: str) -> None:
    _, alarm = streams.time_to_alarm(streams.default_baseline(), streams.CLEAN[1], streams.SUDDEN[change], 4, seed=3)
    assert alarm is not None and alarm <= 3


@pytest.mark.parametrize("stream", streams.CLEAN[:2], ids=lambda stream: stream.said)
def test_a_clean_stream_raises_no_alarm(stream: streams.Stream) -> None:
    alarms, _ = streams.false_alarms(streams.default_baseline(), stream, 30, seed=5)
    assert alarms == 0
