"""A running service against its own limit, in one run on the same cores; writes benchmarks/README.md.

The limit is decode + preprocess + network in a plain loop in one process: what is left when HTTP, batching and
process boundaries cost nothing. Quote the ratio; the absolute numbers belong to the machine.
"""

import argparse
import asyncio
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from tempfile import gettempdir

import aiohttp
import numpy as np
import psutil
from PIL import Image

from detector.artefact import load
from detector.config import load_settings
from detector.image import Limits, decode
from detector.preprocess import make_views
from detector.runtime import load_runtime

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "detector" / "default_model"
BATCH = 20


@dataclass
class Load:
    """What one load saw; latencies in seconds."""

    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0
    photos: int = 0

    @property
    def rate(self) -> float:
        """Photos answered with 200 in a second."""
        return self.photos / self.seconds

    def quantile(self, share: float) -> float:
        """Milliseconds."""
        return 1000 * float(np.quantile(self.latencies, share))

    def errors(self) -> int:
        return sum(count for status, count in self.statuses.items() if status not in (200, 503))


def make_photos(count: int) -> list[bytes]:
    """1000 x 750 JPEGs of about 100 KB: smooth shapes with the grain of a camera."""
    photos = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        coarse = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)).resize((1000, 750), 3)
        grain = rng.normal(0, 4, (750, 1000, 1))
        buffer = BytesIO()
        Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=83)
        photos.append(buffer.getvalue())
    return photos


def measure_limit(photos: list[bytes], seconds: float) -> float:
    """Photos a second of the plain loop, with the settings the service has."""
    settings = load_settings(ROOT / "configuration.yaml")
    plan = load(MODEL).spec.plan(settings.model.profile)
    runtime = load_runtime(MODEL, plan, "cpu", settings.model.precision, settings.model.threads)
    sizes = settings.photo
    limits = Limits(sizes.max_bytes, sizes.max_pixels, sizes.max_side, sizes.min_side, frozenset(sizes.formats))

    def one(data: bytes) -> None:
        plan.fuse(runtime.score(make_views(decode(data, limits).pixels, plan.views, plan.size)[np.newaxis])[0])

    for data in photos:
        one(data)
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        one(photos[done % len(photos)])
        done += 1
    return done / (time.perf_counter() - started)


