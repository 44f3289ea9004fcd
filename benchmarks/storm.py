"""128 callers for five minutes while Redis is killed and started again; writes benchmarks/storm.md.

Callers have 240 photos between them, of which most are remembered after a while, and a budget that they overrun: so
every part of the gate has work. Only 200, 429 and 503 may come back. Before that, what a remembered verdict saves.
"""

import argparse
import asyncio
import os
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import psutil

from benchmarks.service import UNLIMITED, Load, apply_load, make_photos, posts, served, with_probe
from tests.redis_server import RedisServer

CALLERS = 128
PHOTOS = 240
OUT = Path(__file__).with_name("storm.md")


async def time_repeats(address: str, photos: list[bytes]) -> tuple[float, float]:
    """Median milliseconds of a photo seen for the first time, and again."""
    first, again = [], []
    async with aiohttp.ClientSession() as session:
        for index, photo in enumerate(photos):
            request = posts(address, "/predict", [photo])
            for seen in (first, again):
                started = time.perf_counter()
                status, _ = await request(session, 0)
                assert status == 200, f"photo {index}: {status}"
                seen.append(1000 * (time.perf_counter() - started))
    return statistics.median(first), statistics.median(again)


async def storm(address: str, photos: list[bytes], seconds: float, redis: RedisServer) -> tuple[Load, list[float]]:
    """The load; Redis is gone in the middle third."""

    async def trouble() -> None:
        await asyncio.sleep(seconds / 3)
        redis.stop()
        await asyncio.sleep(seconds / 3)
        await asyncio.to_thread(redis.start)

    troubling = asyncio.create_task(trouble())
    seen = await with_probe(address, apply_load(posts(address, "/predict", photos), CALLERS, seconds))
    await troubling
    return seen


def memory(process: psutil.Process) -> float:
    """MiB, shared pages counted once."""
    return sum(one.memory_full_info().pss for one in (process, *process.children(recursive=True))) / 2**20


def measure(seconds: float) -> str:
    photos = make_photos(PHOTOS)
    with TemporaryDirectory() as name:
        redis = RedisServer(Path(name))
        redis.start()
        settings = {"PPD_REDIS__URL": redis.url, "PPD_LIMITS__PREDICT": "6000/minute"}
        try:
            with served(Path(name) / "serve.log", UNLIMITED | {"PPD_CACHE__ENTRIES": "10000"} | settings) as running:
                address, _, process = running
                first, again = asyncio.run(time_repeats(address, photos[:30]))
                before = memory(process)
                load, probes = asyncio.run(storm(address, photos, seconds, redis))
                after = memory(process)
        finally:
            redis.stop()
        lines = (Path(name) / "serve.log").read_text().splitlines()
    told = [line for line in lines if "redis" in line.lower()]
    return report(load, probes, seconds, (first, again), (before, after), len(told))


def report(
    load: Load,
    probes: list[float],
    seconds: float,
    repeats: tuple[float, float],
    memories: tuple[float, float],
    told: int,
) -> str:
    counts = ", ".join(f"{count:,} x {status}" for status, count in sorted(load.statuses.items()))
    others = sum(count for status, count in load.statuses.items() if status not in (200, 429, 503))
    alive = sorted(probes)[int(0.99 * (len(probes) - 1))] * 1000
    return f"""# Storm

`make storm` writes this page: {CALLERS} callers for {seconds:.0f} s on {os.cpu_count()} cores, {PHOTOS} photos, a
budget of 6,000 requests a minute for all of them, Redis killed after a third and started again after two thirds.

| what | measured | aim |
| --- | --- | --- |
| answers | {counts} | 200, 429 or 503 |
| other answers | {others} | 0 |
| answers a second | {sum(load.statuses.values()) / load.seconds:.0f} | |
| p50 / p99 of an answer | {load.quantile(0.5):.0f} / {load.quantile(0.99):.0f} ms | |
| `/livez` p99 meanwhile | {alive:.0f} ms | |
| log lines about Redis | {told} | one when it goes, one when it is back |
| memory before, after | {memories[0]:.0f}, {memories[1]:.0f} MiB | |
| a photo judged, remembered (medians of 30) | {repeats[0]:.1f}, {repeats[1]:.1f} ms | 10 times faster |
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0)
    arguments = parser.parse_args()
    text = measure(arguments.seconds)
    OUT.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
