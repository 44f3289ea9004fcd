"""The gate: who asks, how often, how much at once; and every error as an RFC 9457 problem document.

What an ASGI app sees of it is here, and the one line the log has of each request; one exchange is `exchange`'s,
identity `auth`'s, budgets `ratelimit`'s. It decides nothing about photos; BentoML's own error bodies never leave it.
"""

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.routing import compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

from detector import logs, metrics, stages
from detector.address import Network, client_address
from detector.auth import Caller, Credentials, Guard
from detector.errors import DetectorError, Overloaded, RateLimited
from detector.exchange import Exchange, Pace
from detector.ratelimit import Budgets

PROBES = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})
FORM_OVERHEAD = 65_536  # bytes of multipart headers and text fields allowed beside the photos
OTHER = "other"  # the route of whatever no route is known for: labels must not grow with what callers invent
logger = logging.getLogger("bentoml.detector.request")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True)
class Door:
    """A route that takes work: what it asks of a caller."""

    method: str
    scope: str  # also the name of its budget
    max_body: int = FORM_OVERHEAD  # bytes
    anyone: bool = False  # who asks is settled, no scope is asked for: the route decides what they may see


@dataclass(frozen=True)
class Room:
    """How much is worked on at once, how much may wait, and how long whoever finds it full should."""

    max_in_flight: int
    max_queued: int
    retry_after: int  # seconds


@dataclass(frozen=True)
class Entry:
    """What the gate found out about one request; service.py reads it from the request's state."""

    request_id: str
    caller: Caller
    spend: Callable[[int], Awaitable[None]]  # takes more from the caller's budget; raises RateLimited


def request_id_of(request: Request) -> str:
    request_id: str = request.state.request_id
    return request_id


def entry_of(request: Request) -> Entry:
    entry: Entry = request.state.entry
    return entry


