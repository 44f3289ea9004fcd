"""The workflows are valid, pinned, least privileged, and call targets and files that exist."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
PATHS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
each_workflow = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def parsed(path: Path) -> dict[str, Any]:
    workflow: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return workflow


def commands(path: Path) -> Iterator[str]:
    for job in parsed(path)["jobs"].values():
        for step in job.get("steps", []):
            yield step.get("run", "")


def check(schema: str, *paths: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, paths)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_workflows_are_what_github_takes() -> None:
    check("vendor.github-workflows", *PATHS)


def test_the_updates_of_pins_are_what_dependabot_takes() -> None:
    check("vendor.dependabot", ROOT / ".github" / "dependabot.yaml")


@each_workflow
def test_actions_are_pinned_by_hash_with_their_version_beside_it(path: Path) -> None:
    for line in path.read_text(encoding="utf-8").splitlines():
        used = re.search(r"\buses: (.*)", line)
        assert not used or re.fullmatch(r"\./\S+|[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", used[1]), line


@each_workflow
def test_a_workflow_may_read_the_code_and_no_more_unless_a_job_asks(path: Path) -> None:
    assert parsed(path)["permissions"] == {"contents": "read"}


@each_workflow
def test_a_workflow_does_not_run_beside_itself(path: Path) -> None:
    assert parsed(path)["concurrency"]["group"]


@each_workflow
def test_a_job_of_steps_ends_by_itself(path: Path) -> None:
    assert all("timeout-minutes" in job for job in parsed(path)["jobs"].values() if "steps" in job)


@each_workflow
def test_what_others_write_is_never_part_of_a_command(path: Path) -> None:
    untrusted = re.compile(r"\$\{\{ *(github\.event|github\.head_ref|inputs|secrets)")
    assert not any(untrusted.search(command) for command in commands(path))


@each_workflow
def test_make_is_asked_for_targets_that_exist(path: Path) -> None:
    asked = {target for command in commands(path) for target in re.findall(r"\bmake ([a-z-]+)", command)}
    assert asked <= TARGETS


def test_production_gets_what_staging_got() -> None:
    jobs = parsed(ROOT / ".github" / "workflows" / "ci.yaml")["jobs"]
    staging, production = dict(jobs["staging"]["with"]), dict(jobs["production"]["with"])
    assert (staging.pop("environment"), production.pop("environment")) == ("staging", "production")
    assert staging == production and "staging" in jobs["production"]["needs"]


def test_training_is_released_by_nothing_but_the_gate() -> None:
    steps = [command for command in commands(ROOT / ".github" / "workflows" / "train.yaml") if command]
    assert steps[-2:] == ["make promote", "make card"]


@pytest.mark.parametrize(
    "target", ["deploy", "verify-deployed", "rollback", "containerize", "bento", "sbom", "compose"]
)
def test_a_target_of_delivery_can_be_laid_out(target: str) -> None:
    names = {"REGISTRY": "registry.example", "DIGEST": "sha256:0", "UI_DIGEST": "sha256:1", "VALUES": "values.yaml"}
    command = ["make", "--dry-run", target, *(f"{name}={value}" for name, value in names.items())]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_nobody_is_told_where_no_address_is_set() -> None:
    result = subprocess.run(["make", "tell"], cwd=ROOT, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    assert (result.returncode, result.stdout.strip()) == (0, "SLACK_WEBHOOK is not set; nobody is told.")


def test_the_list_of_what_is_installed_names_every_locked_package(tmp_path: Path) -> None:
    lock = ROOT / "requirements-serve.lock"
    command = [sys.executable, "-m", "cyclonedx_py", "requirements", "-o", str(tmp_path / "sbom.json"), str(lock)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    listed = yaml.safe_load((tmp_path / "sbom.json").read_text(encoding="utf-8"))["components"]
    locked = re.findall(r"^([\w.-]+)(?:\[[\w,]+\])?==", lock.read_text(encoding="utf-8"), re.MULTILINE)
    assert {part["name"].lower() for part in listed} == {name.lower() for name in locked}
