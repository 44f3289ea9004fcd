"""An address -> a photo's bytes, tried again where that may help; refusals in the product's own errors.

Addresses in a manifest may be a stranger's: only plain files, the object stores and, where allowed, the web are asked.
"""

import errno
import os
import random
import stat
import time
from collections.abc import Callable
from pathlib import Path

from detector.client.retry import Retry
from detector.errors import AddressRefused, PhotoNotFound, SourceUnavailable, TooManyBytes, Unfetched
from detector.scan.storage import locate, protocol_of
from detector.scan.web import Web

PLAIN = frozenset({"file", "s3", "gs", "gcs"})  # kinds of addresses that a manifest may name
_PASSING = {errno.EIO, errno.ETIMEDOUT, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ENETDOWN}


class Fetcher:
    """Reads one photo at a time for any number of threads."""

    def __init__(
        self,
        max_bytes: int,
        web: Web | None = None,
        also: frozenset[str] = frozenset(),
        retry: Retry | None = None,
        sleep: Callable[[float], None] = time.sleep,
        random: Callable[[], float] = random.random,
    ) -> None:
        """web: None where web addresses are refused. also: the kind of the scan's own source."""
        self._max_bytes, self._web, self._kinds = max_bytes, web, PLAIN | also
        self._retry = retry or Retry(attempts=5, deadline=60.0)
        self._sleep, self._random = sleep, random

    def fetch(self, address: str) -> bytes:
        """Raises an Unfetched, or TooManyBytes before a larger file is read to its end."""
        started, attempts = time.monotonic(), 0
        while True:
            try:
                return self._once(address)
            except Unfetched as error:
                attempts += 1
                pause = self._retry.pause(error, attempts, time.monotonic() - started, self._random)
                if pause is None:
                    raise
                self._sleep(pause)

    def _once(self, address: str) -> bytes:
        if not address:
            raise PhotoNotFound("The manifest names no photo here.")
        protocol = protocol_of(address)
        if protocol in ("http", "https"):
            if self._web is None:
                raise AddressRefused("Web addresses are fetched only with --allow-http.")
            return self._web.fetch(address)
        if protocol not in self._kinds or ("::" in address and protocol in PLAIN - {"file"}):
            raise AddressRefused(f"Photos are not fetched from {protocol}:// addresses here.")
        try:
            data = self._local(Path(address.removeprefix("file://"))) if protocol == "file" else self._remote(address)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):
            raise PhotoNotFound("There is no such photo.") from None
        except PermissionError:
            raise AddressRefused("The photo may not be read.") from None
        except OSError as error:
            raise _passing_or_not(error, protocol) from None
        if len(data) > self._max_bytes:
            raise TooManyBytes(f"The photo's file has more than the {self._max_bytes:,} bytes that are allowed.")
        return data

    def _local(self, path: Path) -> bytes:
        """Only a regular file: a pipe or a device would keep the scan waiting."""
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise IsADirectoryError
            return file.read(self._max_bytes + 1)

    def _remote(self, address: str) -> bytes:
        place = locate(address)
        with place.fs.open(place.path, "rb") as file:
            data: bytes = file.read(self._max_bytes + 1)
        return data


def _passing_or_not(error: OSError, protocol: str) -> Unfetched:
    """A disk's own complaints are final; what a network says may pass."""
    if protocol == "file" and error.errno not in _PASSING:
        return PhotoNotFound("The photo's file can't be read.")
    if "ACCESS_DENIED" in str(error):  # Arrow has no class of its own for it
        return AddressRefused("The photo may not be read.")
    return SourceUnavailable("The photo's source does not answer.")
