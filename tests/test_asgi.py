"""The gate lets in what there is room for, and lets nothing foreign out."""

import asyncio
from collections.abc import Awaitable, Callable

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from detector.asgi import FORM_OVERHEAD, Gate
from detector.schema import Problem

Handler = Callable[[], Awaitable[PlainTextResponse]]


def app(handler: Handler) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        response = PlainTextResponse("alive") if scope["path"] == "/livez" else await handler()
        await response(scope, receive, send)

    return answer


def client(gate: Gate) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(gate), base_url="http://gate")


def test_a_full_gate_answers_503_passes_probes_and_has_room_again() -> None:
    async def scenario() -> None:
        release = asyncio.Event()

        async def wait() -> PlainTextResponse:
            await release.wait()
            return PlainTextResponse("done")

        gate = Gate(app(wait), {"/predict": 100}, max_in_flight=1, max_queued=1, retry_after=7)
        async with client(gate) as http, asyncio.timeout(5):
            inside, queued = (asyncio.create_task(http.post("/predict")) for _ in range(2))
            for _ in range(10):
                await asyncio.sleep(0)
            assert gate._inside == 2
            refused = await http.post("/predict")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "7")
            assert Problem.model_validate_json(refused.content).code == "overloaded"
            assert (await http.get("/livez")).status_code == 200
            queued.cancel()
            await asyncio.gather(queued, return_exceptions=True)
            second = asyncio.create_task(http.post("/predict"))
            release.set()
            assert [(await one).status_code for one in (inside, second)] == [200, 200]
            assert (await http.post("/predict")).status_code == 200

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("status", "code"), [(500, "internal_error"), (503, "model_unavailable"), (502, "internal_error")]
)
def test_a_foreign_error_body_never_leaves(status: int, code: str) -> None:
    async def fail() -> PlainTextResponse:
        return PlainTextResponse("Traceback: secret", status)

    async def scenario() -> httpx.Response:
        async with client(Gate(app(fail), {}, 1, 0, 1)) as http:
            return await http.get("/health")

    response = asyncio.run(scenario())
    problem = Problem.model_validate_json(response.content)
    assert problem.code == code
    assert problem.request_id == response.headers["x-request-id"]
    assert "secret" not in response.text


def test_an_announced_body_over_the_limit_never_reaches_the_app() -> None:
    async def fail() -> PlainTextResponse:
        raise AssertionError("the app was asked")

    async def scenario() -> list[int]:
        async with client(Gate(app(fail), {"/predict": 10}, 1, 0, 1)) as http:
            sent = {"/predict": bytes(11), "/other": bytes(FORM_OVERHEAD + 1)}
            return [(await http.post(path, content=body)).status_code for path, body in sent.items()]

    assert asyncio.run(scenario()) == [413, 413]
