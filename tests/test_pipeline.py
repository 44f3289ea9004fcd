"""Bytes in, verdict out, whoever scores."""

import asyncio
import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from detector.artefact import load
from detector.cache import VerdictCache
from detector.errors import EmptyImage, ModelUnavailable
from detector.image import Limits
from detector.pipeline import Detector, Read, Rules, Score, Style
from detector.provenance.policy import Policy
from detector.provenance.reading import FileReader
from detector.schema import Finding, Signature, Thresholds, Verdict
from tests.conftest import encoded, make_photo
from tests.provenance.samples import jpeg as jpeg_with
from tests.provenance.samples import typed, xmp_segment

LIMITS = Limits(10**6, 10**7, 4096, 32, frozenset({"JPEG", "PNG", "WEBP"}))
STYLE = Style(0.5, "viridis", "png", 64)


def detector(
    folder: Path,
    score: Score,
    read: Read | None = None,
    policy: Policy | None = None,
    cache: VerdictCache | None = None,
) -> Detector:
    artefact = load(folder)
    rules = Rules(Thresholds(real=0.3, ai_generated=0.7), 0.8, 0.95)
    return Detector(
        artefact.spec.plan("accurate"),
        artefact.calibrations["accurate"],
        artefact.info("accurate"),
        rules,
        LIMITS,
        score,
        read=read,
        policy=policy,
        cache=cache,
    )


def saying(evidence: float) -> Score:
    async def score(views: NDArray[np.uint8]) -> NDArray[np.float32]:
        assert views.shape == (1, 3, 3, 32, 32)
        return np.full((1, 64), evidence, np.float32)

    return score


@pytest.mark.parametrize(("evidence", "expected"), [(9.0, "ai_generated"), (-9.0, "real"), (0.0, "uncertain")])
def test_the_verdict_follows_the_evidence(model_folder: Path, jpeg: bytes, evidence: float, expected: str) -> None:
    verdict = asyncio.run(detector(model_folder, saying(evidence)).predict(jpeg, "r1"))
    assert verdict.label == expected
    assert verdict.request_id == "r1"
    assert (verdict.image.width, verdict.image.height, verdict.image.format) == (160, 120, "JPEG")
    assert verdict.confidence == ("low" if expected == "uncertain" else "high")


def test_the_probability_is_the_calibrated_fused_logit(model_folder: Path, jpeg: bytes) -> None:
    verdict = asyncio.run(detector(model_folder, saying(0.4)).predict(jpeg, "r1"))
    logit = 0.25 + 1.0 * 0.4 + 0.5 * 0.4
    assert verdict.probability == pytest.approx(1 / (1 + np.exp(-(2 * logit - 0.5))))


def test_one_bad_photo_harms_no_other(model_folder: Path, jpeg: bytes) -> None:
    answers = asyncio.run(detector(model_folder, saying(9.0)).predict_many([jpeg, b"", jpeg], "r1"))
    assert [type(answer) for answer in answers] == [Verdict, EmptyImage, Verdict]


def test_answers_keep_the_order_of_the_photos(model_folder: Path) -> None:
    sizes = [(160, 120), (64, 64), (333, 50)]
    photos = [encoded(make_photo(*size), "PNG") for size in sizes]
    answers = asyncio.run(detector(model_folder, saying(0.0)).predict_many(photos, "r1"))
    assert [(v.image.width, v.image.height) for v in answers if isinstance(v, Verdict)] == sizes


