"""A running service is held to what it said before; anything else is told, in what it differs."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import httpx
import pytest

from deploy.verify import Unverified, verify
from detector.client import Client
from detector.errors import ModelUnavailable
from detector.schema import Verdict


class Still(BaseHTTPRequestHandler):
    """Metrics that never move."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'ppd_requests_total{route="/predict",status="200"} 7.0\n')

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def client(service: httpx.Client) -> Iterator[Client]:
    with Client(str(service.base_url), environ={}) as client:
        yield client


@pytest.fixture(scope="module")
def said(client: Client) -> Verdict:
    return verify(client, client.address)


def test_a_service_that_says_it_again_is_verified(client: Client, said: Verdict) -> None:
    assert verify(client, client.address, said).probability == said.probability


def test_another_probability_is_not_verified(client: Client, said: Verdict) -> None:
    expected = said.model_copy(update={"probability": (said.probability + 0.5) % 1})
    with pytest.raises(Unverified, match="was meant"):
        verify(client, client.address, expected)


def test_another_model_is_not_verified(client: Client, said: Verdict) -> None:
    expected = said.model_copy(update={"model": said.model.model_copy(update={"hash": "0" * 64})})
    with pytest.raises(Unverified, match="answers; "):
        verify(client, client.address, expected)


def test_metrics_that_do_not_count_are_not_verified(client: Client) -> None:
    with HTTPServer(("127.0.0.1", 0), Still) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(Unverified, match="did not count"):
            verify(client, f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


def test_a_service_that_does_not_answer_is_not_waited_for_for_ever() -> None:
    with Client("http://127.0.0.1:9", environ={}) as nobody, pytest.raises(ModelUnavailable):
        verify(nobody, nobody.address, wait=0.0)
