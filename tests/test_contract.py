"""schemathesis finds no answer of the real service that the OpenAPI document does not tell."""

import subprocess
import sys
from pathlib import Path

import httpx

from tests import serving


def test_every_answer_is_as_the_document_says(bento_home: Path, tmp_path: Path) -> None:
    unlimited = {
        f"PPD_LIMITS__{route}": "null" for route in ("PREDICT", "BATCH", "EXPLAIN", "DECISIONS", "FEEDBACK", "DRIFT")
    }
    path = str(tmp_path / "d.sqlite")
    with serving.serving(bento_home, tmp_path / "log", PPD_DECISIONS__PATH=path, **unlimited) as service:
        status, said = examine(service, tmp_path)
    assert status == 0, said


def examine(service: httpx.Client, folder: Path) -> tuple[int, str]:
    """Exit status and report. Same seed, few examples: the same requests every time, in less than a minute."""
    options = ["--seed", "1", "--max-examples", "10", "--phases", "examples,coverage,fuzzing", "--no-shrink"]
    command = [
        Path(sys.executable).with_name("schemathesis"),
        "--config-file",
        serving.ROOT / "tests/schemathesis.toml",
    ]
    command += [
        "run",
        str(service.base_url.join("/docs.json")),
        "--no-color",
        "--generation-database",
        "none",
        *options,
    ]
    done = subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout[-8000:] + done.stderr[-2000:]
