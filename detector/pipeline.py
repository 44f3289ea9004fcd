"""Detector: bytes -> decoded photo -> views -> evidence -> calibrated verdict or explanation.

What the file says of itself is read while its pixels are scored, and weighed beside them. The score function is
passed in, so it does not know where networks run; nor does it know HTTP. Work that burns CPU goes to a bounded pool
of threads. Whoever has threads and networks of its own calls the two halves, `look` and `settle`.
"""

import hashlib
import logging
import os
import sys
import threading
import time
from asyncio import gather, get_running_loop
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detector import explain, stages
from detector.cache import VerdictCache
from detector.calibration import Calibration, confidence, label
from detector.ensemble import Plan
from detector.errors import DetectorError, InvalidImage
from detector.facts import measure
from detector.image import Limits, Photo, decode
from detector.preprocess import make_views
from detector.provenance import compliance
from detector.provenance.judge import judge
from detector.provenance.policy import Policy, Ruling, rule
from detector.schema import (
    Colormap,
    Confidence,
    Evidence,
    Explanation,
    Finding,
    ImageFacts,
    Label,
    ModelInfo,
    OverlayFormat,
    Picture,
    Thresholds,
    Timing,
    Verdict,
)

logger = logging.getLogger("bentoml.detector")
P = ParamSpec("P")
R = TypeVar("R")
Score = Callable[[NDArray[np.uint8]], Awaitable[NDArray[np.float32]]]  # (n, v, 3, s, s) -> (n, plan.width)
Watcher = Callable[[Verdict, Mapping[str, float]], None]  # told of every verdict, with the photo's facts; never raises
Read = Callable[[str, bytes], tuple[Finding, ...]]  # format and file -> what the file says of itself
Witness = Callable[[Image.Image, bytes], Any]  # upright pixels and file -> what else is to be kept of them


@dataclass(frozen=True)
class Rules:
    """How a probability becomes words."""

    thresholds: Thresholds
    medium_confidence: float
    high_confidence: float

    def judge(self, probability: float) -> tuple[Label, Confidence]:
        given = label(probability, self.thresholds)
        return given, confidence(probability, given, self.medium_confidence, self.high_confidence)


@dataclass(frozen=True)
class Style:
    """How an explanation is drawn."""

    alpha: float
    colormap: Colormap
    format: OverlayFormat
    max_side: int  # pixels


@dataclass(frozen=True)
class _Prepared:
    """What stays of a photo once its pixels are let go."""

    facts: ImageFacts
    views: NDArray[np.uint8]  # (v, 3, s, s)
    thumbnail: Image.Image | None
    measured: Mapping[str, float]  # facts for drift; empty where nobody asks


@dataclass(frozen=True)
class _Said:
    """What the file says of itself, and the seconds it took to read."""

    evidence: Evidence
    took: float


@dataclass(frozen=True)
class Look:
    """A photo before it is scored: its views, what the file says, what a witness took; times in seconds."""

    prepared: _Prepared
    said: _Said | None
    witnessed: Any
    started: float
    decoded: float

    @property
    def views(self) -> NDArray[np.uint8]:
        """(v, 3, s, s)"""
        return self.prepared.views


@dataclass(frozen=True)
class _Seen:
    """A photo with what the networks said of it; times in seconds."""

    prepared: _Prepared
    evidence: NDArray[np.float32]  # (plan.width,)
    said: _Said | None
    started: float
    decoded: float
    scored: float
    finished: float


