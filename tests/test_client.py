"""The client gives back the service's own types, and raises the service's own errors."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from detector.client import Client
from detector.errors import DetectorError, EmptyImage, InternalError, ModelUnavailable, TooSmall, by_code
from detector.problems import problem_response
from tests.conftest import encoded, make_photo


@pytest.fixture
def client(service: httpx.Client) -> Iterator[Client]:
    with Client(str(service.base_url)) as made:
        yield made


def test_every_call_has_its_answer(client: Client, jpeg: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg)
    verdict = client.predict(jpeg)
    assert client.predict(path).probability == verdict.probability
    batch = client.predict_batch([path, b""])
    assert batch.items[0].name == "a.jpg"
    assert batch.items[1].error and batch.items[1].error.code == "empty_image"
    explanation = client.explain(str(path), alpha=0.25, colormap="jet", format="png")
    assert (explanation.alpha, explanation.colormap) == (0.25, "jet")
    assert client.health().status == "ok"


def test_a_refusal_is_raised_as_what_it_is(client: Client) -> None:
    with pytest.raises(EmptyImage):
        client.predict(b"")
    with pytest.raises(TooSmall, match="64"):
        client.explain(encoded(make_photo(32, 32)))


def answering(response: httpx.Response) -> Client:
    return Client(transport=httpx.MockTransport(lambda _: response))


@pytest.mark.parametrize("kind", by_code().values(), ids=lambda kind: kind.code)
def test_every_error_comes_back_by_its_code(kind: type[DetectorError]) -> None:
    sent = problem_response(kind("So it is.", retry_after=3), "r1")
    response = httpx.Response(sent.status_code, headers=dict(sent.headers), content=sent.body)
    with pytest.raises(kind) as raised:
        answering(response).predict(b"")
    assert (raised.value.detail, raised.value.retry_after) == ("So it is.", 3)


def test_a_stranger_s_answer_is_an_internal_error() -> None:
    for response in (httpx.Response(502, text="<html>"), httpx.Response(200, text="<html>"), httpx.Response(200)):
        with pytest.raises(InternalError):
            answering(response).predict(b"")


def test_silence_is_model_unavailable() -> None:
    def silent(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("nobody")

    with pytest.raises(ModelUnavailable, match="does not answer"):
        Client(transport=httpx.MockTransport(silent)).health()


def test_a_verdict_of_a_server_that_reads_no_provenance_is_read() -> None:
    body = {
        "label": "real",
        "probability": 0.1,
        "confidence": "medium",
        "thresholds": {"real": 0.3, "ai_generated": 0.9},
        "model": {"name": "m", "version": "1", "hash": "0", "profile": "fast"},
        "image": {"width": 64, "height": 64, "format": "PNG", "bytes": 9, "sha256": "0", "animated": False},
        "timing": {"decode": 1, "score": 1, "total": 2},
        "request_id": "r",
    }
    verdict = answering(httpx.Response(200, json=body)).predict(b"")
    assert (verdict.evidence, verdict.decided_by) == (None, "pixels")
