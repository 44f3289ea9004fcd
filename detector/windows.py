"""Counts by name in buckets of time: of this process, and of all of them through Redis where one is configured.

What the names mean is `drift`'s. Counting waits for nothing; what Redis could not take waits for it here, as counts.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from detector.link import Gone, Link

_CHUNK = 128  # buckets read from Redis in one go


@dataclass(frozen=True)
class Bucket:
    """What was counted between `start` (seconds since 1970) and the next bucket's."""

    start: float
    counts: Mapping[str, int]


@dataclass(frozen=True)
class History:
    """Buckets that hold something, newest first, and whether they are of every process."""

    buckets: tuple[Bucket, ...]
    shared: bool


class Windows:
    """The buckets of the last `span` seconds, `length` seconds each."""

    def __init__(
        self, scope: str, length: int, span: int, link: Link | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        """scope: names the buckets in Redis; processes of another scope don't share them."""
        self._scope, self._length, self._span = scope, length, span
        self._link, self._clock = link, clock
        self._here: dict[int, Counter[str]] = {}
        self._unsent: dict[int, Counter[str]] = {}

    def add(self, names: Iterable[str]) -> None:
        """Count one of each name, now."""
        number = self._now()
        found = Counter(names)
        kept = [self._here, self._unsent] if self._link else [self._here]
        for buckets in kept:
            if number not in buckets:
                self._forget(buckets)
            buckets.setdefault(number, Counter()).update(found)

    async def flush(self) -> None:
        """Tell Redis what it does not know yet; kept for the next time where it is gone."""
        if self._link is None or not self._unsent:
            return
        link, unsent = self._link, self._unsent
        self._unsent = {}

        async def tell() -> None:
            async with link.client.pipeline(transaction=True) as pipeline:
                for number, counts in unsent.items():
                    for name, count in counts.items():
                        pipeline.hincrby(self._key(number), name, count)
                    pipeline.expire(self._key(number), self._span + 2 * self._length)
                await pipeline.execute()

        try:
            await link.ask(tell)
        except Gone:
            for number, counts in unsent.items():
                self._unsent.setdefault(number, Counter()).update(counts)
            self._forget(self._unsent)

    async def read(self, enough: Callable[[Sequence[Bucket]], bool]) -> History:
        """The newest buckets until there are `enough`; of this process alone where Redis is gone or none."""
        try:
            return History(tuple(await self._read_shared(enough)), True)
        except Gone:
            self._forget(self._here)
            return History(tuple(self._bucket(*held) for held in sorted(self._here.items(), reverse=True)), False)

    async def _read_shared(self, enough: Callable[[Sequence[Bucket]], bool]) -> list[Bucket]:
        if self._link is None:
            raise Gone
        found: list[Bucket] = []
        newest, oldest = self._now(), self._oldest()
        for start in range(newest, oldest - 1, -_CHUNK):
            found += await self._chunk(range(start, max(start - _CHUNK, oldest - 1), -1))
            if enough(found):
                break
        return found

    async def _chunk(self, numbers: Sequence[int]) -> list[Bucket]:
        assert self._link is not None
        link = self._link

        async def ask() -> list[dict[bytes, bytes]]:
            async with link.client.pipeline(transaction=False) as pipeline:
                for number in numbers:
                    pipeline.hgetall(self._key(number))
                answers: list[dict[bytes, bytes]] = await pipeline.execute()
                return answers

        held = zip(numbers, await link.ask(ask), strict=True)
        try:
            return [
                self._bucket(number, {name.decode(): int(count) for name, count in counts.items()})
                for number, counts in held
                if counts
            ]
        except ValueError:  # not what we wrote
            raise Gone from None

    def _bucket(self, number: int, counts: Mapping[str, int]) -> Bucket:
        return Bucket(float(number * self._length), dict(counts))

    def _forget(self, buckets: dict[int, Counter[str]]) -> None:
        for number in [number for number in buckets if number < self._oldest()]:
            del buckets[number]

    def _now(self) -> int:
        return int(self._clock() // self._length)

    def _oldest(self) -> int:
        return int((self._clock() - self._span) // self._length) + 1

    def _key(self, number: int) -> str:
        assert self._link is not None
        return f"{self._link.prefix}:drift:{self._scope}:{number}"
