"""Link: a Redis that may be gone, and the manners of living without it.

What is asked of Redis, and what to do instead, is for `ratelimit` and `cache` to know. One slow or dead Redis costs
the requests under way one timeout; until it answers a ping again, every other request is told at once.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import RedisError

from detector import metrics

logger = logging.getLogger("bentoml.detector")
T = TypeVar("T")


class Gone(Exception):
    """Redis does not answer; go on without it."""


class Link:
    """One process's connections to one Redis, used from one event loop."""

    def __init__(self, url: str, prefix: str, timeout: float, interval: float, connections: int = 16) -> None:
        """timeout: seconds one question may take. interval: seconds between pings while Redis is gone."""
        self.url, self.prefix = url, prefix
        self.pool = BlockingConnectionPool.from_url(
            url,
            max_connections=connections,
            timeout=timeout,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            # Once more where a connection had been closed under us, never after a timeout (redis-py's own habit is
            # several tries, each with its timeout).
            retry=Retry(NoBackoff(), 1, supported_errors=(ConnectionLost,)),
        )
        self.client: Redis = Redis(connection_pool=self.pool)
        self._timeout, self._interval = timeout, interval
        self._recovery: asyncio.Task[None] | None = None
        self._up = metrics.REDIS_UP.labels(prefix)
        self._up.set(1)

    @property
    def gone(self) -> bool:
        return self._recovery is not None

    async def ask(self, question: Callable[[], Awaitable[T]]) -> T:
        """The answer to `question`; raises Gone where Redis gives none."""
        if self.gone:
            raise Gone
        try:
            async with asyncio.timeout(self._timeout):
                return await question()
        except (RedisError, OSError) as error:  # TimeoutError is an OSError
            self._lose(error)
            raise Gone from None

    async def close(self) -> None:
        if self._recovery:
            self._recovery.cancel()
            await asyncio.gather(self._recovery, return_exceptions=True)
        await self.client.aclose()
        await self.pool.disconnect()

    def _lose(self, error: Exception) -> None:
        if self.gone:
            return
        self._recovery = asyncio.create_task(self._recover())
        self._up.set(0)
        metrics.REDIS_LOSSES.inc()
        logger.warning(
            "Redis is gone (%s); limits and cache do without, next try in %s s", type(error).__name__, self._interval
        )

    async def _recover(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            try:
                async with asyncio.timeout(self._timeout):
                    await self.client.ping()
            except (RedisError, OSError):
                continue
            break
        self._recovery = None
        self._up.set(1)
        logger.warning("Redis answers again")
