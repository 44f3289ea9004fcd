"""What a call does, as steps: generators that ask for input and output and are answered by a client.

`Client` performs the steps with blocking calls, `AsyncClient` with awaited ones; what happens between them (retries,
splitting, what an answer means) is written once, here.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx

from detector.client import wire
from detector.client.retry import ONCE, Retry
from detector.client.sources import Source, Upload, name_of
from detector.client.wire import Reply, Request
from detector.errors import (
    BodyTooLarge,
    DetectorError,
    InternalError,
    ModelUnavailable,
    NotAFile,
    TimedOut,
    TooManyImages,
)
from detector.schema import (
    BatchItem,
    BatchSummary,
    BatchVerdict,
    Colormap,
    Decision,
    Drift,
    Explanation,
    Health,
    OverlayFormat,
    Truth,
    Verdict,
)

BATCH = 20  # photos the service takes in one request, by default


@dataclass(frozen=True)
class Read:
    """Answered with the source's Upload."""

    source: Source


@dataclass(frozen=True)
class Send:
    """Answered with a Reply, or with the httpx.TransportError thrown in; `timeout` in seconds."""

    request: Request
    request_id: str
    timeout: float


@dataclass(frozen=True)
class Sleep:
    seconds: float


T = TypeVar("T")
Flow = Generator[Read | Send | Sleep, Any, T]


@dataclass(frozen=True)
class Rules:
    """How a client calls: where (for sentences), how long, how often; clock, chance and ids are passed in."""

    address: str
    timeout: float  # seconds, one attempt
    retry: Retry
    clock: Callable[[], float]
    random: Callable[[], float]
    new_id: Callable[[], str]


def call(rules: Rules, request: Request, request_id: str, retry: Retry | None = None) -> Flow[Reply]:
    """Send until there is an answer; every attempt carries the same request id."""
    plan = retry or rules.retry
    started, attempts = rules.clock(), 0
    while True:
        left = plan.deadline - (rules.clock() - started)
        limit = max(0.001, min(rules.timeout, left))
        try:
            reply: Reply = yield Send(request, request_id, limit)
        except httpx.TransportError as silence:
            error = wire.named(_unanswered(rules.address, limit, silence), request_id)
        else:
            if reply.status in request.allowed:
                return reply
            error = wire.read_problem(reply)
        attempts += 1
        pause = plan.pause(error, attempts, rules.clock() - started, rules.random)
        if pause is None:
            raise error
        yield Sleep(pause)


def _unanswered(address: str, limit: float, silence: httpx.TransportError) -> DetectorError:
    if isinstance(silence, httpx.ReadTimeout | httpx.WriteTimeout):
        return TimedOut(f"The service at {address} took longer than {limit:.3g} seconds.")
    return ModelUnavailable(f"The service at {address} does not answer.")


def predict(rules: Rules, source: Source, request_id: str | None) -> Flow[Verdict]:
    upload: Upload = yield Read(source)
    reply = yield from call(rules, wire.predict(upload), request_id or rules.new_id())
    verdict = wire.read_answer(Verdict, reply)
    wire.check_about(verdict, upload)
    return verdict


def explain(
    rules: Rules,
    source: Source,
    alpha: float | None,
    colormap: Colormap | None,
    format: OverlayFormat | None,
    request_id: str | None,
) -> Flow[Explanation]:
    upload: Upload = yield Read(source)
    request = wire.explain(upload, alpha, colormap, format)
    reply = yield from call(rules, request, request_id or rules.new_id())
    explanation = wire.read_answer(Explanation, reply)
    wire.check_about(explanation.verdict, upload)
    return explanation


def decision(rules: Rules, id: str) -> Flow[Decision]:
    reply = yield from call(rules, wire.decision(id), rules.new_id())
    return wire.read_answer(Decision, reply)


def feedback(rules: Rules, id: str, label: Truth, note: str | None) -> Flow[Decision]:
    """Safe to send again: the last feedback counts."""
    reply = yield from call(rules, wire.feedback(id, label, note), rules.new_id())
    return wire.read_answer(Decision, reply)


