"""Budgets: how much a caller may still ask of a route, counted with `limits` in a moving window.

Where Redis is configured all processes share a budget; while it is gone each goes on as `on_loss` says. Who the
caller is, `auth` decides.
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal

from limits import RateLimitItem, WindowStats, parse
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter as SharedWindow
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter as LocalWindow

from detector.errors import BudgetUnavailable
from detector.link import Gone, Link

OnLoss = Literal["local", "open", "closed"]


@dataclass(frozen=True)
class Standing:
    """How a caller stands after asking; times in seconds."""

    allowed: bool
    route: str
    limit: int
    remaining: int
    reset: int  # until part of the budget is back
    window: int

    def headers(self) -> dict[str, str]:
        """The IETF draft's fields, and the three single ones most clients read."""
        return {
            "RateLimit-Policy": f'"{self.route}";q={self.limit};w={self.window}',
            "RateLimit": f'"{self.route}";r={self.remaining};t={self.reset}',
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(self.reset),
        }


class Budgets:
    """Every route's budget per caller; a route that `rates` does not name has none."""

    def __init__(
        self,
        rates: Mapping[str, str],
        link: Link | None = None,
        on_loss: OnLoss = "local",
        retry_after: int = 2,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """rates: for example {"predict": "600/minute"}. on_loss: without Redis count in this process (local), count
        nothing (open), or refuse (closed)."""
        self._rates = {route: parse(rate) for route, rate in rates.items()}
        self._link, self._on_loss, self._retry_after, self._clock = link, on_loss, retry_after, clock
        self._local = LocalWindow(MemoryStorage())
        self._shared = SharedWindow(_storage(link)) if link else None

    async def spend(self, route: str, caller: str, cost: int = 1) -> Standing | None:
        """Take `cost` from the budget where it has that much; None where nothing is counted.

        Raises BudgetUnavailable where Redis is gone and nothing may pass uncounted.
        """
        rate = self._rates.get(route)
        if rate is None:
            return None
        who = hashlib.sha256(caller.encode()).hexdigest()[:32]  # of one length, and no name in Redis
        try:
            allowed, stats = await self._count(rate, route, who, cost)
        except Gone:
            if self._on_loss == "closed":
                raise BudgetUnavailable(retry_after=self._retry_after) from None
            if self._on_loss == "open":
                return None
            allowed, stats = self._count_here(rate, route, who, cost)
        return read_standing(allowed, route, rate, stats, self._clock())

    async def _count(self, rate: RateLimitItem, route: str, who: str, cost: int) -> tuple[bool, WindowStats]:
        if self._link is None or self._shared is None:
            return self._count_here(rate, route, who, cost)
        shared = self._shared

        async def question() -> tuple[bool, WindowStats]:
            allowed = await shared.hit(rate, route, who, cost=cost)
            return allowed, await shared.get_window_stats(rate, route, who)

        return await self._link.ask(question)

    def _count_here(self, rate: RateLimitItem, route: str, who: str, cost: int) -> tuple[bool, WindowStats]:
        return self._local.hit(rate, route, who, cost=cost), self._local.get_window_stats(rate, route, who)


def read_standing(allowed: bool, route: str, rate: RateLimitItem, stats: WindowStats, now: float) -> Standing:
    """A refused caller is told to wait a second at least, one with a whole budget nothing."""
    remaining, window = max(0, stats.remaining), rate.get_expiry()
    reset = min(window, max(0, ceil(stats.reset_time - now)))
    return Standing(allowed, route, rate.amount, remaining, reset if allowed else max(1, reset), window)


def _storage(link: Link) -> RedisStorage:
    """`limits` on the link's own connections; its address is only parsed, never dialled."""
    options: dict[str, Any] = {"connection_pool": link.pool}  # its own types know only numbers and strings
    return RedisStorage("async+redis://", implementation="redispy", key_prefix=f"{link.prefix}:limits", **options)
