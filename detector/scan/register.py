"""Outcomes by content, so that a photo used in 500 listings is judged once: whoever asks first judges, others wait.

What is kept lies on a disk, not in memory; losing it costs time and no verdict.
"""

import json
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from detector.scan.results import Outcome

Waiter = Callable[[Outcome], None]
_TABLE = "CREATE TABLE IF NOT EXISTS outcomes (sha256 BLOB PRIMARY KEY, outcome TEXT NOT NULL) WITHOUT ROWID"
_UNSAVED = 200  # outcomes between two commits


class Memory(Protocol):
    """Where outcomes are kept, by SHA-256 in hex."""

    def recall(self, sha256: str) -> Outcome | None: ...

    def keep(self, sha256: str, outcome: Outcome) -> None: ...

    def close(self) -> None: ...


class SqliteMemory:
    """A file for the threads of one process."""

    def __init__(self, path: Path) -> None:
        self._lock, self._unsaved = threading.Lock(), 0
        self._connection = sqlite3.connect(path, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.execute(_TABLE)

    def recall(self, sha256: str) -> Outcome | None:
        with self._lock:
            cursor = self._connection.execute("SELECT outcome FROM outcomes WHERE sha256 = ?", (bytes.fromhex(sha256),))
            found = cursor.fetchone()
        return None if found is None else json.loads(found[0])

    def keep(self, sha256: str, outcome: Outcome) -> None:
        row = (bytes.fromhex(sha256), json.dumps(outcome))
        with self._lock:
            self._connection.execute("INSERT OR REPLACE INTO outcomes VALUES (?, ?)", row)
            self._unsaved += 1
        if self._unsaved >= _UNSAVED:
            self.commit()

    def commit(self) -> None:
        """What is not yet on the disk; a part's outcomes are when the part is."""
        with self._lock:
            self._connection.commit()
            self._unsaved = 0

    def close(self) -> None:
        with self._lock:
            self._connection.commit()
            self._connection.close()


class Register:
    """Who judges which content, among the threads of one process."""

    def __init__(self, memory: Memory) -> None:
        self._memory, self._lock = memory, threading.Lock()
        self._waiting: dict[str, list[Waiter]] = {}

    def claim(self, sha256: str, waiter: Waiter) -> bool:
        """True: the caller judges, and then has to `settle`. Else `waiter` gets the outcome, now or later."""
        with self._lock:
            if sha256 in self._waiting:
                self._waiting[sha256].append(waiter)
                return False
            self._waiting[sha256] = []
        known = self._memory.recall(sha256)
        if known is None:
            return True
        for one in (waiter, *self._release(sha256)):
            one(known)
        return False

    def settle(self, sha256: str, outcome: Outcome, keep: bool = True) -> None:
        """Tell the outcome to all who wait. keep: for later ones too."""
        if keep:
            self._memory.keep(sha256, outcome)
        for waiter in self._release(sha256):
            waiter(outcome)

    def _release(self, sha256: str) -> list[Waiter]:
        with self._lock:
            return self._waiting.pop(sha256)