class Detector:
    """One profile of one model, ready to judge."""

    def __init__(
        self,
        plan: Plan,
        calibration: Calibration,
        model: ModelInfo,
        rules: Rules,
        limits: Limits,
        score: Score,
        threads: int = 2,
        read: Read | None = None,
        policy: Policy | None = None,
        cache: VerdictCache | None = None,
        watcher: Watcher | None = None,
        yielding: bool = False,
    ) -> None:
        """read: None where files are not asked. policy: what their claims do to a label.

        yielding: its threads give way to all others (on Linux).
        """
        self.model = model
        self._plan, self._calibration, self._rules = plan, calibration, rules
        self._limits, self._score = limits, score
        self._read, self._policy = read, policy or Policy()
        self._pool = ThreadPoolExecutor(threads, "decode", _give_way if yielding else None)
        self._hashing = ThreadPoolExecutor(1, "hash")  # of its own: what is in the cache must not wait for decoding
        self._cache, self._watcher = cache, watcher

    async def predict(self, data: bytes, request_id: str) -> Verdict:
        """Judge one photo; raises InvalidImage for what is none, and whatever `score` raises."""
        with _refusals_counted():
            verdict = await self._recall_or_judge(data, request_id)
        stages.judged(verdict)
        return verdict

    async def _recall_or_judge(self, data: bytes, request_id: str) -> Verdict:
        if self._cache is None:
            return await self._judge(data, request_id)
        started = time.perf_counter()
        digest = await get_running_loop().run_in_executor(self._hashing, _sha256, data)
        verdict, found = await self._cache.recall(digest, lambda: self._judge(data, request_id))
        return self._remember(verdict, request_id, time.perf_counter() - started) if found else verdict

    async def predict_many(self, photos: Sequence[bytes], request_id: str) -> list[Verdict | DetectorError]:
        """Judge photos together, in their order; a refused photo is its error, and harms no other."""
        return await judge_each(photos, lambda data: self.predict(data, request_id))

    async def explain(self, data: bytes, style: Style, request_id: str) -> Explanation:
        """Judge one photo and show where its evidence lies."""
        with _refusals_counted():
            seen = await self._see(data, style.max_side)
        with stages.stage("explain"):
            explanation = await self._in_thread(self._explanation, seen, style, request_id)
        self._watch(explanation.verdict, self._watched(seen))
        stages.judged(explanation.verdict)
        return explanation

    def look(self, data: bytes, witness: Witness | None = None) -> Look:
        """The half before the networks, in the caller's own thread; raises InvalidImage.

        witness: called with the upright pixels and the file while both are at hand.
        """
        started = time.perf_counter()
        photo = decode(data, self._limits)
        prepared = _Prepared(_facts(photo), make_views(photo.pixels, self._plan.views, self._plan.size), None, {})
        witnessed = witness(photo.pixels, data) if witness else None
        decoded = time.perf_counter()
        said = self._ask(self._read, photo.format, data) if self._read else None
        return Look(prepared, said, witnessed, started, decoded)

    def settle(self, look: Look, evidence: NDArray[np.float32], request_id: str) -> Verdict:
        """The half after them: a photo's evidence, (plan.width,), to its verdict."""
        now = time.perf_counter()
        return self._verdict(
            _Seen(look.prepared, evidence, look.said, look.started, look.decoded, now, now), request_id
        )

    async def _judge(self, data: bytes, request_id: str) -> Verdict:
        seen = await self._see(data, None)
        verdict = self._verdict(seen, request_id)
        self._watch(verdict, self._watched(seen))
        return verdict

    def _remember(self, verdict: Verdict, request_id: str, took: float) -> Verdict:
        recalled = _recalled(verdict, request_id, took)
        self._watch(recalled, {})
        return recalled

    def _watched(self, seen: _Seen) -> Mapping[str, float]:
        return {**seen.prepared.measured, "logit": self._plan.fuse(seen.evidence)}

    def _watch(self, verdict: Verdict, measured: Mapping[str, float]) -> None:
        if self._watcher:
            self._watcher(verdict, measured)

    async def _see(self, data: bytes, thumbnail_side: int | None) -> _Seen:
        started = time.perf_counter()
        with stages.stage("decode"):
            prepared = await self._in_thread(self._prepare, data, thumbnail_side)
        decoded = time.perf_counter()
        (evidence, scored), said = await gather(self._scored(prepared.views), self._said(prepared.facts.format, data))
        return _Seen(prepared, evidence, said, started, decoded, scored, time.perf_counter())

    async def _scored(self, views: NDArray[np.uint8]) -> tuple[NDArray[np.float32], float]:
        return (await self._score(views[np.newaxis]))[0], time.perf_counter()

    async def _said(self, format: str, data: bytes) -> _Said | None:
        said = await self._in_thread(self._ask, self._read, format, data) if self._read else None
        if said:
            stages.passed("provenance", said.took)
        return said

    @staticmethod
    def _ask(read: Read, format: str, data: bytes) -> _Said | None:
        started = time.perf_counter()
        try:
            evidence = judge(read(format, data))
        except Exception:  # metadata is no reason to refuse a photo
            logger.exception("what a file says of itself could not be read")
            return None
        return _Said(evidence, time.perf_counter() - started)

    def _prepare(self, data: bytes, thumbnail_side: int | None) -> _Prepared:
        """Decode and cut; the full pixels live no longer than this call, so threads bound the memory they take."""
        photo = decode(data, self._limits)
        thumbnail = explain.shrink(photo.pixels, thumbnail_side) if thumbnail_side else None
        views = make_views(photo.pixels, self._plan.views, self._plan.size)
        return _Prepared(_facts(photo), views, thumbnail, _measured(photo, data) if self._watcher else {})

    async def _in_thread(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """In this request's context, so that the lines it logs bear the request's id."""
        context = copy_context()
        call = partial(work, *args, **kwargs)
        return await get_running_loop().run_in_executor(self._pool, lambda: context.run(call))

    def _verdict(self, seen: _Seen, request_id: str) -> Verdict:
        probability = self._calibration.probability(self._plan.fuse(seen.evidence))
        given, sure = self._rules.judge(probability)
        evidence = seen.said.evidence if seen.said else None
        ruling = rule(evidence, given, sure, self._policy) if evidence else Ruling(given, sure)
        if evidence:
            evidence = evidence.model_copy(update={"labels": compliance.check(evidence, given, ruling.label)})
        return Verdict(
            label=ruling.label,
            probability=probability,
            confidence=ruling.confidence,
            thresholds=self._rules.thresholds,
            model=self.model,
            image=seen.prepared.facts,
            timing=_timing(seen),
            evidence=evidence,
            decided_by=ruling.decided_by,
            reason=ruling.reason,
            request_id=request_id,
        )

    def _explanation(self, seen: _Seen, style: Style, request_id: str) -> Explanation:
        started = time.perf_counter()
        facts, thumbnail = seen.prepared.facts, seen.prepared.thumbnail
        assert thumbnail is not None
        verdict = self._verdict(seen, request_id)
        places = explain.evidence_map(self._plan, seen.evidence, facts.width, facts.height)
        heatmap = explain.draw_heatmap(self._calibration.curve.apply(places), thumbnail.size)
        overlay = explain.draw_overlay(thumbnail, heatmap, style.colormap, style.alpha)
        pictures = _picture(explain.encode(overlay, style.format)), _picture(explain.encode(heatmap, "png"))
        return Explanation(
            verdict=verdict.model_copy(update={"timing": _timing(seen, time.perf_counter() - started)}),
            overlay=pictures[0],
            heatmap=pictures[1],
            region=explain.find_region(places, verdict.label != "real", facts.width, facts.height),
            alpha=style.alpha,
            colormap=style.colormap,
        )


def _give_way() -> None:
    """A lower priority for the calling thread alone; elsewhere than on Linux it would be the whole process's."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, min(19, os.getpriority(os.PRIO_PROCESS, thread) + 5))


async def judge_each(
    photos: Sequence[bytes], judge: Callable[[bytes], Awaitable[Verdict]]
) -> list[Verdict | DetectorError]:
    """Every photo's verdict or error, in their order."""

    async def one(data: bytes) -> Verdict | DetectorError:
        try:
            return await judge(data)
        except DetectorError as error:
            return error

    return await gather(*(one(data) for data in photos))


@contextmanager
def _refusals_counted() -> Iterator[None]:
    try:
        yield
    except InvalidImage as error:
        stages.refused(error.code)
        raise


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _recalled(verdict: Verdict, request_id: str, took: float) -> Verdict:
    """An earlier verdict as the answer to this request; `took` in seconds."""
    timing = Timing(decode=0.0, score=0.0, total=round(1e3 * took, 2))
    return verdict.model_copy(update={"request_id": request_id, "timing": timing, "cached": True})


def _facts(photo: Photo) -> ImageFacts:
    return ImageFacts(
        width=photo.width,
        height=photo.height,
        format=photo.format,
        bytes=photo.bytes,
        sha256=photo.sha256,
        animated=photo.animated,
    )


def _measured(photo: Photo, data: bytes) -> Mapping[str, float]:
    try:
        return measure(photo.pixels, data)
    except Exception:  # drift is no reason to refuse a photo
        logger.exception("a photo's facts could not be measured")
        return {}


def _timing(seen: _Seen, drawn: float | None = None) -> Timing:
    """Milliseconds, to a hundredth; `drawn` in seconds."""
    return Timing(
        decode=round(1e3 * (seen.decoded - seen.started), 2),
        score=round(1e3 * (seen.scored - seen.decoded), 2),
        explain=None if drawn is None else round(1e3 * drawn, 2),
        provenance=round(1e3 * seen.said.took, 2) if seen.said else None,
        total=round(1e3 * (seen.finished - seen.started + (drawn or 0)), 2),
    )


def _picture(drawing: explain.Drawing) -> Picture:
    return Picture(
        media_type=drawing.media_type,
        width=drawing.width,
        height=drawing.height,
        data=b64encode(drawing.data).decode("ascii"),
    )
