"""The Dockerfiles: linted, of one base, installed by what installs everywhere else, run by nobody of importance."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from deploy import prove

ROOT = Path(__file__).parent.parent.parent
FILES = {name: (ROOT / "deploy" / name).read_text(encoding="utf-8") for name in ("Dockerfile", "ui.Dockerfile")}
each_file = pytest.mark.parametrize("name", FILES)


@each_file
def test_hadolint_finds_nothing(name: str) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    result = subprocess.run([hadolint, ROOT / "deploy" / name], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "")


@each_file
def test_the_base_is_the_same_for_every_stage_and_has_a_whole_version(name: str) -> None:
    assert re.findall(r"^FROM (\S+)", FILES[name], re.MULTILINE) == ["python:${PYTHON}"] * 2
    assert re.findall(r"^ARG PYTHON=(\S+)", FILES[name], re.MULTILINE) == ["3.11.14-slim-bookworm"]


@each_file
def test_the_installer_is_the_one_of_the_makefile(name: str) -> None:
    installer = r"uv==[\d.]+"
    assert re.findall(installer, FILES[name]) == re.findall(installer, (ROOT / "Makefile").read_text(encoding="utf-8"))


@each_file
def test_packages_are_wheels_held_to_their_hashes(name: str) -> None:
    assert "--require-hashes --only-binary :all:" in FILES[name]


@each_file
def test_the_user_is_the_one_that_the_proof_runs_as(name: str) -> None:
    assert re.findall(r"^USER (\S+)", FILES[name], re.MULTILINE) == [f"{prove.USER}:{prove.USER}"]


@each_file
def test_the_signal_that_stops_it_is_the_one_that_the_service_answers(name: str) -> None:
    assert "\nSTOPSIGNAL SIGTERM\n" in FILES[name]


def test_the_page_s_image_sees_neither_the_model_nor_the_history() -> None:
    seen = (ROOT / "deploy" / "ui.Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert seen[0] == "*" and "detector/default_model" in seen and "!.git" not in seen
