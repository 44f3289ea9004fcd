"""What was decided, kept for an appeal: verdicts by id in one SQLite file, without the photo or its name.

A thread of its own writes and reads, so that no answer waits for a disk; a record that can't be written is lost,
counted and told once. Who may read a record is service.py's business.
"""

import asyncio
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from detector import metrics
from detector.errors import DecisionsUnavailable, InvalidSettings
from detector.schema import Correction, Decision, Label, Truth

logger = logging.getLogger("bentoml.detector")
T = TypeVar("T")
_BUSY = 1.0  # seconds to wait for another process that writes
_DELETED = 1000  # records let go in one go, so that other processes wait for none of it
_TABLE = """
CREATE TABLE IF NOT EXISTS decisions
    (id TEXT PRIMARY KEY, time REAL NOT NULL, document TEXT NOT NULL, correction TEXT);
CREATE INDEX IF NOT EXISTS decisions_by_time ON decisions (time);
CREATE INDEX IF NOT EXISTS decisions_labelled ON decisions (time) WHERE correction IS NOT NULL;
"""


@dataclass(frozen=True)
class _Job:
    """One thing to do with the file; without a future nobody waits for it."""

    work: Callable[[sqlite3.Connection], Any]
    future: Future[Any] | None = None


class Decisions:
    """The records of one file, which several processes may share."""

    def __init__(
        self,
        path: Path,
        retention: float,
        clock: Callable[[], float] = time.time,
        *,
        waiting: int = 1000,
        rest: float = 5.0,
        sweep: float = 600.0,
    ) -> None:
        """retention: seconds. waiting: records that may wait for the disk; one more is lost.

        rest: seconds in which nothing is written after a failure. sweep: seconds between removals of old records.
        """
        self._path, self._retention, self._clock = path, retention, clock
        self._rest, self._sweep = rest, sweep
        self._jobs: queue.Queue[_Job | None] = queue.Queue(waiting)
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._rests_until = float("-inf")
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="decisions", daemon=True)
        self._thread.start()

    def keep(self, decision: Decision) -> None:
        """Keep the record, soon; never waits and never raises."""
        try:
            self._jobs.put_nowait(_Job(lambda connection: self._insert(connection, decision)))
        except queue.Full:
            metrics.DECISIONS.labels("lost").inc()

    async def find(self, id: str) -> Decision | None:
        """None where there is no such record (any more); raises DecisionsUnavailable."""
        return await self._ask(lambda connection: self._select(connection, id))

    async def correct(self, id: str, correction: Correction) -> Decision | None:
        """Put a person's correction beside the record, in place of an earlier one."""
        return await self._ask(lambda connection: self._update(connection, id, correction))

    async def close(self) -> None:
        """Write what waits, for a few seconds at most."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        try:
            self._jobs.put(None, timeout=2 * _BUSY)
        except queue.Full:
            return
        self._thread.join(5.0)

    async def _ask(self, work: Callable[[sqlite3.Connection], T]) -> T:
        future: Future[T] = Future()
        try:
            self._jobs.put_nowait(_Job(work, future))
        except queue.Full:
            raise DecisionsUnavailable(retry_after=round(self._rest)) from None
        return await asyncio.wrap_future(future)

    def _run(self) -> None:
        due = 0.0
        while True:
            if time.monotonic() >= due:
                self._do(_Job(self._forget))
                due = time.monotonic() + self._sweep
            try:
                job = self._jobs.get(timeout=max(0.0, due - time.monotonic()))
            except queue.Empty:
                continue
            if job is None:
                return self._disconnect()
            self._do(job)

    def _do(self, job: _Job) -> None:
        """Do it, whatever happens: the thread lives as long as the process."""
        if job.future and not job.future.set_running_or_notify_cancel():
            return
        if not job.future and time.monotonic() < self._rests_until:
            return metrics.DECISIONS.labels("lost").inc()
        try:
            answer = job.work(self._connect())
        except (sqlite3.Error, OSError) as error:
            self._fail(job, error)
        except Exception as error:
            logger.exception("a decision record could not be handled")
            self._refuse(job, error)
        else:
            self._recover()
            if job.future:
                job.future.set_result(answer)

    def _fail(self, job: _Job, error: Exception) -> None:
        self._disconnect()
        self._rests_until = time.monotonic() + self._rest
        if not self._failing:
            kind = type(error).__name__
            logger.warning(
                "decisions can't be kept (%s); verdicts are given without, next try in %s s", kind, self._rest
            )
        self._failing = True
        self._refuse(job, DecisionsUnavailable(retry_after=round(self._rest)))

    @staticmethod
    def _refuse(job: _Job, error: Exception) -> None:
        if job.future:
            job.future.set_exception(error)
        else:
            metrics.DECISIONS.labels("lost").inc()

    def _recover(self) -> None:
        if self._failing:
            logger.warning("decisions are kept again")
        self._failing, self._rests_until = False, float("-inf")

    def _connect(self) -> sqlite3.Connection:
        """The open file, opened anew where it was removed or replaced: what goes there would be lost in silence."""
        if self._connection and self._path.exists() and self._path.stat().st_ino == self._inode:
            return self._connection
        self._disconnect()
        self._connection = _open(self._path)
        self._inode = self._path.stat().st_ino
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection:
            connection.close()

    def _insert(self, connection: sqlite3.Connection, decision: Decision) -> None:
        row = (decision.id, decision.time.timestamp(), decision.model_dump_json(exclude={"correction"}))
        connection.execute("INSERT INTO decisions (id, time, document) VALUES (?, ?, ?)", row)
        metrics.DECISIONS.labels("kept").inc()

    def _select(self, connection: sqlite3.Connection, id: str) -> Decision | None:
        query = "SELECT document, correction FROM decisions WHERE id = ? AND time >= ?"
        row = connection.execute(query, (id, self._oldest())).fetchone()
        if row is None:
            return None
        correction = Correction.model_validate_json(row[1]) if row[1] else None
        return Decision.model_validate_json(row[0]).model_copy(update={"correction": correction})

    def _update(self, connection: sqlite3.Connection, id: str, correction: Correction) -> Decision | None:
        connection.execute("UPDATE decisions SET correction = ? WHERE id = ?", (correction.model_dump_json(), id))
        corrected = self._select(connection, id)
        if corrected:
            metrics.FEEDBACK.labels(corrected.verdict.label, correction.label).inc()
            self._tell_precision(connection)
        return corrected

    def _forget(self, connection: sqlite3.Connection) -> None:
        """Remove what is older than the retention allows."""
        query = "DELETE FROM decisions WHERE id IN (SELECT id FROM decisions WHERE time < ? LIMIT ?)"
        while connection.execute(query, (self._oldest(), _DELETED)).rowcount == _DELETED:
            pass
        self._tell_precision(connection)

    def _tell_precision(self, connection: sqlite3.Connection) -> None:
        """How far people agree, of the records they labelled."""
        query = (
            "SELECT json_extract(document, '$.verdict.label'), json_extract(correction, '$.label'), count(*) "
            "FROM decisions WHERE correction IS NOT NULL AND time >= ? GROUP BY 1, 2"
        )
        found = {(predicted, actual): n for predicted, actual, n in connection.execute(query, (self._oldest(),))}
        for predicted, actual in product(get_args(Label), get_args(Truth)):
            metrics.LABELLED.labels(predicted, actual).set(found.get((predicted, actual), 0))
        for label in get_args(Truth):
            total = sum(found.get((label, actual), 0) for actual in get_args(Truth))
            metrics.LIVE_PRECISION.labels(label).set(found.get((label, label), 0) / total if total else float("nan"))

    def _oldest(self) -> float:
        return self._clock() - self._retention


def prepare(path: Path) -> None:
    """Make the file and its table before anything serves; raises InvalidSettings where it can't be."""
    try:
        _open(path).close()
    except (sqlite3.Error, OSError):
        raise InvalidSettings(f"Configuration: decisions.path: {path} can't be opened as a SQLite file.") from None


def read_labelled(path: Path) -> Iterator[Decision]:
    """Every record that a person labelled; raises OSError, in our own words, where the file can't be read."""
    query = "SELECT document, correction FROM decisions WHERE correction IS NOT NULL ORDER BY time"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY)) as connection:
            for document, correction in connection.execute(query):
                said = Correction.model_validate_json(correction)
                yield Decision.model_validate_json(document).model_copy(update={"correction": said})
    except (sqlite3.Error, ValidationError):
        raise OSError("is no file of decision records, or can't be read") from None


def _open(path: Path) -> sqlite3.Connection:
    """Only the service's own user may read the file; a deleted record is overwritten."""
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    connection = sqlite3.connect(path, timeout=_BUSY, isolation_level=None)
    try:
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "secure_delete = ON"):
            with closing(connection.execute(f"PRAGMA {pragma}")):
                pass
        connection.executescript(_TABLE)
    except sqlite3.Error:
        connection.close()
        raise
    return connection
