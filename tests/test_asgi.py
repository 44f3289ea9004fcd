"""The gate lets in who may come and what there is room for, and lets nothing foreign out."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from detector import keyring
from detector.asgi import FORM_OVERHEAD, Door, Gate, Room, entry_of
from detector.auth import Failures, Guard
from detector.exchange import Pace
from detector.keyring import Keyring
from detector.ratelimit import Budgets
from detector.schema import Problem
from detector.tokens import TokenRules, Tokens

Handler = Callable[[Request], Awaitable[Response]]
OPEN = Guard(None, None, Failures(10))
SECRET = b"0123456789abcdef0123456789abcdef"


def app(handler: Handler) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        response = PlainTextResponse("alive") if scope["path"] == "/livez" else await handler(request)
        await response(scope, receive, send)

    return answer


async def done(request: Request) -> Response:
    return PlainTextResponse("done")


async def untouched(request: Request) -> Response:
    raise AssertionError("the app was asked")


async def reading(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


def gate(handler: Handler, **options: Any) -> Gate:
    plain: dict[str, Any] = {
        "doors": {"/predict": Door("POST", "predict", 100), "/predict/batch": Door("POST", "batch", 100)},
        "room": Room(8, 8, 7),
        "pace": Pace(5.0, 1000),
        "guard": OPEN,
        "budgets": Budgets({}),
    }
    return Gate(app(handler), **plain | options)


def client(gate: Gate) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(gate), base_url="http://gate")


def ask(gate: Gate, method: str = "POST", path: str = "/predict", **options: Any) -> httpx.Response:
    async def scenario() -> httpx.Response:
        async with client(gate) as http:
            return await http.request(method, path, **options)

    return asyncio.run(scenario())


def assert_problem(response: httpx.Response, status: int, code: str) -> Problem:
    problem = Problem.model_validate_json(response.content)
    assert (response.status_code, problem.status, problem.code) == (status, status, code)
    assert response.headers["x-request-id"] == problem.request_id
    return problem


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Guard, str]:
    """A guard that asks for a key, and a key with the scope `predict`."""
    text, kept = keyring.mint("desk", ["predict"], keyring.now())
    keyring.write(tmp_path / "keys.json", {kept.id: kept})
    return Guard(Keyring(tmp_path / "keys.json"), None, Failures(2)), text


def test_a_full_gate_answers_503_passes_probes_and_has_room_again() -> None:
    async def scenario() -> None:
        release = asyncio.Event()

        async def wait(request: Request) -> Response:
            await release.wait()
            return PlainTextResponse("done")

        full = gate(wait, room=Room(1, 1, 7))
        async with client(full) as http, asyncio.timeout(5):
            inside, queued = (asyncio.create_task(http.post("/predict")) for _ in range(2))
            await settle()
            refused = await http.post("/predict")
            assert_problem(refused, 503, "overloaded")
            assert refused.headers["retry-after"] == "7"
            assert (await http.get("/livez")).status_code == 200
            queued.cancel()
            await asyncio.gather(queued, return_exceptions=True)
            second = asyncio.create_task(http.post("/predict"))
            release.set()
            assert [(await one).status_code for one in (inside, second)] == [200, 200]
            assert (await http.post("/predict")).status_code == 200

    asyncio.run(scenario())


class Caller:
    """The network's side of one request: what it sends, and what it got."""

    def __init__(self, *body: Message) -> None:
        self.inbox: asyncio.Queue[Message] = asyncio.Queue()
        self.answer: list[Message] = []
        for message in body:
            self.inbox.put_nowait(message)

    async def ask(self, gate: Gate) -> None:
        scope = {"type": "http", "path": "/predict", "method": "POST", "headers": [], "client": ("127.0.0.1", 1)}
        await gate(scope, self.inbox.get, self.send)

    async def send(self, message: Message) -> None:
        self.answer.append(message)

    def leave(self) -> None:
        self.inbox.put_nowait({"type": "http.disconnect"})


WHOLE: Message = {"type": "http.request", "body": b"x", "more_body": False}
PART: Message = {"type": "http.request", "body": b"x", "more_body": True}


