"""Photos kept beside their decisions, where an operator wants them: one file by SHA-256, for as long as a record is.

A thread of its own writes, so that no answer waits for a disk; what can't be written is lost and counted. Who may look
into the folder is the operator's business.
"""

import asyncio
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from detector import metrics
from detector.errors import InvalidSettings

logger = logging.getLogger("bentoml.detector")
_PART = ".part"  # of a file that is being written
_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "AVIF": ".avif"}


class Photos:
    """The photos of one folder, which several processes may share."""

    def __init__(
        self,
        folder: Path,
        retention: float,
        clock: Callable[[], float] = time.time,
        *,
        waiting: int = 268_435_456,
        sweep: float = 600.0,
    ) -> None:
        """retention: seconds since a photo was last judged. sweep: seconds between removals of old photos.

        waiting: bytes that may wait for the disk; a photo beyond them is lost.
        """
        self._folder, self._retention, self._clock, self._sweep = folder, retention, clock, sweep
        self._jobs: queue.SimpleQueue[tuple[str, str, bytes] | None] = queue.SimpleQueue()
        self._room, self._lock = waiting, threading.Lock()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="photos", daemon=True)
        self._thread.start()

    def keep(self, sha256: str, format: str, data: bytes) -> None:
        """Keep the photo, soon; never waits and never raises."""
        if self._take(len(data)):
            self._jobs.put((sha256, format, data))
        else:
            metrics.PHOTOS.labels("lost").inc()

    async def close(self) -> None:
        """Write what waits, for a few seconds at most."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._jobs.put(None)
        self._thread.join(5.0)

    def _take(self, size: int) -> bool:
        """Take room for bytes that wait, or give it back (a negative size)."""
        with self._lock:
            fits = size <= self._room
            self._room -= size if fits else 0
        return fits

    def _run(self) -> None:
        due = 0.0
        while True:
            if time.monotonic() >= due:
                self._try(self._forget)
                due = time.monotonic() + self._sweep
            try:
                job = self._jobs.get(timeout=max(0.0, due - time.monotonic()))
            except queue.Empty:
                continue
            if job is None:
                return
            kept = self._try(partial(self._write, *job))
            self._take(-len(job[2]))
            metrics.PHOTOS.labels("kept" if kept else "lost").inc()

    def _try(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except Exception as error:  # the thread lives as long as the process
            if not self._failing:
                logger.warning("photos can't be kept (%s); verdicts are given without", type(error).__name__)
            self._failing = True
            return False
        self._failing = False
        return True

    def _write(self, sha256: str, format: str, data: bytes) -> None:
        """Whole or not at all; a photo that is there already is only as young again."""
        path = self._folder / sha256[:2] / (sha256 + _SUFFIXES[format])
        if not path.exists():
            path.parent.mkdir(mode=0o700, exist_ok=True)
            part = path.with_name(f"{sha256}-{os.getpid()}{_PART}")
            with os.fdopen(os.open(part, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
                file.write(data)
            part.replace(path)
        os.utime(path, (self._clock(), self._clock()))

    def _forget(self) -> None:
        oldest = self._clock() - self._retention
        for path in _files(self._folder):
            if path.stat().st_mtime < oldest:
                path.unlink(missing_ok=True)


def _files(folder: Path) -> Iterator[Path]:
    """What this module wrote, and nothing else that may lie there; halves of a lost process too."""
    suffixes = {*_SUFFIXES.values(), _PART}
    return (path for path in folder.glob("[0-9a-f][0-9a-f]/*") if len(path.stem) >= 64 and path.suffix in suffixes)


def prepare(folder: Path) -> None:
    """Make the folder, for the service's user alone; raises InvalidSettings where nothing can be written there."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        probe = folder / f"{os.getpid()}{_PART}"
        probe.touch()
        probe.unlink()
    except OSError:
        raise InvalidSettings(f"Configuration: decisions.photos: {folder} is no folder that can be written.") from None
