"""A Redis that dies costs one timeout and one line, and is found again; against a real server."""

import asyncio
import logging
import socket
import time

import pytest

from detector import metrics
from detector.link import Gone, Link
from tests.redis_server import RedisServer


def link_to(url: str, timeout: float = 30.0, interval: float = 0.02) -> Link:
    return Link(url, "test", timeout, interval)


async def until_back(link: Link) -> None:
    assert link._recovery
    await asyncio.wait_for(link._recovery, 10)


def test_it_answers_is_lost_and_is_found_again(redis_server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    losses = metrics.REDIS_LOSSES._value.get()

    async def scenario() -> None:
        link = link_to(redis_server.url)
        assert await link.ask(link.client.ping)
        redis_server.stop()
        for _ in range(20):
            with pytest.raises(Gone):
                await link.ask(link.client.ping)
        assert metrics.REDIS_UP.labels("test")._value.get() == 0
        redis_server.start()
        await until_back(link)
        assert await link.ask(link.client.ping)
        assert metrics.REDIS_UP.labels("test")._value.get() == 1
        await link.close()

    with caplog.at_level(logging.WARNING, "bentoml.detector"):
        asyncio.run(scenario())
    assert [record.message.split(" (")[0] for record in caplog.records] == ["Redis is gone", "Redis answers again"]
    assert metrics.REDIS_LOSSES._value.get() == losses + 1


def test_a_redis_that_hangs_costs_the_requests_under_way_one_timeout_and_later_ones_nothing() -> None:
    async def scenario(port: int) -> tuple[float, float]:
        link = link_to(f"redis://127.0.0.1:{port}", timeout=0.1, interval=60)
        started = time.perf_counter()
        under_way = await asyncio.gather(*(link.ask(link.client.ping) for _ in range(50)), return_exceptions=True)
        first = time.perf_counter() - started
        later = await asyncio.gather(*(link.ask(link.client.ping) for _ in range(50)), return_exceptions=True)
        second = time.perf_counter() - started - first
        assert {type(answer) for answer in under_way + later} == {Gone}
        await link.close()
        return first, second

    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never says a word
        first, second = asyncio.run(scenario(silent.getsockname()[1]))
    assert 0.1 <= first < 2.5  # one timeout for all fifty, not fifty
    assert second < 1


def test_more_callers_than_connections_wait_their_turn(redis_server: RedisServer) -> None:
    async def scenario() -> list[object]:
        link = Link(redis_server.url, "test", 30.0, 1.0, connections=2)
        answers = await asyncio.gather(*(link.ask(link.client.ping) for _ in range(200)), return_exceptions=True)
        await link.close()
        return list(answers)

    assert asyncio.run(scenario()) == [True] * 200


def test_a_redis_that_restarts_between_questions_is_not_noticed(redis_server: RedisServer) -> None:
    async def scenario() -> bool:
        link = link_to(redis_server.url)
        await asyncio.gather(*(link.ask(link.client.ping) for _ in range(8)))
        redis_server.stop()
        redis_server.start()
        answers = await asyncio.gather(*(link.ask(link.client.ping) for _ in range(8)))
        await link.close()
        return all(answers)

    assert asyncio.run(scenario())