@pytest.mark.parametrize("body", [(WHOLE,), (PART,), ()], ids=["sent", "sending", "silent"])
def test_a_caller_who_leaves_frees_the_place_at_once(body: tuple[Message, ...]) -> None:
    """Both the one being worked for and the one still waiting."""

    async def scenario() -> None:
        dropped = 0

        async def never(request: Request) -> Response:
            nonlocal dropped
            try:
                await asyncio.Event().wait()
            finally:
                dropped += 1
            return PlainTextResponse("never")

        full = gate(never, room=Room(1, 1, 7))
        callers = [Caller(*body), Caller(*body)]
        tasks = [asyncio.create_task(caller.ask(full)) for caller in callers]
        await settle()
        assert full._inside == 2
        for caller in callers:
            caller.leave()
        async with asyncio.timeout(5):
            await asyncio.gather(*tasks)
        assert (full._inside, full._places.locked(), dropped) == (0, False, 1)
        assert [caller.answer for caller in callers] == [[], []]

    asyncio.run(scenario())


def test_a_body_that_dribbles_is_answered_408_and_frees_the_place() -> None:
    async def scenario() -> Caller:
        slow = gate(reading, pace=Pace(0.05, 1000))
        caller = Caller(PART)
        async with asyncio.timeout(5):
            await caller.ask(slow)
        assert slow._inside == 0
        return caller

    start, body = asyncio.run(scenario()).answer
    assert start["status"] == 408
    assert Problem.model_validate_json(body["body"]).code == "slow_upload"
    assert (b"connection", b"close") in start["headers"]


def test_a_caller_who_waits_for_us_is_not_called_slow() -> None:
    """Only the time the body keeps us waiting counts, not the time the request waits for its place."""

    async def scenario() -> Caller:
        release = asyncio.Event()

        async def wait(request: Request) -> Response:
            await release.wait()
            return await reading(request)

        patient = gate(wait, pace=Pace(0.05, 10**9))
        caller = Caller(WHOLE)
        task = asyncio.create_task(caller.ask(patient))
        asyncio.get_running_loop().call_later(0.1, release.set)
        async with asyncio.timeout(5):
            await task
        return caller

    assert asyncio.run(scenario()).answer[0]["status"] == 200


async def flood(size: int) -> AsyncIterator[bytes]:
    for _ in range(size):
        yield b"x"


@pytest.mark.parametrize(("size", "status"), [(100, 200), (101, 413), (100_000, 413)])
def test_a_body_over_the_limit_is_refused_while_it_streams(size: int, status: int) -> None:
    assert ask(gate(reading), content=flood(size)).status_code == status


@pytest.mark.parametrize("length", ["101", "9" * 30, "-1", "1e1", "٣"])
def test_an_announced_body_over_the_limit_or_without_sense_never_reaches_the_app(length: str) -> None:
    headers = [(b"Content-Length", length.encode())]
    assert_problem(ask(gate(untouched), content=flood(1), headers=headers), 413, "body_too_large")


def test_a_route_without_work_takes_no_large_body_either() -> None:
    assert_problem(ask(gate(untouched), path="/other", content=bytes(FORM_OVERHEAD + 1)), 413, "body_too_large")


@pytest.mark.parametrize(
    ("status", "code"), [(500, "internal_error"), (503, "model_unavailable"), (502, "internal_error")]
)
def test_a_foreign_error_body_never_leaves(status: int, code: str) -> None:
    async def fail(request: Request) -> Response:
        return PlainTextResponse("Traceback: secret", status)

    response = ask(gate(fail), "GET", "/health")
    assert Problem.model_validate_json(response.content).code == code
    assert "secret" not in response.text


def test_a_stranger_is_refused_before_the_body_is_read(keys: tuple[Guard, str]) -> None:
    async def unread() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    response = ask(gate(untouched, guard=keys[0]), content=unread())
    assert_problem(response, 401, "unauthenticated")
    assert response.headers["www-authenticate"].startswith("ApiKey ")


def test_a_caller_with_a_key_comes_in_and_is_known_inside(keys: tuple[Guard, str]) -> None:
    async def name(request: Request) -> Response:
        return PlainTextResponse(entry_of(request).caller.id)

    assert ask(gate(name, guard=keys[0]), headers={"X-API-Key": keys[1]}).text == "key:desk"


