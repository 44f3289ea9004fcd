"""Documents say what the code does."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import httpx
import pytest

from detector import errors
from tests import serving
from tests.conftest import encoded, make_photo

ROOT = Path(__file__).parent.parent


def rows(document: str) -> list[list[str]]:
    lines = (ROOT / document).read_text(encoding="utf-8").splitlines()
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]


def test_every_problem_code_is_documented_with_its_status() -> None:
    documented = {row[0]: row[1] for row in rows("docs/api.md") if re.fullmatch(r"\d{3}", row[1])}
    served = {code: str(kind.status) for code, kind in errors.by_code().items()}
    start_up = {"invalid_settings", "invalid_artefact", "invalid_scan"}
    of_a_scan = {kind.code for kind in errors.Unfetched.__subclasses__()}
    assert documented == {code: status for code, status in served.items() if code not in start_up | of_a_scan}
    assert of_a_scan <= {row[0] for row in rows("docs/scan.md")}


def test_every_direct_dependency_is_documented_with_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    direct = [
        *project["dependencies"],
        *(name for names in project["optional-dependencies"].values() for name in names),
    ]
    packages = {re.split(r"[\[=<>~]", name)[0] for name in direct} - {project["name"]}
    documented = {row[0]: row[2] for row in rows("docs/dependencies.md")}
    assert packages - documented.keys() == set()
    assert all(documented[package] for package in packages)


def test_links_lead_to_files_that_exist() -> None:
    for document in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def blocks(language: str) -> list[tuple[str, str]]:
    documents = [ROOT / "README.md", ROOT / "docs" / "sdk.md"]
    texts = {path.name: path.read_text(encoding="utf-8") for path in documents}
    pattern = rf"```{language}\n(.*?)```"
    return [(name, code) for name, text in texts.items() for code in re.findall(pattern, text, re.DOTALL)]


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder as a reader of the documents has it: two photos, and the `detector` command on the path."""
    (tmp_path / "photo.jpg").write_bytes(encoded(make_photo(), quality=90))
    (tmp_path / "other.png").write_bytes(encoded(make_photo(seed=1), "PNG"))
    command = tmp_path / "bin" / "detector"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m detector "$@"\n')
    command.chmod(0o755)
    return tmp_path


def run_block(desk: Path, service: httpx.Client, command: list[str]) -> None:
    environ = serving.environment(desk, PPD_ADDRESS=str(service.base_url).rstrip("/"), PYTHONPATH=str(ROOT))
    environ["PATH"] = f"{desk / 'bin'}:{environ['PATH']}"
    result = subprocess.run(command, cwd=desk, env=environ, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(("name", "code"), blocks("python"))
def test_python_in_the_documents_runs(name: str, code: str, desk: Path, service: httpx.Client) -> None:
    run_block(desk, service, [sys.executable, "-W", "error", "-c", code])


@pytest.mark.parametrize(("name", "code"), [(name, code) for name, code in blocks("bash") if "detector " in code])
def test_shell_in_the_documents_runs(name: str, code: str, desk: Path, service: httpx.Client) -> None:
    run_block(desk, service, ["bash", "-euo", "pipefail", "-c", code])
