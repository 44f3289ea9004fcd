"""A model takes another's place behind a real proxy, and no caller sees a failure."""

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from detector.artefact import load
from detector.schema import Verdict
from tests import serving
from tests.candidates import make_candidate, store_all, tag
from tests.conftest import remarked

ROOT = Path(__file__).parent.parent


@dataclass
class Proxy:
    """haproxy with the repository's own configuration."""

    folder: Path
    blue: int = field(default_factory=serving.free_port)
    green: int = field(default_factory=serving.free_port)
    front: int = field(default_factory=serving.free_port)

    @contextmanager
    def running(self) -> Iterator[None]:
        ports = {name.upper(): f"127.0.0.1:{getattr(self, name)}" for name in ("blue", "green", "front")}
        environ = os.environ | ports | {"ADMIN": str(self.folder / "admin.sock")}
        process = subprocess.Popen(["haproxy", "-db", "-f", str(ROOT / "deploy/haproxy/haproxy.cfg")], env=environ)
        try:
            yield
        finally:
            process.terminate()
            process.wait(20)

    def tell(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(str(self.folder / "admin.sock"))
            admin.sendall(f"{command}\n".encode())
            return b"".join(iter(lambda: admin.recv(65_536), b"")).decode()

    def state(self, place: str) -> dict[str, str]:
        header, *rows = self.tell("show stat").lstrip("# ").splitlines()
        named = (dict(zip(header.split(","), row.split(","), strict=False)) for row in rows)
        return next(row for row in named if row.get("svname") == place)


class Callers:
    """Four callers, one photo after another, until told to stop."""

    def __init__(self, port: int, jpeg: bytes) -> None:
        self._port, self._jpeg = port, jpeg
        self.answers: list[tuple[int, str]] = []  # status, hash of the model that judged
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(number,)) for number in range(4)]

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _call(self, first: int) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{self._port}", timeout=60) as http:
            number = first
            while not self._stop.is_set():
                number += 4
                self.answers.append(self._one(http, remarked(self._jpeg, number)))

    @staticmethod
    def _one(http: httpx.Client, photo: bytes) -> tuple[int, str]:
        try:
            answer = http.post("/predict", files={"image": photo})
        except httpx.TransportError as error:
            return 0, type(error).__name__
        if answer.status_code != 200:
            return answer.status_code, answer.text
        return 200, Verdict.model_validate_json(answer.content).model.hash


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.skipif(
    shutil.which("haproxy") is None and "CI" not in os.environ, reason="haproxy is not installed (CI installs it)"
)
def test_a_model_is_switched_under_load_and_no_request_fails(model_folder: Path, tmp_path: Path, jpeg: bytes) -> None:
    candidate = make_candidate(tmp_path / "candidate", 5)
    store_all(tmp_path / "home", tmp_path / "candidate", model_folder)
    current, proxy = tag(load(model_folder).manifest), Proxy(tmp_path)
    unlimited = {"PPD_LIMITS__PREDICT": "null"}

    def place(name: str, model: str):  # type: ignore[no-untyped-def]
        log, port = tmp_path / name, getattr(proxy, name)
        return serving.launched(tmp_path / "home", log, port, PPD_MODEL__TAG=model, **unlimited)

    with proxy.running(), place("blue", current) as (_, blue):
        eventually(lambda: proxy.state("blue")["status"] == "UP")
        with Callers(proxy.front, jpeg) as callers:
            eventually(lambda: len(callers.answers) > 20)
            with place("green", candidate):
                eventually(lambda: proxy.state("green")["status"] == "UP")
                proxy.tell("set server detectors/blue state drain")
                eventually(lambda: proxy.state("blue")["scur"] == "0")
                blue.send_signal(signal.SIGTERM)
                assert blue.wait(120) == 0
                before = len(callers.answers)
                eventually(lambda: len(callers.answers) > before + 20)
                callers.__exit__()
        hashes = [f"product-photo-detector:{name[:12]}" for _, name in callers.answers]
    assert {status for status, _ in callers.answers} == {200}, [one for one in callers.answers if one[0] != 200]
    assert set(hashes[:20]) == {current}
    assert set(hashes[-20:]) == {candidate}