def test_a_missing_scope_is_named(keys: tuple[Guard, str]) -> None:
    response = ask(gate(untouched, guard=keys[0]), path="/predict/batch", headers={"X-API-Key": keys[1]})
    assert "`batch`" in assert_problem(response, 403, "forbidden").detail


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/livez"), ("GET", "/metrics"), ("OPTIONS", "/predict"), ("GET", "/health")]
)
def test_probes_preflight_and_pages_ask_nobody(keys: tuple[Guard, str], method: str, path: str) -> None:
    assert ask(gate(done, guard=keys[0]), method, path).status_code == 200


def test_wrong_keys_are_throttled_and_the_right_one_still_passes(keys: tuple[Guard, str]) -> None:
    guarded = gate(done, guard=keys[0])
    statuses = [ask(guarded, headers={"X-API-Key": "ppd_wrong"}).status_code for _ in range(4)]
    assert statuses == [401, 401, 429, 429]
    assert ask(guarded, headers={"X-API-Key": keys[1]}).status_code == 200


def test_a_spent_budget_is_told_in_headers() -> None:
    limited = gate(done, budgets=Budgets({"predict": "2/minute"}))
    answers = [ask(limited) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["ratelimit-remaining"] for answer in answers] == ["1", "0", "0"]
    assert 1 <= int(answers[2].headers["retry-after"]) <= 60
    assert_problem(answers[2], 429, "rate_limited")
    assert ask(limited, path="/predict/batch").status_code == 200


def test_a_batch_pays_for_its_photos_inside() -> None:
    async def five(request: Request) -> Response:
        await entry_of(request).spend(4)
        return PlainTextResponse("done")

    counted = gate(five, budgets=Budgets({"batch": "9/minute"}))
    first = ask(counted, path="/predict/batch")
    assert (first.status_code, first.headers["ratelimit-remaining"]) == (200, "4")


def test_every_answer_carries_the_security_headers() -> None:
    for response in (ask(gate(done)), ask(gate(done), "GET", "/health")):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["x-frame-options"] == "DENY"
    assert ask(gate(done)).headers["cache-control"] == "no-store"


@pytest.mark.parametrize("token", ["", "a.b.c", "Bearer", "é" * 40, "x" * 9000, "a..", ".".join(["e30"] * 3)])
def test_a_token_that_is_none_is_a_401(token: str) -> None:
    tokens = Tokens(TokenRules("us", "api", 0, "scope"), SECRET, None)
    guarded = gate(untouched, guard=Guard(None, tokens, Failures(100)))
    headers = [(b"Authorization", f"Bearer {token}".encode())]
    response = ask(guarded, headers=headers)
    assert_problem(response, 401, "unauthenticated")
    assert "invalid_token" in response.headers["www-authenticate"]


def test_a_refusal_s_line_names_the_caller_and_the_route(
    keys: tuple[Guard, str], caplog: pytest.LogCaptureFixture
) -> None:
    guard, key = keys
    with caplog.at_level(logging.INFO, "bentoml.detector.request"):
        ask(gate(untouched, guard=guard), path="/predict/batch", headers={"X-API-Key": key})
    (line,) = (vars(record) for record in caplog.records)
    told = [line[name] for name in ("caller", "route", "status", "code")]
    assert told == ["key:desk", "/predict/batch", 403, "forbidden"]


def test_an_invented_path_is_told_as_another_route(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "bentoml.detector.request"):
        ask(gate(done), "GET", "/invented")
        ask(gate(done, open_routes=["/health"]), "GET", "/health")
    assert [vars(record)["route"] for record in caplog.records] == ["other", "/health"]


def test_a_probe_has_no_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "bentoml.detector.request"):
        ask(gate(done), "GET", "/livez")
    assert caplog.records == []


def test_a_caller_who_left_has_a_line_without_a_status(caplog: pytest.LogCaptureFixture) -> None:
    async def never(request: Request) -> Response:
        await asyncio.Event().wait()
        return PlainTextResponse("never")

    async def scenario() -> None:
        caller = Caller(WHOLE)
        caller.leave()
        async with asyncio.timeout(5):
            await caller.ask(gate(never))

    with caplog.at_level(logging.INFO, "bentoml.detector.request"):
        asyncio.run(scenario())
    assert [vars(record)["status"] for record in caplog.records] == [None]
