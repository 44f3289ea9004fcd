"""The service under a real Prometheus with its rules, and a mixed stream: which alerts fire, and why.

Windows and waits of the rules are cut to seconds, their thresholds are as they ship. Ends by itself; nothing stays.
"""

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from benchmarks.service import MODEL, ROOT, make_photos, served
from detector import keyring

STREAM = 45.0  # seconds
PATIENCE = 90.0  # seconds for the alerts to follow
NO_REDIS = "redis://127.0.0.1:1/0"  # nothing listens there
# What this stream is made to set off; others may fire too, as the photos and the machine will have it.
EXPECTED = {"RefusalsSurge", "RedisDown", "TargetDown"}
SCRAPE = """
global: {{scrape_interval: 1s, scrape_timeout: 900ms, evaluation_interval: 1s}}
rule_files: ["{folder}/*.rules.yaml"]
scrape_configs:
  - job_name: product-photo-detector
    static_configs: [{{targets: ["{target}"]}}]
"""


def shorten(rules: str) -> str:
    """Windows of seconds instead of minutes and hours, so that a person can wait for an alert."""
    return re.sub(r"for: \d+m", "for: 3s", re.sub(r"\[\d+[mh]\]", "[20s]", rules))


@contextmanager
def prometheus(folder: Path, target: str, port: int) -> Iterator[str]:
    binary = shutil.which("prometheus")
    if not binary:
        raise SystemExit("prometheus is not installed (Debian: apt-get install --no-install-recommends prometheus).")
    for path in (ROOT / "deploy/prometheus" / name for name in ("alerts.yaml", "recording.yaml")):
        (folder / f"{path.stem}.rules.yaml").write_text(shorten(path.read_text()))
    (folder / "prometheus.yaml").write_text(SCRAPE.format(folder=folder, target=target))
    options = [f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/tsdb"]
    with (folder / "prometheus.log").open("w") as log:
        command = [binary, *options, f"--web.listen-address=127.0.0.1:{port}"]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


@dataclass
class Stream:
    """Callers of four kinds, each in a thread of its own, until told to stop."""

    address: str
    keys: dict[str, str]
    statuses: dict[str, dict[int, int]] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)

    def run(self, seconds: float) -> None:
        photos = make_photos(8)
        kinds: dict[str, tuple[float, Callable[[int], tuple[str, bytes]]]] = {
            "good photos": (0.3, lambda n: (self.keys["desk"], _remarked(photos[n // 2 % 8], n // 2))),
            "broken files": (0.5, lambda _: (self.keys["desk"], b"no photo")),
            "a wrong key": (0.2, lambda _: (f"ppd_{'0' * 12}_{'w' * 43}", b"no photo")),
            "over budget": (0.1, lambda _: (self.keys["greedy"], b"no photo")),
        }
        threads = [threading.Thread(target=self._send, args=(kind, *how)) for kind, how in kinds.items()]
        for thread in threads:
            thread.start()
        self.over.wait(seconds)
        self.over.set()
        for thread in threads:
            thread.join()

    def _send(self, kind: str, pause: float, make: Callable[[int], tuple[str, bytes]]) -> None:
        seen = self.statuses.setdefault(kind, {})
        with httpx.Client(base_url=self.address, timeout=60) as http:
            number = 0
            while not self.over.wait(pause):
                key, photo = make(number)
                answer = http.post("/predict", files={"image": photo}, headers={"X-API-Key": key})
                seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
                number += 1


def _remarked(jpeg: bytes, number: int) -> bytes:
    """The same photo with a comment of its own: every second one is new to the cache."""
    return jpeg[:2] + b"\xff\xfe\x00\x0a" + number.to_bytes(8) + jpeg[2:]


class Watch:
    """Tells each alert once, when it first fires."""

    def __init__(self, prometheus: str) -> None:
        self._http, self._began = httpx.Client(base_url=prometheus, timeout=10), time.monotonic()
        self.fired: set[str] = set()
        self._told: set[tuple[str, ...]] = set()

    def look(self) -> None:
        for alert in self._ask("/api/v1/alerts")["alerts"]:
            labels, notes = alert["labels"], alert["annotations"]
            one = tuple(sorted(labels.values()))
            if alert["state"] == "firing" and one not in self._told:
                self._told.add(one)
                self.fired.add(labels["alertname"])
                print(f"{time.monotonic() - self._began:5.0f} s  {labels['severity']:8}  {labels['alertname']}")
                print(f"{'':19}{notes['summary']}  ->  {notes['runbook_url']}", flush=True)

    def look_until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not done() and time.monotonic() < deadline:
            self.look()
            time.sleep(0.5)

    def value(self, query: str) -> str:
        found = self._ask("/api/v1/query", query=query)["result"]
        told = {", ".join(v for k, v in one["metric"].items() if k not in {"__name__", "job"}): one for one in found}
        return "; ".join(f"{name} {float(one['value'][1]):.3g}".strip() for name, one in told.items()) or "none"

    def _ask(self, path: str, **parameters: str) -> Any:
        try:
            return self._http.get(path, params=parameters).json()["data"]
        except httpx.TransportError:  # it is starting
            return {"alerts": [], "result": []}


def make_keys(path: Path) -> dict[str, str]:
    minted = {name: keyring.mint(name, ["predict"], keyring.now()) for name in ("desk", "greedy")}
    keyring.write(path, {kept.id: kept for _, kept in minted.values()})
    return {name: text for name, (text, _) in minted.items()}


def settings(folder: Path) -> dict[str, str]:
    """A store of its own, two keys, a small budget, and a Redis that is not there."""
    return {
        "BENTOML_HOME": str(folder / "home"),
        "PPD_AUTH__KEYS_FILE": str(folder / "keys.json"),
        "PPD_AUTH__MAX_FAILURES": "100000",
        "PPD_LIMITS__PREDICT": "60/10 second",
        "PPD_REDIS__URL": NO_REDIS,
        "PPD_LOG__FORMAT": "json",
    }


def main() -> None:
    with TemporaryDirectory(prefix="observe-") as name, ExitStack() as running:
        folder = Path(name)
        environ = settings(folder)
        keys = make_keys(folder / "keys.json")
        store = [sys.executable, "-m", "training.store", str(MODEL)]
        subprocess.run(store, cwd=ROOT, env=os.environ | environ, check=True, stdout=subprocess.DEVNULL)
        print("Starting the service and a Prometheus of its own ...", flush=True)
        service = ExitStack()
        address, _, _ = service.enter_context(served(folder / "service.log", environ))
        running.callback(service.close)
        target = address.removeprefix("http://")
        watch = Watch(running.enter_context(prometheus(folder, target, int(target.partition(":")[2]) + 1)))
        tell(watch, Stream(address, keys), service)
    missing = EXPECTED - watch.fired
    print(
        f"Not fired, though they should have: {', '.join(missing)}"
        if missing
        else "Every alert this was to set off fired."
    )
    raise SystemExit(bool(missing))


def tell(watch: Watch, stream: Stream, service: ExitStack) -> None:
    print(f"A mixed stream for {STREAM:.0f} seconds; alerts as they fire:", flush=True)
    sending = threading.Thread(target=stream.run, args=(STREAM,))
    sending.start()
    watch.look_until(lambda: not sending.is_alive())
    for query in (
        "ppd:requests:rate5m",
        "ppd:server_errors:ratio5m",
        "ppd:request_seconds:p95_5m",
        "ppd:stage_seconds:p95_5m",
    ):
        print(f"{'':7}{query}: {watch.value(query)}")
    for kind, seen in stream.statuses.items():
        print(f"{'':7}{kind}: " + ", ".join(f"{count} x {status}" for status, count in sorted(seen.items())))
    print("The service ends; Prometheus notices:", flush=True)
    service.close()
    watch.look_until(lambda: "TargetDown" in watch.fired)


if __name__ == "__main__":
    main()
