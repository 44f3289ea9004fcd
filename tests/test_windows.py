"""detector.windows: what was counted is there, for all processes where Redis is, and lost to none while it is gone."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from detector.link import Link
from detector.windows import Bucket, History, Windows
from tests.redis_server import RedisServer


def everything(_: Sequence[Bucket]) -> bool:
    return False


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_counts_lie_in_buckets_newest_first_and_go_with_time() -> None:
    clock = Clock()
    windows = Windows("s", 10, 60, clock=clock)
    for _ in range(8):
        windows.add(["a", "b"])
        windows.add(["a"])
        clock.now += 10
    found = asyncio.run(windows.read(everything))
    assert not found.shared
    assert [held.start for held in found.buckets] == [1070, 1060, 1050, 1040, 1030]
    assert all(held.counts == {"a": 2, "b": 1} for held in found.buckets)


def over_redis(
    server: RedisServer, work: Callable[[Windows, Windows], Awaitable[History]], span: int = 6000
) -> History:
    """Two processes' windows on one Redis."""

    async def scenario() -> History:
        clock = Clock()
        links = [Link(server.url, "test", 1.0, 0.05) for _ in range(2)]
        try:
            return await work(*(Windows("s", 10, span, link, clock) for link in links))
        finally:
            for link in links:
                await link.close()

    return asyncio.run(scenario())


def test_processes_share_what_they_counted(redis_server: RedisServer) -> None:
    async def work(one: Windows, two: Windows) -> History:
        one.add(["a"])
        two.add(["a", "b"])
        await one.flush()
        await two.flush()
        await two.flush()  # tells nothing twice
        return await one.read(everything)

    found = over_redis(redis_server, work)
    assert found.shared
    assert [held.counts for held in found.buckets] == [{"a": 2, "b": 1}]


def test_no_more_is_read_than_is_asked_for(redis_server: RedisServer) -> None:
    asked = []

    async def work(one: Windows, _: Windows) -> History:
        one.add(["a"])
        await one.flush()

        def enough(buckets: Sequence[Bucket]) -> bool:
            asked.append(len(buckets))
            return True

        return await one.read(enough)

    over_redis(redis_server, work)
    assert asked == [1]


def test_what_was_counted_while_redis_was_gone_is_told_later(redis_server: RedisServer) -> None:
    async def work(one: Windows, two: Windows) -> History:
        redis_server.stop()
        one.add(["a"])
        await one.flush()
        alone = await one.read(everything)
        assert not alone.shared and alone.buckets[0].counts == {"a": 1}
        redis_server.start()
        one.add(["a"])
        async with asyncio.timeout(10):
            while not (found := await two.read(everything)).shared or not found.buckets:
                await one.flush()
                await asyncio.sleep(0.02)
        return found

    assert over_redis(redis_server, work).buckets[0].counts == {"a": 2}


@pytest.mark.parametrize("value", ["not a number", b"\xff"])
def test_what_another_hand_wrote_is_not_believed(redis_server: RedisServer, value: str | bytes) -> None:
    async def work(one: Windows, two: Windows) -> History:
        one.add(["a"])
        await one.flush()
        link = Link(redis_server.url, "test", 1.0, 0.05)
        await link.client.hset("test:drift:s:100", "a", value)  # type: ignore[arg-type, misc]
        await link.close()
        return await one.read(everything)

    found = over_redis(redis_server, work)
    assert not found.shared and found.buckets[0].counts == {"a": 1}


def test_a_bucket_in_redis_goes_by_itself(redis_server: RedisServer) -> None:
    lives = []

    async def work(one: Windows, _: Windows) -> History:
        one.add(["a"])
        await one.flush()
        link = Link(redis_server.url, "test", 1.0, 0.05)
        lives.append(await link.client.ttl("test:drift:s:100"))
        await link.close()
        return await one.read(everything)

    over_redis(redis_server, work, span=60)
    assert 60 < lives[0] <= 80