def test_a_scorer_that_is_gone_is_the_callers_to_know(model_folder: Path, jpeg: bytes) -> None:
    async def gone(_: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise ModelUnavailable

    with pytest.raises(ModelUnavailable):
        asyncio.run(detector(model_folder, gone).predict(jpeg, "r1"))


def test_an_explanation_holds_the_same_verdict_and_pictures_of_one_size(model_folder: Path, jpeg: bytes) -> None:
    judge = detector(model_folder, saying(9.0))
    verdict = asyncio.run(judge.predict(jpeg, "r1"))
    explanation = asyncio.run(judge.explain(jpeg, STYLE, "r1"))
    assert explanation.verdict.model_copy(update={"timing": verdict.timing}) == verdict
    assert (explanation.overlay.width, explanation.overlay.height) == (64, 48)
    assert (explanation.heatmap.width, explanation.heatmap.height) == (64, 48)
    assert explanation.verdict.timing.explain is not None


def test_a_lossless_copy_gets_the_same_probability(model_folder: Path) -> None:
    """PNG and lossless WebP hold the same pixels, so they must get the same verdict."""
    photo = make_photo()

    async def score(views: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.resize(views.astype(np.float32).ravel() / 100, (1, 64))

    judge = detector(model_folder, score)
    copies = [encoded(photo, "PNG"), encoded(photo, "WEBP", lossless=True)]
    probabilities = {asyncio.run(judge.predict(copy, "r")).probability for copy in copies}
    assert len(probabilities) == 1


GENERATED = Finding(
    source="c2pa",
    claim="generated",
    detail="c2pa.created: trainedAlgorithmicMedia",
    signature=Signature(intact=True, trusted=True, signer="Maker Inc."),
)


def test_a_file_s_claim_stands_beside_an_unchanged_probability(model_folder: Path) -> None:
    plain, labelled = jpeg_with(), jpeg_with(xmp_segment(typed("trainedAlgorithmicMedia")))
    judge = detector(model_folder, saying(-9.0), FileReader().read)
    silent, said = (asyncio.run(judge.predict(data, "r")) for data in (plain, labelled))
    assert said.probability == silent.probability
    assert (silent.label, silent.decided_by, silent.reason) == ("real", "pixels", None)
    assert (said.label, said.confidence, said.decided_by) == ("uncertain", "low", "provenance")
    assert said.reason
    assert silent.evidence
    assert said.evidence
    assert (silent.evidence.claim, said.evidence.claim) == ("none", "generated")
    assert [check.label for check in said.evidence.labels] == ["contradicts_pixels", "contradicts_pixels", "missing"]
    assert said.timing.provenance is not None


def test_policy_is_the_detector_s_to_follow(model_folder: Path, jpeg: bytes) -> None:
    by_default = detector(model_folder, saying(-9.0), lambda *_: (GENERATED,))
    reporting = detector(model_folder, saying(-9.0), lambda *_: (GENERATED,), Policy(signed_generation="reports"))
    decided, reported = (asyncio.run(judge.predict(jpeg, "r")) for judge in (by_default, reporting))
    assert (decided.label, decided.confidence, decided.decided_by) == ("ai_generated", "high", "provenance")
    assert (reported.label, reported.decided_by) == ("real", "pixels")
    assert reported.evidence
    assert reported.evidence.findings == (GENERATED,)


def test_evidence_comes_with_batches_and_explanations(model_folder: Path) -> None:
    labelled = jpeg_with(xmp_segment(typed("trainedAlgorithmicMedia")))
    judge = detector(model_folder, saying(9.0), FileReader().read)
    (answer,) = asyncio.run(judge.predict_many([labelled], "r"))
    explanation = asyncio.run(judge.explain(labelled, STYLE, "r"))
    assert isinstance(answer, Verdict)
    assert answer.evidence == explanation.verdict.evidence
    assert answer.evidence
    assert answer.evidence.claim == "generated"


def test_files_are_not_asked_where_that_is_switched_off(model_folder: Path, jpeg: bytes) -> None:
    verdict = asyncio.run(detector(model_folder, saying(9.0)).predict(jpeg, "r"))
    assert (verdict.evidence, verdict.decided_by, verdict.timing.provenance) == (None, "pixels", None)


def test_the_file_is_read_while_its_pixels_are_scored(model_folder: Path, jpeg: bytes) -> None:
    """Each waits for the other to have begun, so one after the other would never end."""
    reading, scoring = threading.Event(), threading.Event()

    def read(format: str, data: bytes) -> tuple[Finding, ...]:
        reading.set()
        assert (format, data) == ("JPEG", jpeg)
        assert scoring.wait(10)
        return ()

    async def score(views: NDArray[np.uint8]) -> NDArray[np.float32]:
        scoring.set()
        assert await asyncio.to_thread(reading.wait, 10)
        return np.zeros((1, 64), np.float32)

    verdict = asyncio.run(detector(model_folder, score, read).predict(jpeg, "r"))
    assert verdict.evidence
    assert verdict.timing.total >= verdict.timing.decode


def test_a_reader_that_fails_costs_the_evidence_and_not_the_verdict(model_folder: Path, jpeg: bytes) -> None:
    def read(format: str, data: bytes) -> tuple[Finding, ...]:
        raise RuntimeError

    verdict = asyncio.run(detector(model_folder, saying(9.0), read).predict(jpeg, "r"))
    assert (verdict.label, verdict.evidence) == ("ai_generated", None)


def test_a_scorer_that_is_gone_is_told_while_the_file_is_read(model_folder: Path, jpeg: bytes) -> None:
    async def gone(_: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise ModelUnavailable

    with pytest.raises(ModelUnavailable):
        asyncio.run(detector(model_folder, gone, FileReader().read).predict(jpeg, "r"))


def test_a_photo_seen_before_is_scored_once_and_answered_under_each_request_s_id(model_folder: Path) -> None:
    photo, scored = encoded(make_photo()), []

    async def score(views: NDArray[np.uint8]) -> NDArray[np.float32]:
        scored.append(len(views))
        return np.full((1, 64), 9.0, np.float32)

    async def scenario() -> list[Verdict]:
        judge = detector(model_folder, score, cache=VerdictCache("scope", 10, 60))
        batch = await judge.predict_many([photo, photo, photo], "batch")
        return [*(item for item in batch if isinstance(item, Verdict)), await judge.predict(photo, "again")]

    verdicts = asyncio.run(scenario())
    assert scored == [1]
    assert [verdict.request_id for verdict in verdicts] == ["batch", "batch", "batch", "again"]
    assert sorted(verdict.cached for verdict in verdicts) == [False, True, True, True]
    assert len({verdict.probability for verdict in verdicts}) == 1
    assert verdicts[-1].timing.score == 0


def test_a_refused_photo_is_refused_again(model_folder: Path) -> None:
    async def scenario() -> None:
        judge = detector(model_folder, saying(9.0), VerdictCache("scope", 10, 60))
        for _ in range(2):
            with pytest.raises(EmptyImage):
                await judge.predict(b"", "r")

    asyncio.run(scenario())
