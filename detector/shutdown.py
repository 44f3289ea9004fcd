"""The order in which processes end: whoever is needed goes last.

A supervisor sends SIGTERM to all its processes at once; the scorer would be gone before the requests in flight had
been scored. Knows processes and signals, not what they do.
"""

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from types import FrameType
from typing import Any

import psutil

_STEP = 0.05  # seconds between two looks


def outlive(needed: Callable[[], bool], grace: float, address: Path | None = None) -> None:
    """From now on SIGTERM takes effect once `needed` says no, at the latest after `grace` seconds.

    address: the unix socket this process is reached at; it gets its name back where the supervisor took it away.
    Call it from the main thread, after whoever handles SIGTERM now has been installed.
    """
    final: Any = signal.getsignal(signal.SIGTERM)
    kept = _second_name(address) if address else None

    def wait(number: int) -> None:
        deadline = time.monotonic() + grace
        if address and kept:
            _restore(address, kept)
        while needed() and time.monotonic() < deadline:
            time.sleep(_STEP)
        if address and kept:
            shutil.rmtree(address.parent, ignore_errors=True)
            shutil.rmtree(kept.parent, ignore_errors=True)
        if callable(final):
            final(number, None)

    def on_term(number: int, _: FrameType | None) -> None:
        threading.Thread(target=wait, args=(number,), daemon=True).start()

    signal.signal(signal.SIGTERM, on_term)


def force_after(grace: float) -> None:
    """From now on SIGTERM also ends this process for good `grace` seconds later, whatever it still does."""
    final: Any = signal.getsignal(signal.SIGTERM)

    def on_term(number: int, frame: FrameType | None) -> None:
        late = threading.Timer(grace, os._exit, (1,))
        late.daemon = True
        late.start()
        if callable(final):
            final(number, frame)

    signal.signal(signal.SIGTERM, on_term)


def _second_name(address: Path) -> Path | None:
    """A hard link to a socket, outside its folder; None where the file system has none."""
    kept = Path(mkdtemp(prefix="kept-", dir=address.parent.parent)) / address.name
    try:
        kept.hardlink_to(address)
    except OSError:
        kept.parent.rmdir()
        return None
    return kept


def _restore(address: Path, kept: Path) -> None:
    with suppress(OSError):  # another worker may be first
        address.parent.mkdir(mode=0o700, exist_ok=True)
        address.hardlink_to(kept)


def sibling_runs(word: str) -> bool:
    """Whether another live child of this process's parent was started with `word` among its arguments."""
    try:
        siblings = psutil.Process(os.getppid()).children()
    except psutil.NoSuchProcess:
        return False
    return any(_runs(one, word) for one in siblings if one.pid != os.getpid())


def _runs(process: psutil.Process, word: str) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and word in process.cmdline()
    except psutil.Error:
        return False
