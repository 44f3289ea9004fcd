"""The gate: request ids, body size, room for work; and every error as an RFC 9457 problem document.

With `forms` the only place that knows ASGI. It decides nothing about photos; BentoML's own error bodies never leave it.
"""

import asyncio
import re
import uuid
from collections.abc import Mapping
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from detector.errors import (
    BodyTooLarge,
    DetectorError,
    InternalError,
    MethodNotAllowed,
    ModelUnavailable,
    Overloaded,
    RouteNotFound,
    TimedOut,
    UnsupportedBody,
)
from detector.schema import Problem

PROBLEM_TYPE = "application/problem+json"
PROBES = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})
FORM_OVERHEAD = 65_536  # bytes of multipart headers and text fields allowed beside the photos
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_FOREIGN: Mapping[int, type[DetectorError]] = {
    404: RouteNotFound,
    405: MethodNotAllowed,
    415: UnsupportedBody,
    503: ModelUnavailable,
    504: TimedOut,
}


def problem(error: DetectorError, request_id: str) -> Problem:
    """An error as it crosses the wire; `type` is a URN, for the codes are documented in docs/api.md."""
    return Problem(
        type=f"urn:product-photo-detector:problem:{error.code}",
        title=error.title,
        status=error.status,
        detail=error.detail,
        code=error.code,
        request_id=request_id,
    )


def problem_response(error: DetectorError, request_id: str) -> Response:
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after else {}
    body = problem(error, request_id).model_dump_json()
    return Response(body, error.status, headers, media_type=PROBLEM_TYPE)


def request_id_of(request: Request) -> str:
    request_id: str = request.state.request_id
    return request_id


class Gate:
    """ASGI middleware around the whole service."""

    def __init__(
        self, app: ASGIApp, body_limits: Mapping[str, int], max_in_flight: int, max_queued: int, retry_after: int
    ) -> None:
        """body_limits: bytes by path; these are the paths that need room to work, and all others read no body."""
        self._app = app
        self._body_limits = body_limits
        self._room = asyncio.Semaphore(max_in_flight)
        self._most, self._inside, self._retry_after = max_in_flight + max_queued, 0, retry_after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            return await self._app(scope, receive, send)
        request_id = _request_id(Headers(scope=scope))
        scope.setdefault("state", {})["request_id"] = request_id
        exchange = _Exchange(receive, send, self._body_limits.get(scope["path"], FORM_OVERHEAD), request_id)
        try:
            exchange.check_announced(Headers(scope=scope))
            await self._enter(scope, exchange)
        except DetectorError as error:
            await problem_response(error, request_id)(scope, receive, exchange.send_plain)

    async def _enter(self, scope: Scope, exchange: "_Exchange") -> None:
        if scope["path"] not in self._body_limits:
            return await self._app(scope, exchange.receive, exchange.send)
        if self._inside >= self._most:
            raise Overloaded("Too many requests are waiting; try again shortly.", retry_after=self._retry_after)
        self._inside += 1
        try:
            async with self._room:
                await self._app(scope, exchange.receive, exchange.send)
        finally:
            self._inside -= 1


class _Exchange:
    """One request and its answer: counts the body as it streams in, rewrites foreign errors on the way out."""

    def __init__(self, receive: Receive, send: Send, limit: int, request_id: str) -> None:
        self._receive, self._send, self._limit, self._request_id = receive, send, limit, request_id
        self._read, self._replaced = 0, False

    def check_announced(self, headers: Headers) -> None:
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._limit:
            raise self._too_large()

    async def receive(self) -> Message:
        """Pass the body on until it is over the limit; then the app sees a client that left (see `send`)."""
        message = await self._receive()
        self._read += len(message.get("body", b""))
        if self._read > self._limit:
            return {"type": "http.disconnect"}
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            error = self._too_large() if self._read > self._limit else _foreign_error(message)
            if error:
                self._replaced = True
                return await self._send_problem(error)
        if not self._replaced:
            await self.send_plain(message)

    async def send_plain(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=message["headers"])
            headers["X-Request-ID"] = self._request_id
            if self._read > self._limit:
                headers["Connection"] = "close"  # the rest of the body stays unread
        await self._send(message)

    async def _send_problem(self, error: DetectorError) -> None:
        response = problem_response(error, self._request_id)
        start = {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers}
        await self.send_plain(start)
        await self._send({"type": "http.response.body", "body": response.body})

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"The request body is larger than the {self._limit:,} bytes allowed on this route.")


def _request_id(headers: Headers) -> str:
    """The caller's X-Request-ID where it is harmless, else a new one."""
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _foreign_error(start: Message) -> DetectorError | None:
    """What to answer instead of an error body that is not ours."""
    status: int = start["status"]
    if status < HTTPStatus.BAD_REQUEST or Headers(raw=start["headers"]).get("content-type") == PROBLEM_TYPE:
        return None
    return _FOREIGN.get(status, InternalError)()
