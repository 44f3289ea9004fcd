"""Verdicts by what was asked: the photo's bytes, the model and every option that bears on the answer.

Identical photos in flight are judged once. Refusals are not kept. Explanations are not either: their pictures are a
hundred times a verdict's size. Knows neither HTTP nor how a verdict is made.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Generic, TypeVar

from cachetools import TTLCache
from pydantic import ValidationError

from detector import metrics
from detector.link import Gone, Link
from detector.schema import Verdict

T = TypeVar("T")


def scope(model_hash: str, options: Mapping[str, Any]) -> str:
    """Where verdicts of one model under one set of options live; another model or option never reads them."""
    text = json.dumps([model_hash, options], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Flights(Generic[T]):
    """Single flight: whoever asks for what is being made waits for it.

    One who leaves does not harm the others; what nobody waits for any more is dropped.
    """

    def __init__(self) -> None:
        self._flights: dict[str, tuple[asyncio.Task[T], list[int]]] = {}  # key -> task, [waiting]

    async def join(self, key: str, make: Callable[[], Awaitable[T]]) -> tuple[T, bool]:
        """What `make` makes, and whether somebody else had asked for it first."""
        found = self._flights.get(key)
        if found is None:
            task = asyncio.ensure_future(self._make(key, make))
            flight = self._flights[key] = (task, [0])
        else:
            flight = found
        task, waiting = flight
        waiting[0] += 1
        try:
            return await asyncio.shield(task), found is not None
        finally:
            waiting[0] -= 1
            if not waiting[0] and not task.done():
                self._flights.pop(key, None)
                task.cancel()

    async def _make(self, key: str, make: Callable[[], Awaitable[T]]) -> T:
        mine = asyncio.current_task()
        try:
            return await make()
        finally:
            if key in self._flights and self._flights[key][0] is mine:
                del self._flights[key]


class VerdictCache:
    """Least recently used out first, in this process; in Redis too where there is a link, for all processes."""

    def __init__(
        self,
        scope: str,
        entries: int,
        ttl: int,
        link: Link | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """entries: verdicts kept in this process (about 3 KB each). ttl: seconds, here and in Redis."""
        self._scope, self._ttl, self._link = scope, ttl, link
        self._here: TTLCache[str, Verdict] = TTLCache(entries, ttl, clock)
        self._flights: Flights[tuple[Verdict, bool]] = Flights()

    async def recall(self, sha256: str, make: Callable[[], Awaitable[Verdict]]) -> tuple[Verdict, bool]:
        """The verdict on these bytes, and whether it was there already or being made for another."""
        key = f"{self._scope}:{sha256}"
        kept = self._here.get(key)
        if kept is not None:
            metrics.CACHE.labels("memory", "hit").inc()
            return kept, True
        (verdict, hit), joined = await self._flights.join(key, lambda: self._look_or_make(key, make))
        metrics.CACHE.labels("memory", "joined" if joined else "miss").inc()
        return verdict, hit or joined

    async def _look_or_make(self, key: str, make: Callable[[], Awaitable[Verdict]]) -> tuple[Verdict, bool]:
        shared = await self._ask_redis(key)
        verdict = shared or await make()
        self._here[key] = verdict
        if shared is None:
            await self._tell_redis(key, verdict)
        return verdict, shared is not None

    async def _ask_redis(self, key: str) -> Verdict | None:
        if self._link is None:
            return None
        link = self._link
        try:
            stored = await link.ask(lambda: link.client.get(self._name(key)))
            verdict = Verdict.model_validate_json(stored) if stored else None
        except (Gone, ValidationError):  # what another release wrote may not be a verdict of this one
            return None
        metrics.CACHE.labels("redis", "hit" if verdict else "miss").inc()
        return verdict

    async def _tell_redis(self, key: str, verdict: Verdict) -> None:
        if self._link is None:
            return
        link, document = self._link, verdict.model_dump_json()
        with suppress(Gone):
            await link.ask(lambda: link.client.set(self._name(key), document, ex=self._ttl))

    def _name(self, key: str) -> str:
        assert self._link is not None
        return f"{self._link.prefix}:verdict:{key}"
