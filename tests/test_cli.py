"""The command line: what it prints, and the exit codes that scripts rely on."""

import json
import re
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from PIL import Image

from detector.cli import main
from detector.client import Client, MockService
from detector.errors import ModelUnavailable, TooSmall
from detector.schema import Drift
from tests import serving


@pytest.fixture
def photo_path(tmp_path: Path, jpeg: bytes) -> Path:
    path = tmp_path / "cup.jpg"
    path.write_bytes(jpeg)
    return path


def test_the_three_commands_against_the_real_service(service: httpx.Client, photo_path: Path) -> None:
    def detector(*arguments: str) -> "subprocess.CompletedProcess[str]":
        environ = serving.environment(Path("unused"), PPD_ADDRESS=str(service.base_url))
        command = [sys.executable, "-W", "error", "-m", "detector", *arguments]
        return subprocess.run(command, cwd=serving.ROOT, env=environ, capture_output=True, text=True, timeout=300)

    checked = detector("check", str(photo_path), "--json")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert json.loads(checked.stdout)["items"][0]["verdict"]["image"]["width"] == 160
    overlay = photo_path.with_name("overlay.png")
    explained = detector("explain", str(photo_path), "-o", str(overlay))
    assert (explained.returncode, "of the evidence lies" in explained.stdout) == (0, True)
    assert Image.open(BytesIO(overlay.read_bytes())).size == (160, 120)
    assert detector("health").returncode == 0


def test_a_table_names_each_photo_with_its_verdict_or_error(
    photo_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    service = MockService(lambda photo: 0.97 if photo else TooSmall("Tiny."))
    empty = photo_path.with_name("\x1b[2Jempty.jpg")
    empty.touch()
    assert main(["check", str(photo_path), str(empty)], transport=service) == 3
    first, second = capsys.readouterr().out.splitlines()[1:]
    assert re.split(r" {2,}", first)[1:] == ["Likely AI-generated", "97.0 %", "high"]
    assert "too_small: Tiny." in second
    assert "\x1b" not in second and "\\u001b[2Jempty.jpg" in second


def test_rich_prints_the_same_cells(photo_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(photo_path)], transport=MockService(0.5)) == 0
    printed = capsys.readouterr().out
    assert "Uncertain" in printed and "50.0 %" in printed and "┃" in printed


@pytest.mark.parametrize(
    ("answer", "arguments", "code"),
    [
        (0.97, [], 0),
        (0.97, ["--fail-on", "ai_generated"], 1),
        (0.5, ["--fail-on", "ai_generated"], 0),
        (0.5, ["--fail-on", "ai_generated", "--fail-on", "uncertain"], 1),
        (TooSmall(), ["--fail-on", "ai_generated"], 3),
    ],
)
def test_exit_codes_of_check(answer: float, arguments: list[str], code: int, photo_path: Path) -> None:
    assert main(["check", str(photo_path), *arguments], transport=MockService(answer)) == code


def test_a_service_that_does_not_answer_is_exit_4(photo_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--timeout", "0.1"]
    script = [ModelUnavailable("Down.")]
    assert main(["check", str(photo_path), *arguments], transport=MockService(script=script * 1)) == 4
    assert main(["explain", str(photo_path), "-o", "x.png", *arguments], transport=MockService(script=script)) == 4
    assert main(["health", *arguments], transport=httpx.MockTransport(_nobody)) == 4
    assert "Down. [model_unavailable]" in capsys.readouterr().err


def _nobody(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("nobody")


def test_a_missing_file_is_exit_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone = tmp_path / "gone.jpg"
    assert main(["explain", str(gone), "-o", "x.png"], transport=MockService()) == 3
    assert "gone.jpg: No such file or directory" in capsys.readouterr().err


def test_a_dash_reads_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=BytesIO(b"piped")))
    assert main(["check", "-", "--json"], transport=MockService()) == 0
    assert json.loads(capsys.readouterr().out)["items"][0]["verdict"]["image"]["bytes"] == 5


def test_the_key_comes_from_the_environment() -> None:
    service = MockService()
    assert main(["health"], environ={"PPD_API_KEY": "k"}, transport=service) == 0
    assert service.requests[0].headers["x-api-key"] == "k"


def test_wrong_usage_is_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["check"])
    assert ended.value.code == 2


def test_drift_is_printed_in_words_and_an_alarm_is_an_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drift"], transport=MockService()) == 0
    assert capsys.readouterr().out == "A stand-in compares nothing.\n"
    drifted = Client(transport=MockService()).drift().model_copy(update={"verdict": "drifted"}).model_dump_json()
    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=drifted))
    assert main(["drift", "--json"], transport=transport) == 1
    assert Drift.model_validate_json(capsys.readouterr().out).verdict == "drifted"
