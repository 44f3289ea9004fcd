"""Budgets are kept exactly, shared through Redis, and survive its loss as the settings say."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from limits import WindowStats, parse

from detector.errors import BudgetUnavailable
from detector.link import Link
from detector.ratelimit import Budgets, OnLoss, Standing, read_standing
from tests.redis_server import RedisServer


async def spend(budgets: Budgets, *costs: int, caller: str = "key:a", route: str = "predict") -> list[bool | None]:
    standings = [await budgets.spend(route, caller, cost) for cost in costs]
    return [standing and standing.allowed for standing in standings]


def test_each_caller_and_each_route_has_a_budget_of_its_own() -> None:
    async def scenario() -> None:
        budgets = Budgets({"predict": "2/minute", "batch": "1/minute"})
        assert await spend(budgets, 1, 1, 1) == [True, True, False]
        assert await spend(budgets, 1, caller="key:b") == [True]
        assert await spend(budgets, 1, route="batch") == [True]
        assert await spend(budgets, 1, route="explain") == [None]

    asyncio.run(scenario())


def test_what_is_not_there_is_not_taken() -> None:
    async def scenario() -> None:
        assert await spend(Budgets({"predict": "10/minute"}), 8, 3, 2, 1) == [True, False, True, False]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("allowed", "reset_time", "remaining", "expected"),
    [
        (True, 100.0, 10, (10, 0)),
        (True, 90.0, 10, (10, 0)),
        (True, 130.2, 3, (3, 31)),
        (False, 100.1, 0, (0, 1)),
        (False, 99.0, -2, (0, 1)),
        (False, 900.0, 0, (0, 60)),
    ],
)
def test_a_standing_is_in_whole_seconds_and_never_negative(
    allowed: bool, reset_time: float, remaining: int, expected: tuple[int, int]
) -> None:
    found = read_standing(allowed, "predict", parse("10/minute"), WindowStats(reset_time, remaining), 100.0)
    assert (found.remaining, found.reset) == expected


def test_headers_are_the_draft_s_and_the_ones_most_clients_read() -> None:
    assert Standing(True, "batch", 600, 580, 12, 60).headers() == {
        "RateLimit-Policy": '"batch";q=600;w=60',
        "RateLimit": '"batch";r=580;t=12',
        "RateLimit-Limit": "600",
        "RateLimit-Remaining": "580",
        "RateLimit-Reset": "12",
    }


def with_links(server: RedisServer, count: int, scenario: Callable[[list[Link]], Awaitable[None]]) -> None:
    async def run() -> None:
        links = [Link(server.url, "test", 30.0, 0.02) for _ in range(count)]  # a busy machine is not a lost Redis
        try:
            await scenario(links)
        finally:
            for link in links:
                await link.close()

    asyncio.run(run())


def test_processes_share_one_budget_and_never_overspend_it(redis_server: RedisServer) -> None:
    async def scenario(links: list[Link]) -> None:
        processes = [Budgets({"predict": "50/minute"}, link) for link in links]
        asked = [process.spend("predict", "key:a") for _ in range(40) for process in processes]
        standings = await asyncio.gather(*asked)
        assert sum(1 for standing in standings if standing and standing.allowed) == 50
        names = [name.decode() for name in await links[0].client.keys("*")]
        assert all(name.startswith("test:limits") and "key:a" not in name for name in names)

    with_links(redis_server, 3, scenario)


@pytest.mark.parametrize(("on_loss", "expected"), [("local", [True, False]), ("open", [None, None])])
def test_without_redis_requests_go_on_and_afterwards_it_counts_again(
    redis_server: RedisServer, on_loss: OnLoss, expected: list[bool | None]
) -> None:
    async def scenario(links: list[Link]) -> None:
        budgets = Budgets({"predict": "1/minute"}, links[0], on_loss)
        assert await spend(budgets, 1, 1) == [True, False]
        redis_server.stop()
        assert await spend(budgets, 1, 1) == expected
        redis_server.start()
        assert links[0]._recovery
        await asyncio.wait_for(links[0]._recovery, 10)
        assert await spend(budgets, 1, 1) == [True, False]

    with_links(redis_server, 1, scenario)


def test_without_redis_a_closed_gate_asks_to_come_again(redis_server: RedisServer) -> None:
    async def scenario(links: list[Link]) -> None:
        budgets = Budgets({"predict": "1/minute"}, links[0], "closed", retry_after=3)
        redis_server.stop()
        with pytest.raises(BudgetUnavailable) as caught:
            await budgets.spend("predict", "key:a")
        assert caught.value.retry_after == 3

    with_links(redis_server, 1, scenario)
