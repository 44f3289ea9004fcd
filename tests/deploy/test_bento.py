"""A Bento is proven as an image would run it: its lock alone, another user, a tree that stays as it was."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.prove import Proof, prove
from tests import serving

ROOT = serving.ROOT


@pytest.fixture(scope="module")
def bundle(bento_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make bento` makes, with the small model."""
    home, folder = tmp_path_factory.mktemp("store") / "home", tmp_path_factory.mktemp("bundle") / "cpu"
    shutil.copytree(bento_home, home)
    environ = serving.environment(home)
    environ["PATH"] = f"{ROOT / '.venv' / 'uv' / 'bin'}:{environ['PATH']}"
    command = [sys.executable, "-m", "deploy.bundle", "cpu", str(folder)]
    subprocess.run(command, cwd=ROOT, env=environ, check=True, capture_output=True, timeout=120)
    return folder


@pytest.fixture(scope="module")
def proof(bundle: Path) -> Proof:
    return prove(bundle, str(ROOT / ".venv" / "uv" / "bin" / "uv"))


def test_the_bento_holds_every_module_of_the_service_and_nothing_else(bundle: Path) -> None:
    source = bundle / "src"
    modules = {path.relative_to(ROOT) for path in (ROOT / "detector").rglob("*.py")}
    others = {Path(name) for name in ("service.py", "configuration.yaml", "README.md", "LICENSE", "bentofile.yaml")}
    assert {path.relative_to(source) for path in source.rglob("*") if path.is_file()} == modules | others


def test_the_bento_brings_its_lock_with_every_hash(bundle: Path) -> None:
    assert (bundle / "requirements.lock").read_bytes() == (ROOT / "requirements-serve.lock").read_bytes()


def test_the_bento_brings_its_model(bundle: Path) -> None:
    assert [path.parent.parent.name for path in bundle.glob("models/*/*/manifest.json")] == ["product-photo-detector"]


def test_every_file_of_the_bento_can_be_read_and_none_written_by_another_user(bundle: Path) -> None:
    modes = {path.stat().st_mode & 0o777 for path in bundle.rglob("*")}
    assert modes == {0o755, 0o644}


def test_the_bento_scores_the_known_photo_and_refuses_a_broken_one(proof: Proof) -> None:
    assert proof.verdict.model.name == "product-photo-detector"  # `prove` raises where a photo is misjudged


def test_the_bento_is_served_by_a_user_other_than_root(proof: Proof) -> None:
    assert proof.user != 0 or not Path("/usr/bin/python3.11").exists()


def test_the_bento_ends_well_on_sigterm(proof: Proof) -> None:
    assert proof.status == 0


def test_the_served_tree_stays_as_it_was(proof: Proof) -> None:
    assert proof.written == frozenset()


def test_an_image_for_cpu_stays_small(proof: Proof) -> None:
    assert proof.installed < 1_000_000_000  # bytes; the base image adds about 130 MB


@pytest.mark.parametrize("lock", sorted(ROOT.glob("requirements-*.lock")), ids=lambda path: path.name)
def test_nothing_that_reports_home_is_installed(lock: Path) -> None:
    assert "openvino-telemetry" not in lock.read_text(encoding="utf-8")
