"""A candidate model beside the current one: compared in shadow, or answering a share of the callers.

Knows two detectors and who asks; how they are made is `assembly`'s. Whatever the candidate does, a caller gets a
verdict: where it fails or is late the current model answers, and for a while nobody waits for the candidate.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from detector import metrics, stages
from detector.calibration import label
from detector.errors import DetectorError, InvalidImage
from detector.pipeline import Detector, Style, judge_each
from detector.schema import Explanation, Label, ModelInfo, Verdict

logger = logging.getLogger("bentoml.detector")
T = TypeVar("T", Verdict, Explanation)
REST = 5.0  # seconds the candidate is left alone after a failure


@dataclass(frozen=True)
class Question(Generic[T]):
    """What is asked about one photo, of whichever detector, and for whom."""

    data: bytes
    caller: str  # a name that stays
    ask: Callable[[Detector], Awaitable[T]]


class Circuit:
    """Open after a failure: for `rest` seconds nobody is let through, then one, whose luck decides."""

    def __init__(self, rest: float = REST, clock: Callable[[], float] = time.monotonic) -> None:
        self._rest, self._clock = rest, clock
        self._failing, self._open_until = False, 0.0

    def admits(self) -> bool:
        if not self._failing:
            return True
        if self._clock() < self._open_until:
            return False
        self._open_until = self._clock() + self._rest
        return True

    def fail(self) -> bool:
        """Open; whether it had been closed."""
        changed, self._failing = not self._failing, True
        self._open_until = self._clock() + self._rest
        return changed

    def succeed(self) -> bool:
        """Close; whether it had been open."""
        changed, self._failing = self._failing, False
        return changed


class Candidate:
    """The detector on trial, which may fail and may be slow."""

    def __init__(self, detector: Detector, timeout: float, circuit: Circuit | None = None) -> None:
        """timeout: seconds it may take for one photo."""
        self.detector, self._timeout, self._circuit = detector, timeout, circuit or Circuit()
        self._up = metrics.ROLLOUT_CANDIDATE_UP.labels(detector.model.hash[:12], detector.model.profile)
        self._up.set(1)

    async def ask(self, ask: Callable[[Detector], Awaitable[T]]) -> T | None:
        """Its answer, or None where it gives none in time; raises InvalidImage, which is the photo's fault."""
        if not self._circuit.admits():
            return None
        try:
            async with asyncio.timeout(self._timeout):
                answer = await ask(self.detector)
        except InvalidImage:
            raise
        except Exception as error:
            self._fail(error)
            return None
        self._succeed()
        return answer

    def _fail(self, error: Exception) -> None:
        """One line when it begins; the error is named by its kind alone, for a message may hold a path."""
        if self._circuit.fail():
            self._up.set(0)
            logger.warning("the candidate model fails (%s); the current one answers alone", type(error).__name__)

    def _succeed(self) -> None:
        if self._circuit.succeed():
            self._up.set(1)
            logger.warning("the candidate model works again")


class Rollout:
    """The current model alone, and what every way to try another has in common."""

    candidate: ModelInfo | None = None

    def __init__(self, current: Detector) -> None:
        self.current = current

    async def predict(self, data: bytes, request_id: str, caller: str) -> Verdict:
        """Judge one photo. caller: who asks, by a name that stays."""
        return await self._answer(Question(data, caller, lambda detector: detector.predict(data, request_id)))

    async def predict_many(
        self, photos: Sequence[bytes], request_id: str, caller: str
    ) -> list[Verdict | DetectorError]:
        """Judge photos together, in their order; a refused photo is its error, and harms no other."""
        return await judge_each(photos, lambda data: self.predict(data, request_id, caller))

    async def explain(self, data: bytes, style: Style, request_id: str, caller: str) -> Explanation:
        """Judge one photo and show where its evidence lies."""
        return await self._answer(Question(data, caller, lambda detector: detector.explain(data, style, request_id)))

    def close(self) -> None:
        """Let go of what nobody waits for."""

    async def _answer(self, question: Question[T]) -> T:
        return await question.ask(self.current)


