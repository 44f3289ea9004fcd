"""A process that others need outlives them, and one that hangs ends all the same; with real processes."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.serving import ROOT

OUTLIVE = """
import signal, sys, time
from pathlib import Path
from detector import shutdown
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
needed, address = Path(sys.argv[1]), Path(sys.argv[2])
def end(*_): globals().update(ended=True)
ended = False
signal.signal(signal.SIGTERM, end)
shutdown.outlive(needed.exists, float(sys.argv[3]), address)
print("ready", flush=True)
while not ended: time.sleep(0.01)
"""
FORCE = """
import signal, time
from detector import shutdown
signal.signal(signal.SIGTERM, lambda *_: None)
shutdown.force_after(0.1)
print("ready", flush=True)
time.sleep(60)
"""


def start(code: str, *arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", code, *map(str, arguments)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.stdout.close()
    return process


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert path.exists()


def test_it_goes_on_while_it_is_needed_and_gets_its_address_back(tmp_path: Path) -> None:
    needed, address = tmp_path / "needed", tmp_path / "sockets" / "scorer.sock"
    address.parent.mkdir()
    for path in (needed, address):
        path.write_text("here")
    process = start(OUTLIVE, needed, address, 60)
    address.unlink()
    address.parent.rmdir()
    process.send_signal(signal.SIGTERM)
    wait_for(address)
    assert address.read_text() == "here"
    assert process.poll() is None
    needed.unlink()
    assert process.wait(20) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == []


def test_its_patience_has_an_end(tmp_path: Path) -> None:
    (tmp_path / "sockets").mkdir()
    process = start(OUTLIVE, tmp_path, tmp_path / "sockets" / "none.sock", 0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0


def test_a_process_that_does_not_end_is_ended() -> None:
    process = start(FORCE)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 1