class Gate:
    """ASGI middleware around the whole service. Only the doors take work; all else reads no body."""

    def __init__(
        self,
        app: ASGIApp,
        doors: Mapping[str, Door],
        room: Room,
        pace: Pace,
        guard: Guard,
        budgets: Budgets,
        trusted: Sequence[Network] = (),
        open_routes: Iterable[str] = (),
    ) -> None:
        """doors: by path, in which `{id}` stands for any name. trusted: proxies whose X-Forwarded-For counts.

        open_routes: paths without a door that are told apart in metrics and log.
        """
        self._app, self._room, self._pace = app, room, pace
        self._doors = [(compile_path(path)[0], path, door) for path, door in doors.items()]
        self._open_routes = frozenset(open_routes)
        self._guard, self._budgets, self._trusted = guard, budgets, trusted
        self._places = asyncio.Semaphore(room.max_in_flight)
        self._inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            return await self._app(scope, receive, send)
        headers, (route, door) = Headers(scope=scope), self._find(scope["path"])
        request_id = _request_id(headers)
        scope.setdefault("state", {})["request_id"] = request_id
        exchange = Exchange(receive, send, door.max_body if door else FORM_OVERHEAD, self._pace, request_id)
        with logs.bound(request_id), stages.journey(request_id) as journey:
            started = time.perf_counter()
            try:
                await self._serve(scope, receive, headers, door, exchange)
            finally:
                _tell(scope, route, exchange.status, journey, time.perf_counter() - started)

    async def _serve(
        self, scope: Scope, receive: Receive, headers: Headers, door: Door | None, exchange: Exchange
    ) -> None:
        try:
            if door is None or _method(scope) != door.method:
                exchange.check_announced(headers.get("content-length"))
                return await self._app(scope, receive, exchange.send)
            await self._admit(scope, headers, door, exchange)
            await self._enter(scope, exchange)
        except DetectorError as error:
            metrics.REFUSALS.labels(error.code).inc()
            await exchange.refuse(error)

    def _find(self, path: str) -> tuple[str, Door | None]:
        """The route's name and door, found as the router finds the route, so that none is reached around its door."""
        for pattern, route, door in self._doors:
            if pattern.match(path):
                return route, door
        return (path if path in self._open_routes else OTHER), None

    async def _admit(self, scope: Scope, headers: Headers, door: Door, exchange: Exchange) -> None:
        """Settle identity and budget before anything of the body is read."""
        address = client_address(_peer(scope), headers.getlist("x-forwarded-for"), self._trusted)
        caller = await self._guard.identify(_credentials(headers), address)
        scope["state"]["caller"] = caller.id  # known from here on, also to a refusal's line in the log
        if not door.anyone:
            caller.require(door.scope)

        async def spend(cost: int) -> None:
            standing = await self._budgets.spend(door.scope, caller.id, cost)
            if standing is None:
                return
            exchange.headers |= standing.headers()
            if not standing.allowed:
                raise RateLimited(
                    f"The caller's budget of {standing.limit} in {standing.window} seconds is spent.",
                    retry_after=standing.reset,
                )

        async def spend_more(cost: int) -> None:
            try:
                await spend(cost)
            except RateLimited as error:
                metrics.REFUSALS.labels(error.code).inc()
                raise

        await spend(1)
        exchange.check_announced(headers.get("content-length"))
        exchange.headers["Cache-Control"] = "no-store"
        scope["state"]["entry"] = Entry(scope["state"]["request_id"], caller, spend_more)

    async def _enter(self, scope: Scope, exchange: Exchange) -> None:
        if self._inside >= self._room.max_in_flight + self._room.max_queued:
            raise Overloaded("Too many requests are waiting; try again shortly.", retry_after=self._room.retry_after)
        self._inside += 1
        metrics.IN_FLIGHT.inc()
        try:
            await self._work_while_there(scope, exchange)
        finally:
            self._inside -= 1
            metrics.IN_FLIGHT.dec()

    async def _work_while_there(self, scope: Scope, exchange: Exchange) -> None:
        """Do the work, unless the caller leaves or their body is refused: then it is dropped at once."""
        work = asyncio.create_task(self._work(scope, exchange))
        watch = asyncio.create_task(exchange.watch())
        try:
            await asyncio.wait((work, watch), return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and not exchange.started:
                await _drop(work)
                watch.result()  # raises what the body was refused for
                return metrics.CALLERS_LEFT.inc()
            await work
        finally:
            await _drop(work, watch)

    async def _work(self, scope: Scope, exchange: Exchange) -> None:
        metrics.QUEUED.inc()
        try:
            await self._places.acquire()
        finally:
            metrics.QUEUED.dec()
        try:
            await self._app(scope, exchange.receive, exchange.send)
        finally:
            self._places.release()


async def _drop(*tasks: "asyncio.Task[None]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _tell(scope: Scope, route: str, status: int | None, journey: stages.Journey, took: float) -> None:
    """Count a request that has ended, and write its one line; without a status its caller had left."""
    if status:
        metrics.REQUESTS.labels(route, status).inc()
        metrics.REQUEST_SECONDS.labels(route).observe(took)
    if journey.code:
        metrics.ERRORS.labels(route, journey.code).inc()
    if logger.isEnabledFor(logging.INFO):
        caller = scope["state"].get("caller")
        facts = {"method": scope["method"], "route": route, "status": status, "caller": caller}
        logger.info("request", extra=facts | journey.facts() | {"total_ms": round(1e3 * took, 2)})


def _peer(scope: Scope) -> str:
    return str(scope["client"][0]) if scope.get("client") else ""


def _method(scope: Scope) -> str:
    """HEAD is answered as GET is, so it passes the same door."""
    return "GET" if scope["method"] == "HEAD" else str(scope["method"])


def _credentials(headers: Headers) -> Credentials:
    return Credentials(tuple(headers.getlist("x-api-key")), tuple(headers.getlist("authorization")))


def _request_id(headers: Headers) -> str:
    """The caller's X-Request-ID where it is harmless, else a new one."""
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
