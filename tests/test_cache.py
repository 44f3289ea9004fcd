"""A verdict is made once, remembered for what it was made of, and never for anything else."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from detector.cache import Flights, VerdictCache, scope
from detector.errors import ModelUnavailable
from detector.link import Link
from detector.schema import Verdict
from tests.redis_server import RedisServer


def verdict(request_id: str = "r") -> Verdict:
    return Verdict.model_validate(
        {
            "label": "real",
            "probability": 0.1,
            "confidence": "high",
            "thresholds": {"real": 0.3, "ai_generated": 0.9},
            "model": {"name": "m", "version": "1", "hash": "h", "profile": "accurate"},
            "image": {"width": 1, "height": 1, "format": "PNG", "bytes": 1, "sha256": "s", "animated": False},
            "timing": {"decode": 1.0, "score": 1.0, "total": 2.0},
            "request_id": request_id,
        }
    )


class Judge:
    """Counts how often it was asked; waits for `release` where there is one."""

    def __init__(self, release: asyncio.Event | None = None, error: Exception | None = None) -> None:
        self.asked, self._release, self._error = 0, release, error

    async def __call__(self) -> Verdict:
        self.asked += 1
        if self._release:
            await self._release.wait()
        if self._error:
            raise self._error
        return verdict()


def test_the_second_time_is_a_hit() -> None:
    async def scenario() -> None:
        cache, judge = VerdictCache("scope", 10, 60), Judge()
        assert [(await cache.recall("a", judge))[1] for _ in range(3)] == [False, True, True]
        assert (await cache.recall("b", judge))[1] is False
        assert judge.asked == 2

    asyncio.run(scenario())


def test_a_hundred_at_once_are_judged_once() -> None:
    async def scenario() -> None:
        release = asyncio.Event()
        cache, judge = VerdictCache("scope", 10, 60), Judge(release)
        asked = [asyncio.create_task(cache.recall("a", judge)) for _ in range(100)]
        await asyncio.sleep(0)
        release.set()
        hits = [hit for _, hit in await asyncio.gather(*asked)]
        assert (judge.asked, hits.count(False)) == (1, 1)

    asyncio.run(scenario())


def test_an_error_reaches_everyone_who_waits_and_is_not_kept() -> None:
    async def scenario() -> None:
        cache, judge = VerdictCache("scope", 10, 60), Judge(error=ModelUnavailable())
        answers = await asyncio.gather(*(cache.recall("a", judge) for _ in range(3)), return_exceptions=True)
        assert {type(answer) for answer in answers} == {ModelUnavailable}
        assert (await cache.recall("a", Judge()))[1] is False

    asyncio.run(scenario())


def test_the_first_asker_who_leaves_harms_no_other_and_the_last_one_ends_the_work() -> None:
    async def scenario() -> None:
        flights: Flights[str] = Flights()
        release, ended = asyncio.Event(), []

        async def make() -> str:
            try:
                await release.wait()
            except asyncio.CancelledError:
                ended.append("dropped")
                raise
            return "made"

        first, second = (asyncio.create_task(flights.join("a", make)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        release.set()
        assert await second == ("made", True)
        release.clear()
        third = asyncio.create_task(flights.join("a", make))
        await asyncio.sleep(0)
        third.cancel()
        await asyncio.gather(third, return_exceptions=True)
        await asyncio.sleep(0)
        assert (ended, flights._flights) == (["dropped"], {})

    asyncio.run(scenario())


def test_a_verdict_is_forgotten_after_its_time_and_the_least_used_first() -> None:
    async def scenario() -> None:
        now = [0.0]
        cache, judge = VerdictCache("scope", 2, 60, clock=lambda: now[0]), Judge()
        for photo in ("a", "b", "a", "c"):
            await cache.recall(photo, judge)
        assert [(await cache.recall(photo, judge))[1] for photo in ("a", "c", "b")] == [True, True, False]
        now[0] = 61.0
        assert (await cache.recall("b", judge))[1] is False

    asyncio.run(scenario())


def test_a_scope_is_of_the_model_and_every_option() -> None:
    options = {"verdict": {"thresholds": None, "high_confidence": 0.9}, "model": {"precision": "f32"}}
    other = {"verdict": {"thresholds": None, "high_confidence": 0.95}, "model": {"precision": "f32"}}
    again = {"model": {"precision": "f32"}, "verdict": {"high_confidence": 0.9, "thresholds": None}}
    assert scope("m1", options) == scope("m1", again)
    assert len({scope("m1", options), scope("m2", options), scope("m1", other)}) == 3


def with_links(server: RedisServer, scenario: Callable[[Link, Link], Awaitable[None]]) -> None:
    async def run() -> None:
        links = [Link(server.url, "test", 30.0, 60) for _ in range(2)]  # a busy machine is not a lost Redis
        try:
            await scenario(*links)
        finally:
            for link in links:
                await link.close()

    asyncio.run(run())


def test_another_process_reads_it_from_redis_and_another_model_does_not(redis_server: RedisServer) -> None:
    async def scenario(one: Link, other: Link) -> None:
        judge = Judge()
        await VerdictCache("model-1", 10, 60, one).recall("a", judge)
        found, hit = await VerdictCache("model-1", 10, 60, other).recall("a", judge)
        assert (found, hit, judge.asked) == (verdict(), True, 1)
        assert (await VerdictCache("model-2", 10, 60, other).recall("a", judge))[1] is False
        (name,) = await one.client.keys("*model-1*")
        assert name == b"test:verdict:model-1:a"
        assert 0 < await one.client.ttl(name) <= 60

    with_links(redis_server, scenario)


@pytest.mark.parametrize("stored", [b"{}", b"not json", b'{"label": "fake"}', b"\xff"])
def test_what_is_no_verdict_in_redis_is_not_believed(redis_server: RedisServer, stored: bytes) -> None:
    async def scenario(one: Link, other: Link) -> None:
        await one.client.set("test:verdict:scope:a", stored)
        assert await VerdictCache("scope", 10, 60, one).recall("a", Judge()) == (verdict(), False)

    with_links(redis_server, scenario)


def test_without_redis_verdicts_are_made_and_remembered_here(redis_server: RedisServer) -> None:
    async def scenario(one: Link, other: Link) -> None:
        redis_server.stop()
        cache, judge = VerdictCache("scope", 10, 60, one), Judge()
        assert [(await cache.recall("a", judge))[1] for _ in range(2)] == [False, True]

    with_links(redis_server, scenario)
