"""`detector scan` against its own limit, in one run on the same cores; writes benchmarks/scan.md.

The limit is what decoding (with cutting and reading of claims) and the raw networks take when each has every core to
itself: 1 / (1/decode + 1/network). Quote the ratio; the absolute numbers belong to the machine. With --plan: what a
fleet costs by such numbers.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from detector.artefact import load
from detector.config import load_settings
from detector.pipeline import Detector
from detector.scan.job import DEFAULT_MODEL, cores, open_detector
from detector.scan.progress import spell
from detector.stream import Stream, load_stream

ROOT = Path(__file__).parent.parent
SETTINGS = load_settings(ROOT / "configuration.yaml")


@dataclass(frozen=True)
class Measured:
    """Rates in photos a second, memory in MiB."""

    photos: int
    side: int
    photo_bytes: int
    scan: float
    decode: float
    network: float
    peak: float

    @property
    def limit(self) -> float:
        return 1 / (1 / self.decode + 1 / self.network)

    @property
    def network_share(self) -> float:
        """Of a photo's CPU time."""
        return self.limit / self.network


def make_photo(seed: int, side: int) -> bytes:
    """A square JPEG: smooth shapes with the grain of a camera."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).resize((side, side), 3)
    grain = rng.normal(0, 4, (side, side, 1))
    buffer = BytesIO()
    Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=83)
    return buffer.getvalue()


def write_photos(folder: Path, count: int, side: int) -> list[bytes]:
    """`count` files of different bytes; 24 pictures, each with comments of its own."""
    pictures = [make_photo(seed, side) for seed in range(min(count, 24))]
    for number in range(count):
        data = pictures[number % len(pictures)]
        comment = b"\xff\xfe\x00\x0a" + number.to_bytes(8)
        (folder / f"{number:06d}.jpg").write_bytes(data[:2] + comment + data[2:])
    return pictures


def per_second(work: Callable[[], None], count: int) -> float:
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)


def decode_rate(detector: Detector, photos: Sequence[bytes], count: int) -> float:
    """Decode, cut, read claims, on every core."""
    with ThreadPoolExecutor(cores()) as pool:

        def work() -> None:
            for _ in pool.map(lambda index: detector.look(photos[index % len(photos)]).views.shape, range(count)):
                pass

        return per_second(work, count)


def network_rate(detector: Detector, stream: Stream, photos: Sequence[bytes], count: int) -> float:
    """The networks alone, fed without pause."""
    views = [detector.look(data).views for data in photos]

    def work() -> None:
        for future in [stream.submit(views[index % len(views)]) for index in range(count)]:
            future.result()

    work()  # once to warm up
    return per_second(work, count)


def scan_rate(folder: Path, count: int) -> tuple[float, float]:
    """The command as users run it: photos a second of its work (start and model loading left out), peak MiB."""
    out = folder.parent / "out"
    command = [sys.executable, "-m", "detector", "scan", str(folder), "--out", str(out), "--quiet"]
    started = None
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        watched, peak = psutil.Process(process.pid), 0.0
        while process.poll() is None:
            try:
                peak = max(peak, watched.memory_info().rss / 2**20)
            except psutil.NoSuchProcess:
                break
            if started is None and (out / ".outcomes.sqlite-wal").exists():
                started = time.perf_counter()
            time.sleep(0.05)
    if process.returncode or started is None:
        raise SystemExit("The scan failed.")
    return count / (time.perf_counter() - started), peak


def measure(count: int, side: int) -> Measured:
    model = load(DEFAULT_MODEL)
    detector = open_detector(SETTINGS, model)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "photos"
        folder.mkdir()
        photos = write_photos(folder, count, side)
        scan, peak = scan_rate(folder, count)
    decode = decode_rate(detector, photos, count)
    stream = load_stream(DEFAULT_MODEL, model.spec.plan(SETTINGS.model.profile), "cpu", SETTINGS.model.precision)
    network = network_rate(detector, stream, photos, max(24, count // 2))
    stream.close()
    return Measured(count, side, len(photos[0]), scan, decode, network, peak)


def page(seen: Measured) -> str:
    info = load(DEFAULT_MODEL).info(SETTINGS.model.profile)
    bound = "the networks" if seen.network_share > 0.5 else "decoding"
    return f"""# Scan

