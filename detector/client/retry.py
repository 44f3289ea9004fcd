"""When to try again, and after how long: a plain function of what happened so far.

Only what may succeed unchanged is tried again: no connection, 429 and 503. Judging a photo changes nothing on the
service, so sending the same bytes twice is safe.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from detector.errors import DetectorError

_AGAIN = {429, 503}


@dataclass(frozen=True)
class Retry:
    """Exponential pauses with jitter, until `attempts` are made or `deadline` would pass; times in seconds."""

    attempts: int = 6
    first: float = 0.5
    longest: float = 20.0
    deadline: float = 120.0

    def pause(self, error: DetectorError, attempts: int, elapsed: float, random: Callable[[], float]) -> float | None:
        """Seconds to wait after the `attempts`-th attempt failed, or None to give up.

        Half of each pause is random, so that callers who failed together do not come back together; Retry-After is
        a lower bound.
        """
        if error.status not in _AGAIN or attempts >= self.attempts:
            return None
        backoff = min(self.longest, self.first * 2.0 ** (attempts - 1))
        wait = (error.retry_after or 0) + backoff * (0.5 + 0.5 * random())
        return wait if elapsed + wait < self.deadline else None


ONCE = Retry(attempts=1)


def read_retry_after(header: str | None, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> int | None:
    """Seconds that a Retry-After header asks for, as a number or as a date; None where it can't be read."""
    if not header:
        return None
    if header.isdecimal():
        return int(header)
    try:
        due = parsedate_to_datetime(header)
    except ValueError:
        return None
    if due.tzinfo is None:
        due = due.replace(tzinfo=UTC)
    return max(0, round((due - now()).total_seconds()))
