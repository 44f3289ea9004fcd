"""What reading a file's claims costs: milliseconds a photo alone, and what it adds to a verdict. Prints a table.

`make bench-provenance`, or `python -m benchmarks.provenance FOLDER` for original files of your own. The limit it is
held against: 3 ms at the median for a typical photo. Measure on a quiet machine: a busy one doubles every number.
"""

import argparse
import asyncio
import os
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.service import make_photos
from detector.calibration import Calibration
from detector.ensemble import Plan
from detector.image import Limits
from detector.pipeline import Detector, Read, Rules
from detector.provenance.reading import FileReader
from detector.schema import ModelInfo

ROUNDS = 200
LIMIT = 3.0  # milliseconds
SCORING = 0.030  # seconds a photo waits for its batch


def typical_photos() -> dict[str, tuple[str, bytes]]:
    """One 1000 x 750 photo in the states in which photos come; needs the development environment."""
    from tests.provenance import samples, signing

    plain = make_photos(1)[0]
    camera = samples.segment(0xE1, samples.exif(*samples.CAMERA))
    packet = samples.xmp_segment(samples.typed("trainedAlgorithmicMedia", photoshop_Credit="Made with Google AI"))
    maker = signing.Authority("Root").issue("Maker Inc.")
    captured = signing.sign(plain, maker, [signing.created("digitalCapture")])
    return {
        "no metadata": ("JPEG", plain),
        "camera EXIF and an XMP packet": ("JPEG", plain[:2] + camera + packet + plain[2:]),
        "A1111 text": ("PNG", samples.text_png(parameters=samples.A1111)),
        "C2PA": ("JPEG", captured),
        "C2PA with a parent": ("JPEG", signing.sign(captured, maker, [signing.opened()], parent=captured)),
        "no metadata, 10 MiB": ("JPEG", plain + os.urandom(10_485_760 - len(plain))),
    }


def originals(folder: Path) -> dict[str, tuple[str, bytes]]:
    kinds = {b"\xff\xd8": "JPEG", b"\x89P": "PNG", b"RI": "WEBP"}
    files = [(path.name, path.read_bytes()) for path in sorted(folder.iterdir()) if path.is_file()]
    return {name: (kinds[data[:2]], data) for name, data in files if data[:2] in kinds}


def measure(read: Read, kind: str, data: bytes) -> tuple[float, float]:
    """(median, 95th percentile) in milliseconds."""
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        read(kind, data)
        times.append(1e3 * (time.perf_counter() - started))
    return float(np.median(times)), float(np.quantile(times, 0.95))


async def verdict_time(read: Read | None, data: bytes) -> float:
    """Median milliseconds of a verdict whose scoring takes SCORING."""

    async def score(_: NDArray[np.uint8]) -> NDArray[np.float32]:
        await asyncio.sleep(SCORING)
        return np.zeros((1, plan.width), np.float32)

    plan, calibration, info = _model()
    limits = Limits(10_485_760, 50_000_000, 16_384, 64, frozenset({"JPEG", "PNG"}))
    detector = Detector(plan, calibration, info, Rules(calibration.thresholds, 0.8, 0.95), limits, score, read=read)
    times = []
    for _ in range(ROUNDS // 4):
        started = time.perf_counter()
        await detector.predict(data, "bench")
        times.append(1e3 * (time.perf_counter() - started))
    return float(np.median(times))


def _model() -> tuple[Plan, Calibration, ModelInfo]:
    from detector.artefact import load

    artefact = load(Path(__file__).parent.parent / "detector" / "default_model")
    profile = next(iter(artefact.spec.profiles))
    return artefact.spec.plan(profile), artefact.calibrations[profile], artefact.info(profile)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="original files to read instead of made ones")
    folder = parser.parse_args().folder
    files = originals(folder) if folder else typical_photos()
    read, medians = FileReader().read, []
    for name, (kind, data) in files.items():
        median, late = measure(read, kind, data)
        medians.append(median)
        print(f"{name[:44]:<44} {len(data):>10,} bytes  p50 {median:6.2f} ms  p95 {late:6.2f} ms")
    typical = float(np.median(medians))
    print(f"median of these: {typical:.2f} ms, {'within' if typical < LIMIT else 'ABOVE'} the limit of {LIMIT} ms")
    if not folder and (Path(__file__).parent.parent / "detector/default_model/spec.json").exists():
        for name in ("no metadata", "C2PA"):
            alone = asyncio.run(verdict_time(None, files[name][1]))
            both = asyncio.run(verdict_time(read, files[name][1]))
            print(f"a verdict scored in {1e3 * SCORING:.0f} ms, {name}: {alone:.2f} ms, reading too: {both:.2f} ms")
    print(f"load average while measuring: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
