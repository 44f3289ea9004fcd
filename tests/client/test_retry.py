"""When a client tries again is a plain function of what happened."""

from datetime import UTC, datetime

import pytest

from detector.client.retry import Retry, read_retry_after
from detector.errors import DetectorError, InternalError, Overloaded, TimedOut, TooSmall


def test_pauses_double_up_to_the_longest_and_half_of_each_is_chance() -> None:
    retry = Retry(attempts=9, first=1, longest=4, deadline=1000)
    most = [retry.pause(Overloaded(), n, 0, lambda: 1.0) for n in range(1, 6)]
    least = [retry.pause(Overloaded(), n, 0, lambda: 0.0) for n in range(1, 6)]
    assert (most, least) == ([1, 2, 4, 4, 4], [0.5, 1, 2, 2, 2])


@pytest.mark.parametrize("error", [TooSmall(), InternalError(), TimedOut()])
def test_what_would_fail_again_is_not_tried_again(error: DetectorError) -> None:
    assert Retry().pause(error, 1, 0, lambda: 0.5) is None


def test_attempts_and_deadline_are_ends() -> None:
    retry = Retry(attempts=2, deadline=10)
    assert retry.pause(Overloaded(), 2, 0, lambda: 0.5) is None
    assert retry.pause(Overloaded(), 1, 9.9, lambda: 0.5) is None
    assert retry.pause(Overloaded(retry_after=11), 1, 0, lambda: 0.5) is None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        ("Tue, 24 Nov 2026 20:00:30 GMT", 30),
        ("Tue, 24 Nov 2026 19:00:00 GMT", 0),
        ("soon", None),
        ("-3", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(header: str | None, seconds: int | None) -> None:
    assert read_retry_after(header, lambda: datetime(2026, 11, 24, 20, tzinfo=UTC)) == seconds
