"""Proof of a Bento where no container engine is at hand: its lock in an empty environment, served from there.

Keeps an image's rules as far as a process can: another user, who may write to one folder only, and no installer.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from deploy.verify import verify
from detector.client import Client
from detector.schema import Verdict

USER = 1034  # as in deploy/Dockerfile
START, STOP = 180.0, 90.0  # seconds


@dataclass(frozen=True)
class Proof:
    verdict: Verdict  # on the known photo
    user: int  # who served
    installed: int  # bytes of environment, Bento and model
    status: int  # of the process, after SIGTERM
    written: frozenset[str]  # entries of the served tree that were not there before


def prove(bundle: Path, uv: str) -> Proof:
    """Install and serve what `deploy.bundle` wrote; raises what `verify` and subprocess raise."""
    python, user = _python_and_user()
    with TemporaryDirectory(prefix="ppd-proof-") as name:
        root = Path(name)
        root.chmod(0o755)
        shutil.copytree(bundle, root / "bento")
        _install(uv, python, root)
        before = _tree(root)
        (root / "home").mkdir()
        os.chown(root / "home", user, -1)
        with _served(root, user) as (client, process):
            verdict = verify(client, client.address, wait=START)
            process.send_signal(signal.SIGTERM)
            status = process.wait(STOP)
        after = {path: size for path, size in _tree(root).items() if not path.startswith("home")}
        return Proof(verdict, user, sum(before.values()), status, frozenset(after.keys() - before.keys()))


def _python_and_user() -> tuple[str, int]:
    """An interpreter that the other user may reach; where there is none, or we are not root, we stay who we are."""
    for python in (os.path.realpath(sys.executable), "/usr/bin/python3.11"):
        reachable = all(folder.stat().st_mode & 0o001 for folder in Path(python).parents)
        if os.geteuid() == 0 and reachable and Path(python).exists():
            return python, USER
    return sys.executable, os.geteuid()


def _install(uv: str, python: str, root: Path) -> None:
    environment, lock = root / "venv", root / "bento" / "requirements.lock"
    subprocess.run([uv, "venv", "-q", "--python", python, environment], check=True)
    into = [uv, "pip", "sync", "-q", "--python", str(environment / "bin" / "python")]
    subprocess.run([*into, "--require-hashes", "--only-binary", ":all:", str(lock)], check=True)


def _tree(root: Path) -> dict[str, int]:
    """Every file under `root` with its bytes."""
    return {str(path.relative_to(root)): path.lstat().st_size for path in root.rglob("*") if path.is_file()}


@contextmanager
def _served(root: Path, user: int) -> Iterator[tuple[Client, subprocess.Popen[bytes]]]:
    port, home = _free_port(), root / "home"
    environ = {
        "PATH": f"{root / 'venv' / 'bin'}:/usr/bin:/bin",
        "HOME": str(home),
        "TMPDIR": str(home),
        "BENTOML_HOME": str(home / "bentoml"),
        "BENTOML_CONTAINERIZED": "true",
        "BENTOML_DO_NOT_TRACK": "True",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    bentoml, bento = str(root / "venv" / "bin" / "bentoml"), str(root / "bento")
    command = [bentoml, "serve", bento, "--host", "127.0.0.1", "--port", str(port)]
    other: dict[str, Any] = {"user": user, "group": user, "extra_groups": []} if user != os.geteuid() else {}
    process = subprocess.Popen(command, cwd=root / "bento" / "src", env=environ, **other)
    try:
        with Client(f"http://127.0.0.1:{port}", environ={}) as client:
            yield client, process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.prove", description=__doc__)
    parser.add_argument("bundle", type=Path, help="the folder that `python -m deploy.bundle` wrote")
    parser.add_argument("--uv", default="uv")
    parser.add_argument("--record", type=Path, help="write the verdict on the known photo to this file")
    options = parser.parse_args()
    proof = prove(options.bundle, options.uv)
    if proof.status or proof.written:
        sys.exit(f"Exit status {proof.status}; written outside the one folder: {sorted(proof.written)}")
    if options.record:
        options.record.write_text(proof.verdict.model_dump_json(indent=2), encoding="utf-8")
    print(
        f"Proven as user {proof.user}: the known photo is {proof.verdict.label} ({proof.verdict.probability:.4f}); "
        f"{proof.installed / 1e6:.0f} MB installed (environment, Bento and model, without the base image)."
    )


if __name__ == "__main__":
    main()