@contextmanager
def served(log: Path) -> Iterator[tuple[str, float, psutil.Process]]:
    """A service of its own on a free port: its address, the seconds it took to be ready, its main process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "bentoml", "serve", "service:ProductPhotoDetector", "--port", str(port)]
    # Photos come again and again from one caller here: neither cache nor budgets may answer for the model.
    unlimited = {"PPD_CACHE__ENTRIES": "0", "PPD_LIMITS__PREDICT": "null", "PPD_LIMITS__BATCH": "null"}
    environment = os.environ | {"BENTOML_DO_NOT_TRACK": "True"} | unlimited
    started = time.perf_counter()
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}"
    try:
        asyncio.run(_wait_ready(address, process))
        yield address, time.perf_counter() - started, psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


async def _wait_ready(address: str, process: "subprocess.Popen[bytes]") -> None:
    async with aiohttp.ClientSession() as session:
        while process.poll() is None:
            try:
                async with session.get(f"{address}/readyz") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.02)
    raise SystemExit("The service did not start; see its log.")


Request = Callable[[aiohttp.ClientSession, int], Awaitable[tuple[int, int]]]  # -> status, photos judged


async def apply_load(request: Request, callers: int, seconds: float) -> Load:
    """`callers` that each send the next request when the last is answered."""
    load_seen, numbers = Load(), iter(range(10**9))
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        deadline = time.perf_counter() + seconds

        async def caller() -> None:
            while time.perf_counter() < deadline:
                started = time.perf_counter()
                status, photos = await request(session, next(numbers))
                load_seen.latencies.append(time.perf_counter() - started)
                load_seen.statuses[status] += 1
                load_seen.photos += photos if status == 200 else 0

        started = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(callers)))
        load_seen.seconds = time.perf_counter() - started
    return load_seen


def posts(address: str, route: str, photos: list[bytes], count: int = 1) -> Request:
    async def request(session: aiohttp.ClientSession, number: int) -> tuple[int, int]:
        form = aiohttp.FormData()
        for offset in range(count):
            data = photos[(number + offset) % len(photos)]
            form.add_field("image" if count == 1 else "images", data, filename="photo.jpg", content_type="image/jpeg")
        async with session.post(address + route, data=form) as answer:
            await answer.read()
            return answer.status, count

    return request


async def with_probe(address: str, work: Awaitable[Load]) -> tuple[Load, list[float]]:
    """Run a load, and meanwhile ask /livez ten times a second: its latencies in seconds."""
    probes: list[float] = []

    async def probe() -> None:
        async with aiohttp.ClientSession() as session:
            while True:
                started = time.perf_counter()
                async with session.get(f"{address}/livez") as answer:
                    await answer.read()
                probes.append(time.perf_counter() - started)
                await asyncio.sleep(0.1)

    probing = asyncio.create_task(probe())
    try:
        return await work, probes
    finally:
        probing.cancel()


def resident(process: psutil.Process) -> tuple[float, float]:
    """MiB of the process and all its children: shared pages counted once, and counted in each."""
    seen = [one.memory_full_info() for one in (process, *process.children(recursive=True))]
    return sum(one.pss for one in seen) / 2**20, sum(one.rss for one in seen) / 2**20


def measure(seconds: float) -> str:
    photos = make_photos(24)
    loads: dict[str, Load] = {}
    with served(Path(gettempdir()) / "benchmark-service.log") as (address, cold, process):
        asyncio.run(apply_load(posts(address, "/predict", photos), 8, 3.0))  # the batcher learns its timing
        for callers in (1, 8, 32):
            loads[f"/predict x {callers}"] = asyncio.run(
                apply_load(posts(address, "/predict", photos), callers, seconds)
            )
        load_128, probes = asyncio.run(
            with_probe(address, apply_load(posts(address, "/predict", photos), 128, seconds))
        )
        loads["/predict x 128"] = load_128
        loads["/explain x 8"] = asyncio.run(apply_load(posts(address, "/explain", photos), 8, seconds))
        loads[f"/predict/batch of {BATCH} x 2"] = asyncio.run(
            apply_load(posts(address, "/predict/batch", photos, BATCH), 2, seconds)
        )
        memory = resident(process)
    limits = [measure_limit(photos, seconds / 2) for _ in range(2)]
    return report(loads, statistics.mean(limits), cold, memory, probes, len(photos[0]))


def report(
    loads: dict[str, Load],
    limit: float,
    cold: float,
    memory: tuple[float, float],
    probes: list[float],
    photo_bytes: int,
) -> str:
    rows = "\n".join(
        f"| {name} | {seen.rate:.1f} | {seen.rate / limit:.2f} | {seen.quantile(0.5):.0f} | {seen.quantile(0.95):.0f} "
        f"| {seen.quantile(0.99):.0f} | {seen.errors()} | {seen.statuses[503]} |"
        for name, seen in loads.items()
    )
    info = load(MODEL).info(load_settings(ROOT / "configuration.yaml").model.profile)
    explain = loads["/explain x 8"].rate / loads["/predict x 8"].rate
    return f"""# Benchmarks

`make bench` measures a running service and writes this page. Everything below is one run: load generator, service
and limit share the same {os.cpu_count()} cores. Photos: 1000 x 750 JPEGs of {photo_bytes / 1000:.0f} kB. Model:
{info.name} {info.version}, profile {info.profile}, hash {info.hash[:12]}.

The limit is decode + preprocess + network in a plain loop in one process: {limit:.1f} photos/s.

| load (route x callers) | photos/s | of the limit | p50 ms | p95 ms | p99 ms | errors | clean 503 |
| --- | --- | --- | --- | --- | --- | --- | --- |
{rows}

| what | measured | aim |
| --- | --- | --- |
| `/predict` at 8 callers, of the limit | {loads["/predict x 8"].rate / limit:.2f} | >= .75 |
| `/explain` of `/predict`, both at 8 callers | {explain:.2f} | >= .9 |
| errors at 128 callers | {loads["/predict x 128"].errors()} | 0 |
| `/livez` p99 at 128 callers | {1000 * float(np.quantile(probes, 0.99)):.0f} ms ({len(probes)} probes) | < 50 ms |
| cold start to ready | {cold:.1f} s | < 3 s |
| resident memory of all processes | {memory[0]:.0f} MiB ({memory[1]:.0f}, shared pages in each) | < 600 MB |
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each load")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "README.md")
    arguments = parser.parse_args()
    text = measure(arguments.seconds)
    arguments.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
