"""What both clients hold: address, key, limits, and how a request or a download is put to httpx."""

import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
from pydantic import SecretStr

from detector.client.flow import Rules, Send
from detector.client.retry import Retry
from detector.client.sources import Upload, name_of
from detector.client.wire import Reply
from detector.errors import EmptyImage, NotAFile, TooManyBytes

DEFAULT_ADDRESS = "http://localhost:3000"
KEY_HEADER = "X-API-Key"
MAX_DOWNLOAD = 10_485_760  # bytes; as much as the service takes, by default


def new_id() -> str:
    return uuid4().hex


@dataclass(frozen=True)
class Connection:
    """One service as seen from here. The key is shown as stars and goes to the service alone, never to other hosts."""

    address: str
    key: SecretStr | None
    max_download: int  # bytes of one fetched photo
    rules: Rules

    @classmethod
    def of(
        cls,
        address: str | None,
        api_key: str | SecretStr | None,
        timeout: float,
        retry: Retry,
        max_download: int,
        environ: Mapping[str, str] | None,
        clock: Callable[[], float],
        chance: Callable[[], float],
        ids: Callable[[], str],
    ) -> "Connection":
        """An argument wins over PPD_ADDRESS and PPD_API_KEY of the environment, and that over the default."""
        names = os.environ if environ is None else environ
        place = (address or names.get("PPD_ADDRESS") or DEFAULT_ADDRESS).rstrip("/")
        return cls(
            place,
            secret(api_key or names.get("PPD_API_KEY")),
            max_download,
            Rules(place, timeout, retry, clock, chance, ids),
        )

    def arguments(self, step: Send) -> dict[str, Any]:
        """Of httpx's `request`."""
        request, headers = step.request, {"X-Request-ID": step.request_id}
        if self.key:
            headers[KEY_HEADER] = self.key.get_secret_value()
        body: dict[str, Any] = {}
        if request.uploads:
            files = [(name, (upload.name, upload.data)) for name, upload in request.uploads]
            body = {"files": files, "data": request.fields}
        elif request.json:
            body = {"json": request.json}
        return {
            "method": request.method,
            "url": self.address + request.route,
            "headers": headers,
            "timeout": step.timeout,
            **body,
        }


def secret(key: str | SecretStr | None) -> SecretStr | None:
    if key is None or isinstance(key, SecretStr):
        return key
    return SecretStr(key) if key else None


def reply_of(response: httpx.Response) -> Reply:
    headers = response.headers
    return Reply(response.status_code, response.content, headers.get("retry-after"), headers.get("x-request-id"))


class Download:
    """A photo being fetched, counted as it comes; raises our own errors, which name the host and no more."""

    def __init__(self, address: str, max_bytes: int, deadline: float, clock: Callable[[], float] = time.monotonic):
        """deadline: seconds from now for the whole download."""
        self._host, self._name = urlsplit(address).hostname or address, name_of(address) or "photo"
        self._max_bytes, self._clock, self._end = max_bytes, clock, clock() + deadline
        self._parts: list[bytes] = []
        self._bytes = 0

    def begin(self, response: httpx.Response) -> None:
        if response.status_code != 200:
            raise NotAFile(f"The photo can't be fetched: {self._host} answered {response.status_code}.")

    def add(self, part: bytes) -> None:
        self._bytes += len(part)
        if self._bytes > self._max_bytes:
            raise TooManyBytes(f"The photo at {self._host} is larger than {self._max_bytes} bytes.")
        if self._clock() > self._end:
            raise NotAFile(f"The photo can't be fetched: {self._host} took too long.")
        self._parts.append(part)

    def end(self) -> Upload:
        if not self._bytes:
            raise EmptyImage(f"{self._host} answered with nothing.")
        return Upload(self._name, b"".join(self._parts))

    def failed(self) -> NotAFile:
        return NotAFile(f"The photo can't be fetched: {self._host} does not answer.")


default_random = random.random
default_clock = time.monotonic