class Split(Rollout):
    """The candidate answers a share of the callers, always the same ones."""

    def __init__(self, current: Detector, candidate: Candidate, share: float) -> None:
        """share: 0..1 of the callers."""
        super().__init__(current)
        self._candidate, self._share = candidate, share
        self.candidate = candidate.detector.model

    def draws(self, caller: str) -> bool:
        """Whether the candidate answers this caller: the same in every process, drawn anew for every candidate.

        Who is drawn stays so when the share grows.
        """
        return place(self._candidate.detector.model.hash, caller) < self._share

    async def _answer(self, question: Question[T]) -> T:
        if self.draws(question.caller):
            answer = await self._candidate.ask(question.ask)
            if answer is not None:
                _count_answer("candidate", _verdict(answer))
                return answer
            metrics.ROLLOUT_FALLBACKS.inc()
        answer = await question.ask(self.current)
        _count_answer("current", _verdict(answer))
        return answer


class Shadow(Rollout):
    """The candidate judges a share of the photos after their answer; what it says is counted and logged."""

    def __init__(self, current: Detector, candidate: Candidate, share: float, backlog: int) -> None:
        """share: 0..1 of the photos. backlog: photos that may wait for it; one more is not compared."""
        super().__init__(current)
        self._candidate, self._share, self._backlog = candidate, share, backlog
        self.candidate = candidate.detector.model
        self._running: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        for task in self._running:
            task.cancel()

    async def settle(self) -> None:
        """Wait for what is being compared; for tests."""
        await asyncio.gather(*self._running)

    async def _answer(self, question: Question[T]) -> T:
        answer = await question.ask(self.current)
        self._begin(question.data, _verdict(answer))
        return answer

    def _begin(self, data: bytes, verdict: Verdict) -> None:
        """A photo judged before is not compared again, or a popular one would count many times."""
        if verdict.cached or place(self._candidate.detector.model.hash, verdict.image.sha256) >= self._share:
            return
        if len(self._running) >= self._backlog:
            return metrics.ROLLOUT_SHADOW.labels("dropped").inc()
        task = asyncio.create_task(self._compare(data, verdict))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _compare(self, data: bytes, current: Verdict) -> None:
        request_id = current.request_id
        try:
            with stages.aside():
                candidate = await self._candidate.ask(lambda detector: detector.predict(data, request_id))
        except InvalidImage:  # it is not for the candidate to refuse what was judged
            candidate = None
        except asyncio.CancelledError:
            metrics.ROLLOUT_SHADOW.labels("dropped").inc()
            raise
        if candidate is None:
            return metrics.ROLLOUT_SHADOW.labels("failed").inc()
        metrics.ROLLOUT_SHADOW.labels("compared").inc()
        _count_comparison(current, candidate)


def place(key: str, name: str) -> float:
    """Where `name` falls in 0..1 under `key`: evenly, and the same wherever it is asked."""
    digest = hashlib.blake2b(name.encode(), key=key.encode()[:64], digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def _verdict(answer: Verdict | Explanation) -> Verdict:
    return answer.verdict if isinstance(answer, Explanation) else answer


def pixel_label(verdict: Verdict) -> Label:
    """The label before what the file says of itself was weighed: models differ in nothing else."""
    return label(verdict.probability, verdict.thresholds)


def _count_answer(model: Literal["current", "candidate"], verdict: Verdict) -> None:
    metrics.ROLLOUT_ANSWERS.labels(model, pixel_label(verdict)).inc()
    if not verdict.cached:
        _time(model, verdict)


def _count_comparison(current: Verdict, candidate: Verdict) -> None:
    labels = pixel_label(current), pixel_label(candidate)
    metrics.ROLLOUT_LABELS.labels(*labels).inc()
    metrics.ROLLOUT_SHIFT.observe(abs(current.probability - candidate.probability))
    _time("current", current)
    _time("candidate", candidate)
    logger.info(
        "shadow of %s: current %s %.4f, candidate %s %.4f",
        current.request_id, labels[0], current.probability, labels[1], candidate.probability,
    )  # fmt: skip


def _time(model: Literal["current", "candidate"], verdict: Verdict) -> None:
    """Decoding, cutting views and scoring; what the current model's answer needs beyond that is not the networks'."""
    metrics.ROLLOUT_SECONDS.labels(model).observe((verdict.timing.decode + verdict.timing.score) / 1e3)
