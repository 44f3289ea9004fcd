"""A real service in a child process, over a Bento store of its own; what it answers is the tests' business."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

ROOT = Path(__file__).parent.parent


def environment(home: Path, **settings: str) -> dict[str, str]:
    """The caller's environment without settings of its own, with the Bento store at `home`."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("PPD_", "BENTOML_"))}
    return plain | {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"} | settings


def store(folder: Path, home: Path) -> None:
    command = [sys.executable, "-m", "training.store", str(folder)]
    subprocess.run(command, cwd=ROOT, env=environment(home), check=True, capture_output=True, timeout=60)


def command(port: int) -> list[str]:
    return [sys.executable, "-m", "bentoml", "serve", "service:ProductPhotoDetector", "--port", str(port)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


Process = subprocess.Popen[bytes]


@contextmanager
def serving(home: Path, log: Path, port: int | None = None, **settings: str) -> Iterator[httpx.Client]:
    """A client of a ready service; afterwards the service ends on SIGTERM."""
    with launched(home, log, port, **settings) as (client, _):
        yield client


@contextmanager
def launched(home: Path, log: Path, port: int | None = None, **settings: str) -> Iterator[tuple[httpx.Client, Process]]:
    """The same with the supervising process; the test may end it itself."""
    port = port or free_port()
    with log.open("w") as out:
        process = subprocess.Popen(command(port), cwd=ROOT, env=environment(home, **settings), stdout=out, stderr=out)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            wait_until_ready(client, process, log)
            yield client, process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def wait_until_ready(client: httpx.Client, process: Process, log: Path) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError(log.read_text()[-4000:])
