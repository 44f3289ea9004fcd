"""A stage is measured once, and told to the metrics, the log and the trace."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from detector import metrics, stages
from detector.cache import VerdictCache
from detector.errors import EmptyImage
from detector.provenance.reading import FileReader
from tests.test_pipeline import STYLE, detector, saying


def counted(label: str, cached: str) -> float:
    return sum(
        metrics.PREDICTIONS.labels(label, confidence, cached)._value.get() for confidence in ("low", "medium", "high")
    )


def judged() -> float:
    return sum(bucket.get() for bucket in metrics.PROBABILITY._buckets)


@pytest.fixture(scope="module")
def provider() -> TracerProvider:
    made = TracerProvider()
    trace.set_tracer_provider(made)  # once in a process
    return made


@pytest.fixture
def spans(provider: TracerProvider) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield exporter
    exporter.shutdown()


def test_verdicts_are_counted_with_remembered_ones_apart(model_folder: Path, jpeg: bytes) -> None:
    fresh, remembered, probabilities = counted("real", "false"), counted("real", "true"), judged()

    async def scenario() -> None:
        judge = detector(model_folder, saying(-9.0), cache=VerdictCache("scope", 10, 60))
        await judge.predict(jpeg, "r")
        await judge.predict_many([jpeg, jpeg], "r")

    asyncio.run(scenario())
    assert (counted("real", "false") - fresh, counted("real", "true") - remembered) == (1, 2)
    assert judged() - probabilities == 1


def test_a_photo_refused_inside_a_batch_is_counted(model_folder: Path, jpeg: bytes) -> None:
    before = metrics.PHOTOS_REFUSED.labels("empty_image")._value.get()
    judge = detector(model_folder, saying(9.0))
    answers = asyncio.run(judge.predict_many([jpeg, b"", b""], "r"))
    assert [type(one) for one in answers[1:]] == [EmptyImage, EmptyImage]
    assert metrics.PHOTOS_REFUSED.labels("empty_image")._value.get() == before + 2


def test_a_request_s_stages_and_verdict_are_facts_for_its_line(model_folder: Path, jpeg: bytes) -> None:
    judge = detector(model_folder, saying(9.0), FileReader().read)
    with stages.journey("r") as journey:
        asyncio.run(judge.explain(jpeg, STYLE, "r"))
    facts = journey.facts()
    assert {"decode_ms", "provenance_ms", "explain_ms"} <= facts.keys()
    assert (facts["label"], facts["cache"], facts["profile"]) == ("ai_generated", "miss", "accurate")
    assert facts["model"] == "product-photo-detector:test"


def test_many_verdicts_are_told_by_number(model_folder: Path, jpeg: bytes) -> None:
    judge = detector(model_folder, saying(9.0))
    with stages.journey("r") as journey:
        asyncio.run(judge.predict_many([jpeg] * 3, "r"))
    facts = journey.facts()
    assert (facts["photos"], facts["cached"], facts["ai_generated"]) == (3, 0, 3)


def test_what_the_networks_did_not_take_was_waiting() -> None:
    with stages.journey("r") as journey:
        stages.scored(took=0.5, network=0.125, batch=4)
        stages.scored(took=0.5, network=0.25, batch=2)
    assert journey.facts() == {"queue_ms": 625.0, "network_ms": 375.0, "batch": 4}


def test_a_sampled_request_has_a_span_a_stage(
    spans: InMemorySpanExporter, provider: TracerProvider, model_folder: Path, jpeg: bytes
) -> None:
    judge = detector(model_folder, saying(9.0), FileReader().read)
    with provider.get_tracer("test").start_as_current_span("POST /explain") as parent:
        asyncio.run(judge.explain(jpeg, STYLE, "r"))
        stages.scored(took=0.5, network=0.125, batch=1)
    found = {span.name: span for span in spans.get_finished_spans()}
    assert found.keys() == {"decode", "provenance", "explain", "queue", "network", "POST /explain"}
    assert {span.context.trace_id for span in found.values() if span.context} == {parent.get_span_context().trace_id}
    queue, network = found["queue"], found["network"]
    assert queue.start_time and queue.end_time and network.start_time and network.end_time
    assert queue.end_time - queue.start_time == 375_000_000
    assert abs(network.start_time - queue.end_time) < 5_000_000  # one after the other; two readings of the clock


def test_without_a_trace_there_is_no_span(spans: InMemorySpanExporter) -> None:
    stages.passed("decode", 0.1)
    assert spans.get_finished_spans() == ()
