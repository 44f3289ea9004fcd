"""One request and its answer, between the network and the service.

Reads the body, a little ahead, so that its size, its pace and a caller who leaves are seen; lends every answer the
gate's headers and rewrites foreign errors. Whether the request may come in, `asgi` decides.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Message, Receive, Send

from detector import stages
from detector.errors import (
    BodyTooLarge,
    DetectorError,
    InternalError,
    MethodNotAllowed,
    ModelUnavailable,
    RouteNotFound,
    SlowUpload,
    TimedOut,
    UnsupportedBody,
)
from detector.problems import PROBLEM_TYPE, problem_response

_AHEAD = 65_536  # bytes of body held for an app that does not read yet
_LEFT: Message = {"type": "http.disconnect"}
_FOREIGN: Mapping[int, type[DetectorError]] = {
    404: RouteNotFound,
    405: MethodNotAllowed,
    415: UnsupportedBody,
    503: ModelUnavailable,
    504: TimedOut,
}
SECURITY: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "frame-ancestors 'none'",  # no more: the API page loads its script from elsewhere
}


@dataclass(frozen=True)
class Pace:
    """How long a body may keep us waiting: `grace` seconds, and one more for every `rate` bytes that came."""

    grace: float
    rate: int  # bytes a second

    def allows(self, read: int) -> float:
        return self.grace + read / self.rate


class Exchange:
    def __init__(self, receive: Receive, send: Send, limit: int, pace: Pace, request_id: str) -> None:
        """limit: bytes the body may have."""
        self._receive, self._send, self._limit, self._pace = receive, send, limit, pace
        self._request_id = request_id
        self._ahead: asyncio.Queue[Message] = asyncio.Queue()
        self._taken = asyncio.Event()
        self._read, self._held, self._waited, self._complete = 0, 0, 0.0, False
        self._replaced = False
        self.status: int | None = None  # of the answer, once it has begun
        self.headers: dict[str, str] = {"X-Request-ID": request_id, **SECURITY}

    @property
    def started(self) -> bool:
        """Whether an answer is on its way, so that none can take its place."""
        return self.status is not None

    def check_announced(self, length: str | None) -> None:
        """Raises BodyTooLarge for a Content-Length over the limit."""
        if length and length.isdecimal() and len(length) < 20 and int(length) <= self._limit:
            return
        if length and length != "0":
            raise self._too_large()

    async def watch(self) -> None:
        """Read until the caller leaves. Raises BodyTooLarge and SlowUpload; the app then sees no more."""
        while True:
            message = await self._next()
            self._ahead.put_nowait(message)
            if message["type"] == "http.disconnect":
                return
            await self._wait_for_reader(len(message.get("body", b"")))

    async def receive(self) -> Message:
        message = await self._ahead.get()
        self._held -= len(message.get("body", b""))
        self._taken.set()
        return message

    async def send(self, message: Message) -> None:
        """Pass the app's answer on, or a problem document in place of an error body that is not ours."""
        if message["type"] == "http.response.start":
            error = foreign_error(message)
            if error:
                self._replaced = True
                return await self._send_problem(error, Headers(raw=message["headers"]).get("allow"))
        if not self._replaced:
            await self.send_plain(message)

    async def send_plain(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(raw=message["headers"])
            headers.update(self.headers)
        await self._send(message)

    async def refuse(self, error: DetectorError) -> None:
        """Answer a problem instead of the app. What is left of a body that is too large or too slow stays unread."""
        if isinstance(error, BodyTooLarge | SlowUpload):
            self.headers["Connection"] = "close"
        await self._send_problem(error)

    async def _send_problem(self, error: DetectorError, allow: str | None = None) -> None:
        """allow: the methods that a 405 has to name (RFC 9110)."""
        stages.failed(error.code)
        response = problem_response(error, self._request_id)
        if allow:
            response.headers["Allow"] = allow
        response.headers["Cache-Control"] = "no-store"
        start = {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers}
        await self.send_plain(start)
        await self._send({"type": "http.response.body", "body": response.body})

    async def _next(self) -> Message:
        """One message; while the body is not complete the caller's time runs, ours does not."""
        if self._complete:
            return await self._receive()
        clock = asyncio.get_running_loop().time
        asked = clock()
        try:
            async with asyncio.timeout(self._pace.allows(self._read) - self._waited):
                message = await self._receive()
        except TimeoutError:
            raise SlowUpload from None
        self._waited += clock() - asked
        self._read += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        if self._read > self._limit:
            raise self._too_large()
        return message

    async def _wait_for_reader(self, size: int) -> None:
        self._held += size
        while self._held > _AHEAD:
            self._taken.clear()
            await self._taken.wait()

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"The request body is larger than the {self._limit:,} bytes allowed on this route.")


def foreign_error(start: Message) -> DetectorError | None:
    """What to answer instead of an error body that is not ours."""
    status: int = start["status"]
    if status < HTTPStatus.BAD_REQUEST or Headers(raw=start["headers"]).get("content-type") == PROBLEM_TYPE:
        return None
    return _FOREIGN.get(status, InternalError)()
