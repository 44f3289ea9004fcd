"""One request on its way: what it took in each stage and what came of it.

Measured once, for three readers: the metrics, the request's line in the log and its trace. Writes no line itself
(`asgi` does) and exports no span (the edge says where to).
"""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

from opentelemetry import trace

from detector import metrics
from detector.schema import Verdict

Stage = Literal["decode", "provenance", "queue", "network", "explain"]
_tracer = trace.get_tracer("detector")  # the provider's, once the edge has set one


@dataclass
class Journey:
    """What is known of one request so far. Photos of a batch add up."""

    request_id: str = ""
    seconds: dict[str, float] = field(default_factory=dict)  # by stage
    verdicts: list[Verdict] = field(default_factory=list)
    code: str | None = None  # of the problem it was answered with
    batch: int = 0  # the largest batch a photo of it was scored in

    def facts(self) -> dict[str, Any]:
        """For the log: times in milliseconds, the verdict of one photo or the labels of many."""
        found: dict[str, Any] = {f"{stage}_ms": round(1e3 * took, 2) for stage, took in self.seconds.items()}
        if self.batch:
            found["batch"] = self.batch
        if self.verdicts:
            found |= _told(self.verdicts)
        if self.code:
            found["code"] = self.code
        return found


_journey: ContextVar[Journey | None] = ContextVar("journey", default=None)
_aside: ContextVar[bool] = ContextVar("aside", default=False)


@contextmanager
def journey(request_id: str) -> Iterator[Journey]:
    """From here on, in every task this one starts, stages and outcomes belong to one request."""
    started = Journey(request_id)
    token = _journey.set(started)
    try:
        yield started
    finally:
        _journey.reset(token)


@contextmanager
def stage(name: Stage) -> Iterator[None]:
    """Times what is inside, where it ends well."""
    started = time.perf_counter()
    yield
    passed(name, time.perf_counter() - started)


@contextmanager
def aside() -> Iterator[None]:
    """What is done inside is no part of any answer, such as a candidate's work in shadow: nothing of it is measured."""
    token = _aside.set(True)
    try:
        yield
    finally:
        _aside.reset(token)


def passed(name: Stage, took: float, ago: float = 0.0) -> None:
    """A stage took so many seconds, and ended `ago` seconds before now."""
    if _aside.get():
        return
    metrics.STAGE_SECONDS.labels(name).observe(took)
    known = _journey.get()
    if known:
        known.seconds[name] = known.seconds.get(name, 0.0) + took
    if trace.get_current_span().get_span_context().trace_flags.sampled:
        end = time.time_ns() - int(1e9 * ago)
        _tracer.start_span(name, start_time=end - int(1e9 * took)).end(end)


def judged(verdict: Verdict) -> None:
    """A verdict was given: remembered ones count apart, and leave the distribution of probabilities alone."""
    if _aside.get():
        return
    cached = "true" if verdict.cached else "false"
    metrics.PREDICTIONS.labels(verdict.label, verdict.confidence, cached).inc()
    if not verdict.cached:
        metrics.PROBABILITY.observe(verdict.probability)
    known = _journey.get()
    if known:
        known.verdicts.append(verdict)


def refused(code: str) -> None:
    """A photo was refused."""
    if not _aside.get():
        metrics.PHOTOS_REFUSED.labels(code).inc()


def scored(took: float, network: float, batch: int) -> None:
    """A photo came back from the scorer: what was not the networks' time it spent waiting and on its way."""
    passed("queue", max(0.0, took - network), ago=network)
    passed("network", network)
    known = _journey.get()
    if known and not _aside.get():
        known.batch = max(known.batch, batch)


def request_id() -> str:
    """Of the request being worked on; empty outside of one."""
    known = _journey.get()
    return known.request_id if known else ""


def failed(code: str) -> None:
    """The request is answered with this problem."""
    known = _journey.get()
    if known:
        known.code = code


def _told(verdicts: list[Verdict]) -> dict[str, Any]:
    model = verdicts[0].model
    told: dict[str, Any] = {"model": f"{model.name}:{model.version}", "profile": model.profile}
    if len(verdicts) > 1:
        told |= {"photos": len(verdicts), "cached": sum(verdict.cached for verdict in verdicts)}
        return told | Counter(verdict.label for verdict in verdicts)
    (verdict,) = verdicts
    probability, cache = round(verdict.probability, 4), "hit" if verdict.cached else "miss"
    return told | {"label": verdict.label, "confidence": verdict.confidence, "probability": probability, "cache": cache}
