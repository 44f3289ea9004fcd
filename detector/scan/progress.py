"""How far a scan is: a bar with rate and time left on a terminal, a line now and then in a log.

The rate is of photos done lately; knows nothing of what they are.
"""

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol, TextIO

_EVERY = 30.0  # seconds between two lines
_LATELY = 60.0  # seconds a rate looks back


class Progress(Protocol):
    def advance(self, photos: int = 1) -> None: ...

    def close(self) -> None: ...


def open_progress(total: int, done: int, quiet: bool = False, out: TextIO = sys.stderr) -> Progress:
    """total, done: photos of the catalogue, and of them judged in earlier sittings."""
    if quiet:
        return Silence()
    return Bar(total, done) if out.isatty() else Lines(total, done, out)


class Silence:
    def advance(self, photos: int = 1) -> None:
        pass

    def close(self) -> None:
        pass


class Bar:
    def __init__(self, total: int, done: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._meter = Meter(total, done)
        self._progress = Progress(
            TextColumn("photos"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            speed_estimate_period=_LATELY,
        )
        self._task = self._progress.add_task("", total=total, completed=done, rate="")
        self._progress.start()

    def advance(self, photos: int = 1) -> None:
        self._meter.advance(photos)
        self._progress.update(self._task, advance=photos, rate=f"{self._meter.rate:.1f}/s")

    def close(self) -> None:
        self._progress.stop()


class Lines:
    """For logs: the first photos, then every half minute, then the end."""

    def __init__(self, total: int, done: int, out: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._meter, self._out, self._clock = Meter(total, done, clock), out, clock
        self._told = clock()

    def advance(self, photos: int = 1) -> None:
        self._meter.advance(photos)
        if self._clock() - self._told >= _EVERY:
            self._told = self._clock()
            self._say()

    def close(self) -> None:
        self._say()

    def _say(self) -> None:
        print(self._meter, file=self._out, flush=True)


class Meter:
    """Counts photos; `str` is a line about them."""

    def __init__(self, total: int, done: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._done, self._clock = total, done, clock
        self._marks = deque([(clock(), done)])

    def advance(self, photos: int) -> None:
        self._done += photos
        now = self._clock()
        if now - self._marks[-1][0] >= 1.0:
            self._marks.append((now, self._done))
            while len(self._marks) > 2 and now - self._marks[0][0] > _LATELY:
                self._marks.popleft()

    @property
    def rate(self) -> float:
        """Photos a second, of late."""
        then, before = self._marks[0]
        return (self._done - before) / max(self._clock() - then, 1e-9)

    def __str__(self) -> str:
        share = 100 * self._done / max(self._total, 1)
        line = f"{self._done:,} of {self._total:,} photos ({share:.0f} %), {self.rate:.1f}/s"
        left = self._total - self._done
        return f"{line}, {spell(left / self.rate)} left" if left and self.rate > 0 else line


def spell(seconds: float) -> str:
    """A time for people: 40 s, 12 min, 3 h 20 min, 4 days."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if hours < 48 else f"{hours / 24:.0f} days"