`make bench-scan` measures `detector scan` on one machine and writes this page. Everything below is one run on the same
{cores()} cores: {seen.photos} JPEGs, all different, {seen.side} pixels a side and {seen.photo_bytes / 1000:.0f} kB.
Model: {info.name} {info.version}, profile {info.profile}, hash {info.hash[:12]}.

| what | photos/s |
| --- | --- |
| decode, cut views, read claims; all cores | {seen.decode:.1f} |
| the raw networks; all cores | {seen.network:.1f} |
| limit of both together | {seen.limit:.1f} |
| `detector scan`, its loading of the model included | {seen.scan:.1f} |

Of a photo's CPU time the networks take {seen.network_share:.0%}: {bound} bind.

| what | measured | aim |
| --- | --- | --- |
| scan, of the limit | {seen.scan / seen.limit:.2f} | >= .95 |
| peak resident memory | {seen.peak:.0f} MiB | < 1000 MB |
"""


def plan(photos: float, unique: float, rate: float, machine: int, price: float, days: float) -> str:
    """A catalogue's cost from one machine's measured rate; docs/scale.md has the formula."""
    hours = unique * photos * machine / (3600 * rate)
    needed = hours / (24 * days)
    return (
        f"{photos:,.0f} photos, {unique:.0%} unique, at {rate:g} photos/s on {machine} cores:\n"
        f"{hours:,.0f} core-hours, {hours * price:,.0f} at {price:g} a core-hour;\n"
        f"{needed:,.0f} cores for {days:g} days ({needed / machine:,.0f} workers of {machine}), "
        f"{spell(3600 * hours / machine)} on one machine."
    )


def gpu_plan(photos: float, unique: float, rate: float, decode: float, price: float) -> str:
    """rate: photos/s of one GPU's networks. decode: photos/s that one core decodes."""
    hours = unique * photos / (3600 * rate)
    return (
        f"GPUs of {rate:g} photos/s: {hours:,.0f} GPU-hours, {hours * price:,.0f} at {price:g} each; "
        f"{rate / decode:.0f} cores to decode beside every GPU."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=400, help="photos to scan")
    parser.add_argument("--side", type=int, default=1000, help="pixels of a photo's side")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "scan.md")
    parser.add_argument("--plan", action="store_true", help="compute a fleet's cost instead")
    parser.add_argument("--photos", type=float, default=1e9)
    parser.add_argument("--unique", type=float, default=1.0, help="share of photos with content of their own")
    parser.add_argument("--rate", type=float, help="photos/s of one machine, as measured")
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1, help="of that machine")
    parser.add_argument("--price", type=float, help="of a core-hour, in your currency")
    parser.add_argument("--days", type=float, default=7.0)
    parser.add_argument("--gpu-rate", type=float, help="photos/s of one GPU's networks")
    parser.add_argument("--gpu-price", type=float, default=0.0, help="of a GPU-hour")
    parser.add_argument("--decode-rate", type=float, help="photos/s that one core decodes")
    options = parser.parse_args()
    if options.plan:
        if not options.rate or options.price is None:
            parser.error("--plan needs --rate (as measured) and --price (yours)")
        print(plan(options.photos, options.unique, options.rate, options.cores, options.price, options.days))
        if options.gpu_rate and options.decode_rate:
            print(gpu_plan(options.photos, options.unique, options.gpu_rate, options.decode_rate, options.gpu_price))
        return
    text = page(measure(options.count, options.side))
    options.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
