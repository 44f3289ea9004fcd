"""A candidate is compared or answers its share, and nothing it does takes a verdict from a caller."""

import asyncio
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client import REGISTRY

from detector.artefact import load
from detector.cache import VerdictCache
from detector.errors import EmptyImage, ModelUnavailable
from detector.image import Limits
from detector.pipeline import Detector, Read, Rules, Score, Style
from detector.rollout import Candidate, Circuit, Rollout, Shadow, Split, place
from detector.schema import Finding, Thresholds, Verdict
from tests.conftest import encoded, make_photo

LIMITS = Limits(10**6, 10**7, 4096, 32, frozenset({"JPEG", "PNG"}))
STYLE = Style(0.5, "viridis", "png", 64)
RULES = Rules(Thresholds(real=0.3, ai_generated=0.7), 0.8, 0.95)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def saying(evidence: float, width: int = 64) -> Score:
    async def score(views: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.full((len(views), width), evidence, np.float32)

    return score


def failing(error: Exception) -> Score:
    async def score(views: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise error

    return score


async def never(views: NDArray[np.uint8]) -> NDArray[np.float32]:
    await asyncio.Event().wait()
    raise AssertionError


@dataclass
class Pair:
    """Makes the two detectors of a test: two profiles of one folder, so that their views differ too."""

    folder: Path

    def current(self, score: Score, cache: VerdictCache | None = None, read: Read | None = None) -> Detector:
        return self._detector("accurate", score, cache, read)

    def candidate(self, score: Score, timeout: float = 10, clock: Callable[[], float] | None = None) -> Candidate:
        circuit = Circuit(5, clock) if clock else None
        return Candidate(self._detector("fast", score), timeout, circuit)

    def _detector(
        self, profile: str, score: Score, cache: VerdictCache | None = None, read: Read | None = None
    ) -> Detector:
        artefact = load(self.folder)
        plan, info = artefact.spec.plan(profile), artefact.info(profile)
        return Detector(plan, artefact.calibrations[profile], info, RULES, LIMITS, score, read=read, cache=cache)


@pytest.fixture
def pair(model_folder: Path) -> Pair:
    return Pair(model_folder)


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def rise(name: str, **labels: str) -> Callable[[], float]:
    """How much a counter has grown since now."""
    before = counted(name, **labels)
    return lambda: counted(name, **labels) - before


def test_the_same_caller_always_gets_the_same_model_and_a_larger_share_takes_none_away(pair: Pair) -> None:
    small, large = (Split(pair.current(saying(0)), pair.candidate(saying(0, 16)), share) for share in (0.2, 0.5))
    callers = [f"key:{number}" for number in range(2000)]
    drawn = {caller for caller in callers if small.draws(caller)}
    assert 300 < len(drawn) < 500
    assert drawn == {caller for caller in callers if small.draws(caller)}
    assert all(large.draws(caller) for caller in drawn)


def test_another_candidate_draws_other_callers() -> None:
    callers = [f"key:{number}" for number in range(2000)]
    first, second = ({caller for caller in callers if place(model, caller) < 0.5} for model in ("a" * 64, "b" * 64))
    assert 400 < len(first & second) < 600


@pytest.mark.parametrize(("share", "profile"), [(0.0, "accurate"), (1.0, "fast")])
def test_a_verdict_says_which_model_answered(pair: Pair, jpeg: bytes, share: float, profile: str) -> None:
    split = Split(pair.current(saying(9)), pair.candidate(saying(-9, 16)), share)
    verdict = asyncio.run(split.predict(jpeg, "r", "key:desk"))
    assert (verdict.model.profile, verdict.label) == (profile, "ai_generated" if profile == "accurate" else "real")


def test_a_split_explains_with_the_model_that_judges(pair: Pair, jpeg: bytes) -> None:
    split = Split(pair.current(saying(9)), pair.candidate(saying(-9, 16)), 1)
    explanation = asyncio.run(split.explain(jpeg, STYLE, "r", "key:desk"))
    assert (explanation.verdict.model.profile, explanation.verdict.label) == ("fast", "real")


@pytest.mark.parametrize(
    "score",
    [failing(ModelUnavailable()), failing(OSError()), saying(9, 15), saying(float("nan"), 16), never],
    ids=["gone", "broken", "other width", "not a number", "late"],
)
def test_where_the_candidate_fails_the_current_model_answers(pair: Pair, jpeg: bytes, score: Score) -> None:
    fallbacks = rise("ppd_rollout_fallbacks_total")
    split = Split(pair.current(saying(9)), pair.candidate(score, 0.2 if score is never else 10), 1)
    verdict = asyncio.run(split.predict(jpeg, "r", "key:desk"))
    assert (verdict.model.profile, verdict.label, fallbacks()) == ("accurate", "ai_generated", 1)


def test_nobody_waits_for_a_candidate_that_has_just_failed(pair: Pair, jpeg: bytes) -> None:
    asked, clock = [], Clock()

    async def score(views: NDArray[np.uint8]) -> NDArray[np.float32]:
        asked.append(clock.now)
        if clock.now < 6:
            raise ModelUnavailable
        return np.zeros((1, 16), np.float32)

    async def scenario() -> list[str]:
        split = Split(pair.current(saying(0)), pair.candidate(score, clock=clock), 1)
        profiles = []
        for now in (0, 1, 4.9, 5, 9.9, 10, 10.1):
            clock.now = now
            profiles.append((await split.predict(jpeg, "r", "key:desk")).model.profile)
        return profiles

    assert asyncio.run(scenario()) == ["accurate"] * 5 + ["fast"] * 2
    assert asked == [0, 5, 10, 10.1]


def test_a_photo_that_is_none_is_refused_and_not_the_candidate_s_failure(pair: Pair, jpeg: bytes) -> None:
    fallbacks = rise("ppd_rollout_fallbacks_total")
    split = Split(pair.current(saying(9)), pair.candidate(saying(-9, 16)), 1)
    bad, good = asyncio.run(split.predict_many([b"", jpeg], "r", "key:desk"))
    assert isinstance(bad, EmptyImage)
    assert isinstance(good, Verdict)
    assert (good.model.profile, fallbacks()) == ("fast", 0)


def test_a_caller_who_leaves_is_not_the_candidate_s_failure(pair: Pair, jpeg: bytes) -> None:
    async def scenario() -> str:
        asked = asyncio.Event()

        async def score(views: NDArray[np.uint8]) -> NDArray[np.float32]:
            if asked.is_set():
                return np.full((1, 16), 9, np.float32)
            asked.set()
            return await never(views)

        split = Split(pair.current(saying(9)), pair.candidate(score), 1)
        leaving = asyncio.create_task(split.predict(jpeg, "r", "key:desk"))
        await asked.wait()
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        return (await split.predict(jpeg, "r", "key:desk")).model.profile

    assert asyncio.run(scenario()) == "fast"


def test_a_split_counts_answers_and_seconds_of_both(pair: Pair, jpeg: bytes) -> None:
    answers = rise("ppd_rollout_answers_total", model="candidate", label="real")
    seconds = [rise("ppd_rollout_seconds_count", model=model) for model in ("current", "candidate")]
    for share in (0.0, 1.0):
        split = Split(pair.current(saying(9)), pair.candidate(saying(-9, 16)), share)
        asyncio.run(split.predict(jpeg, "r", "key:desk"))
    assert (answers(), [one() for one in seconds]) == (1, [1, 1])


def shadowed(shadow: Shadow, *photos: bytes) -> list[Verdict]:
    """What callers are answered; then the comparison is waited for."""

    async def scenario() -> list[Verdict]:
        answers = await shadow.predict_many(photos, "r", "key:desk")
        await shadow.settle()
        return [answer for answer in answers if isinstance(answer, Verdict)]

    return asyncio.run(scenario())


def test_a_shadow_is_compared_and_never_answers(pair: Pair, jpeg: bytes) -> None:
    labels = rise("ppd_rollout_labels_total", current="ai_generated", candidate="real")
    close, far = (rise("ppd_rollout_probability_shift_bucket", le=limit) for limit in ("0.5", "1.0"))
    shadow = Shadow(pair.current(saying(9)), pair.candidate(saying(-9, 16)), 1, 16)
    (verdict,) = shadowed(shadow, jpeg)
    assert (verdict.model.profile, verdict.label) == ("accurate", "ai_generated")
    assert (labels(), close(), far()) == (1, 0, 1)


def test_the_scores_of_a_shadow_are_logged(pair: Pair, jpeg: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "bentoml.detector")
    shadowed(Shadow(pair.current(saying(9)), pair.candidate(saying(-9, 16)), 1, 16), jpeg)
    assert "shadow of r: current ai_generated 1.0000, candidate real 0.0110" in caplog.messages


@pytest.mark.parametrize("score", [failing(ModelUnavailable()), saying(0, 15), never], ids=["gone", "broken", "late"])
def test_a_shadow_that_fails_is_only_counted(pair: Pair, jpeg: bytes, score: Score) -> None:
    failed = rise("ppd_rollout_shadow_total", result="failed")
    shadow = Shadow(pair.current(saying(9)), pair.candidate(score, 0.2 if score is never else 10), 1, 16)
    (verdict,) = shadowed(shadow, jpeg)
    assert (verdict.label, failed()) == ("ai_generated", 1)


def test_an_answer_does_not_wait_for_its_shadow_and_what_is_too_much_is_dropped(pair: Pair) -> None:
    results = {name: rise("ppd_rollout_shadow_total", result=name) for name in ("compared", "dropped", "failed")}
    photos = [encoded(make_photo(seed=number)) for number in range(5)]

    async def scenario() -> int:
        shadow = Shadow(pair.current(saying(9)), pair.candidate(never), 1, 3)
        answers = await shadow.predict_many(photos, "r", "key:desk")
        dropped = results["dropped"]()
        shadow.close()
        with pytest.raises(asyncio.CancelledError):
            await shadow.settle()
        assert all(isinstance(answer, Verdict) for answer in answers)
        return int(dropped)

    assert asyncio.run(asyncio.wait_for(scenario(), 20)) == 2
    assert {name: count() for name, count in results.items()} == {"compared": 0, "dropped": 5, "failed": 0}


def test_a_photo_judged_before_is_compared_once(pair: Pair, jpeg: bytes) -> None:
    compared = rise("ppd_rollout_shadow_total", result="compared")
    current = pair.current(saying(9), VerdictCache("scope", 10, 60))
    shadowed(Shadow(current, pair.candidate(saying(9, 16)), 1, 16), jpeg, jpeg, jpeg)
    assert compared() == 1


def test_an_explanation_has_a_shadow_too(pair: Pair, jpeg: bytes) -> None:
    compared = rise("ppd_rollout_shadow_total", result="compared")

    async def scenario() -> None:
        shadow = Shadow(pair.current(saying(9)), pair.candidate(saying(9, 16)), 1, 16)
        await shadow.explain(jpeg, STYLE, "r", "key:desk")
        await shadow.settle()

    asyncio.run(scenario())
    assert compared() == 1


def test_a_share_of_the_photos_is_compared(pair: Pair) -> None:
    compared = rise("ppd_rollout_shadow_total", result="compared")
    photos = [encoded(make_photo(40, 40, number), "PNG") for number in range(60)]
    shadowed(Shadow(pair.current(saying(9)), pair.candidate(saying(9, 16)), 0.5, 100), *photos)
    assert 15 < compared() < 45


def test_claims_of_a_file_do_not_bear_on_agreement(pair: Pair, jpeg: bytes) -> None:
    """This file says that a generator was used, which raises the answer from `real` to `uncertain`."""
    labels = rise("ppd_rollout_labels_total", current="real", candidate="real")
    claim = Finding(source="xmp", claim="generated", detail="trainedAlgorithmicMedia")
    current = pair.current(saying(-9), read=lambda *_: (claim,))
    (verdict,) = shadowed(Shadow(current, pair.candidate(saying(-9, 16)), 1, 16), jpeg)
    assert (verdict.label, labels()) == ("uncertain", 1)


def test_without_a_candidate_the_current_model_answers_alone(pair: Pair, jpeg: bytes) -> None:
    verdict = asyncio.run(Rollout(pair.current(saying(9))).predict(jpeg, "r", "key:desk"))
    assert verdict.model.profile == "accurate"


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="threads have a priority of their own on Linux alone")
def test_threads_that_yield_have_a_lower_priority_than_the_process(model_folder: Path, jpeg: bytes) -> None:
    seen = []

    def read(format: str, data: bytes) -> tuple[()]:
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return ()

    artefact = load(model_folder)
    plan, info = artefact.spec.plan("fast"), artefact.info("fast")
    calibration = artefact.calibrations["fast"]
    detector = Detector(plan, calibration, info, RULES, LIMITS, saying(0, 16), read=read, yielding=True)
    asyncio.run(detector.predict(jpeg, "r"))
    assert seen == [min(19, os.getpriority(os.PRIO_PROCESS, 0) + 5)]