def drift(rules: Rules) -> Flow[Drift]:
    """Asked once, as `health` is."""
    reply = yield from call(rules, wire.drift(), rules.new_id(), ONCE)
    return wire.read_answer(Drift, reply)


def health(rules: Rules) -> Flow[Health]:
    """Asked once: a caller wants the state now."""
    reply = yield from call(rules, wire.health(), rules.new_id(), ONCE)
    return wire.read_answer(Health, reply)


@dataclass
class Batch:
    """A batch on its way: its requests, and the refusal that ended it early."""

    sources: Sequence[Source]
    size: int  # photos in one request
    request_id: str
    refusal: DetectorError | None = field(default=None)

    def requests(self) -> list[list[int]]:
        """Positions of the photos, request by request."""
        places = range(len(self.sources))
        return [list(places[start : start + self.size]) for start in range(0, len(places), self.size)]

    def answer(self, items: list[BatchItem]) -> BatchVerdict:
        ordered = sorted(items, key=lambda item: item.index)
        labels = [item.verdict.label if item.verdict else "errors" for item in ordered]
        counts = {name: labels.count(name) for name in ("real", "ai_generated", "uncertain", "errors")}
        summary = BatchSummary(photos=len(ordered), **counts)
        return BatchVerdict(items=ordered, summary=summary, request_id=self.request_id)


def judge(rules: Rules, batch: Batch, places: list[int]) -> Flow[list[BatchItem]]:
    """Judge the photos at `places`; whatever goes wrong is the photos' error, and nothing is raised."""
    if batch.refusal:
        return [_failed(batch, place, batch.refusal) for place in places]
    items, uploads = [], {}
    for place in places:
        try:
            uploads[place] = yield Read(batch.sources[place])
        except DetectorError as error:
            items.append(_failed(batch, place, error))
        except OSError as error:
            reason = error.strerror or type(error).__name__
            items.append(_failed(batch, place, NotAFile(f"The file can't be read: {reason}.")))
    items += yield from _send(rules, batch, uploads)
    return items


def _send(rules: Rules, batch: Batch, uploads: dict[int, Upload]) -> Flow[list[BatchItem]]:
    """One request, or two halves where the service finds one too large; items carry the batch's positions."""
    if not uploads:
        return []
    places = list(uploads)
    try:
        reply = yield from call(rules, wire.predict_batch(list(uploads.values())), f"{batch.request_id}-{places[0]}")
        answered = wire.read_answer(BatchVerdict, reply)
        return [_placed(one, place, upload) for one, (place, upload) in _pairs(answered, uploads)]
    except (BodyTooLarge, TooManyImages) as error:
        if len(places) == 1:
            return [_failed(batch, places[0], error)]
        middle = len(places) // 2
        first = yield from _send(rules, batch, {place: uploads[place] for place in places[:middle]})
        second = yield from _send(rules, batch, {place: uploads[place] for place in places[middle:]})
        return first + second
    except DetectorError as error:
        if wire.refuses_everything(error):
            batch.refusal = error
        return [_failed(batch, place, error) for place in places]


def _pairs(answered: BatchVerdict, uploads: dict[int, Upload]) -> list[tuple[BatchItem, tuple[int, Upload]]]:
    if [item.index for item in answered.items] != list(range(len(uploads))):
        raise wire.named(InternalError(wire.STRANGER), answered.request_id)
    return list(zip(answered.items, uploads.items(), strict=True))


def _placed(item: BatchItem, place: int, upload: Upload) -> BatchItem:
    if item.verdict:
        wire.check_about(item.verdict, upload)
    return item.model_copy(update={"index": place})


def _failed(batch: Batch, place: int, error: DetectorError) -> BatchItem:
    problem = wire.as_problem(error, batch.request_id)
    return BatchItem(index=place, name=name_of(batch.sources[place]), error=problem)
