"""Documents say what the code does."""

import re
import tomllib
from pathlib import Path

from detector import errors

ROOT = Path(__file__).parent.parent


def rows(document: str) -> list[list[str]]:
    lines = (ROOT / document).read_text(encoding="utf-8").splitlines()
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]


def test_every_problem_code_is_documented_with_its_status() -> None:
    documented = {row[0]: row[1] for row in rows("docs/api.md") if re.fullmatch(r"\d{3}", row[1])}
    served = {code: str(kind.status) for code, kind in errors.by_code().items()}
    start_up = {"invalid_settings", "invalid_artefact"}
    assert documented == {code: status for code, status in served.items() if code not in start_up}


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


def test_the_bento_holds_every_module_the_service_imports() -> None:
    text = (ROOT / "bentofile.yaml").read_text()
    for part in ("service.py", "configuration.yaml", "detector/*.py", "detector/provenance/*.py"):
        assert part in text


def test_links_lead_to_files_that_exist() -> None:
    for document in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name}: {target}"
