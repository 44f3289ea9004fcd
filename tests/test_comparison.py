"""The report says fit, unfit or not known, and means it."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from detector import metrics
from detector.comparison import FIT, TOO_FEW, UNFIT, UNREADABLE, Bar, Share, conclude, lines, main, read

BAR = Bar()
Pairs = dict[tuple[str, str], int]
AGREED: Pairs = {("real", "real"): 1500, ("ai_generated", "ai_generated"): 480, ("uncertain", "real"): 20}


def text(pairs: Pairs, seconds: tuple[float, float] = (0.1, 0.1), failed: int = 0, shift: float = 0.004) -> str:
    """What a process says at /metrics that compared these pairs of labels."""
    registry = CollectorRegistry()
    labels = Counter("ppd_rollout_labels_total", "", ["current", "candidate"], registry=registry)
    shadow = Counter("ppd_rollout_shadow_total", "", ["result"], registry=registry)
    took = Histogram("ppd_rollout_seconds", "", ["model"], buckets=(0.05, 0.1, 0.2, 0.5), registry=registry)
    moved = Histogram("ppd_rollout_probability_shift", "", buckets=(0.001, 0.005, 0.1), registry=registry)
    for pair, count in pairs.items():
        labels.labels(*pair).inc(count)
        shadow.labels("compared").inc(count)
        for _ in range(count):
            moved.observe(shift)
            for model, value in zip(("current", "candidate"), seconds, strict=True):
                took.labels(model).observe(value)
    shadow.labels("failed").inc(failed)
    return generate_latest(registry).decode()


def test_a_candidate_that_agrees_is_fit() -> None:
    assert conclude(read([text(AGREED)]), BAR) == (FIT, "Fit to promote.")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (text(AGREED | {("uncertain", "real"): 60}), "agree in less than 97.0%"),
        (text(AGREED | {("real", "ai_generated"): 10}), "may call more than 0.5% of the photos AI that were real"),
        (text(AGREED, failed=20), "may fail in more than 1.0%"),
        (text(AGREED, seconds=(0.1, 0.16)), "more than 1.5 times as long"),
    ],
)
def test_a_candidate_that_is_not_fit_is_told_why(said: str, why: str) -> None:
    code, sentence = conclude(read([said]), BAR)
    assert code == UNFIT
    assert why in sentence


def test_few_photos_tell_nothing_either_way() -> None:
    code, sentence = conclude(read([text({("real", "real"): 999})]), BAR)
    assert (code, sentence) == (TOO_FEW, "Too few photos to tell: 999 of 1000.")


def test_processes_are_added_up() -> None:
    half = text({("real", "real"): 600})
    assert conclude(read([half, half]), BAR)[0] == FIT
    assert read([half, half]).compared == 1200


def test_a_report_holds_the_figures_with_their_intervals() -> None:
    said = "\n".join(lines(read([text(AGREED, seconds=(0.1, 0.12))])))
    assert "same label      1980 of 2000 = 99.00% [98.46%, 99.35%]" in said
    assert "real -> AI      0 of 2000 = 0.00% [0.00%, 0.19%]" in said
    assert "moves by 0.0040 in the mean, 95 % of them by 0.005 at most" in said
    assert "candidate mean 0.120, 95 % within 0.2" in said
    assert "candidate / current = 1.20 [1.18, 1.22]" in said


def test_the_interval_of_a_share_holds_it_and_narrows() -> None:
    few, many = Share(1, 10).interval, Share(1000, 10_000).interval
    assert few[0] < many[0] < 0.1 < many[1] < few[1]
    assert Share(0, 0).interval == (0, 1)


def split(candidate: Iterable[int], fallbacks: int) -> str:
    registry = CollectorRegistry()
    answers = Counter("ppd_rollout_answers_total", "", ["model", "label"], registry=registry)
    for model, counts in (("current", (900, 80, 20)), ("candidate", candidate)):
        for label, count in zip(("real", "ai_generated", "uncertain"), counts, strict=True):
            answers.labels(model, label).inc(count)
    Counter("ppd_rollout_fallbacks_total", "", registry=registry).inc(fallbacks)
    return generate_latest(registry).decode()


def test_in_a_split_failures_decide_and_shares_are_shown() -> None:
    good, bad = read([split((1800, 180, 20), 0)]), read([split((1800, 180, 20), 40)])
    assert (conclude(good, BAR)[0], conclude(bad, BAR)[0]) == (FIT, UNFIT)
    assert "candidate says AI 180 of 2000 = 9.00%" in "\n".join(lines(good))


def test_a_saved_page_is_read_and_the_exit_code_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "metrics").write_text(text({("real", "real"): 60}))
    assert main([str(tmp_path / "metrics"), "--photos", "50", "--accusations", "0.1", "--failures", "0.1"]) == UNFIT
    assert "agree in less than" in capsys.readouterr().out
    assert main([str(tmp_path / "metrics")]) == TOO_FEW


def test_metrics_that_can_t_be_read_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "no").write_text("<html>")
    assert [main([str(tmp_path / "none")]), main([str(tmp_path / "no")])] == [UNREADABLE, UNREADABLE]
    assert capsys.readouterr().err.count("\n") == 2


def test_what_is_read_is_what_the_service_counts() -> None:
    counted = {
        metric.name
        for collector in vars(metrics).values()
        if isinstance(collector, Counter | Histogram)
        for metric in collector.describe()
    }
    for name in ("labels", "shadow", "answers", "fallbacks", "seconds", "probability_shift"):
        assert f"ppd_rollout_{name}" in counted
