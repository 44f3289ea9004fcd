"""A model folder is used only when every byte is the one it was sealed with."""

import json
import shutil
from pathlib import Path

import pytest

from detector import artefact
from detector.errors import InvalidArtefact


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(model_folder, tmp_path / "model"))


def test_a_sealed_folder_loads(folder: Path) -> None:
    loaded = artefact.load(folder)
    assert loaded.spec.name == "product-photo-detector"
    assert loaded.calibrations["fast"].thresholds.real == 0.2
    assert loaded.info("fast").hash == loaded.manifest.hash
    assert loaded.document("report.json") == {"labels": {"auc": "0.5"}}


@pytest.mark.parametrize("name", ["a.xml", "a.st", "spec.json", "calibration.json", "baseline.json", "report.json"])
def test_one_changed_byte_is_seen(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(InvalidArtefact, match=rf"{name} is not the file it was"):
        artefact.load(folder)


@pytest.mark.parametrize("name", ["b.st", "spec.json", "manifest.json"])
def test_a_missing_part_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(InvalidArtefact, match=rf"{name} is missing"):
        artefact.load(folder)


def test_a_folder_that_does_not_exist_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InvalidArtefact, match="There is no model in"):
        artefact.load(tmp_path / "nowhere")


def test_a_network_outside_the_manifest_is_refused(folder: Path) -> None:
    spec = json.loads((folder / "spec.json").read_text())
    spec["experts"][0]["network"] = "../elsewhere.xml"
    (folder / "spec.json").write_text(json.dumps(spec))
    artefact.seal(folder, "test")
    with pytest.raises(InvalidArtefact, match=r"named in spec\.json but not in manifest\.json"):
        artefact.load(folder)


def test_a_profile_without_calibration_is_refused(folder: Path) -> None:
    calibration = json.loads((folder / "calibration.json").read_text())
    del calibration["fast"]
    (folder / "calibration.json").write_text(json.dumps(calibration))
    artefact.seal(folder, "test")
    with pytest.raises(InvalidArtefact, match="different profiles"):
        artefact.load(folder)


def test_the_hash_does_not_depend_on_where_or_when(folder: Path, model_folder: Path) -> None:
    assert artefact.seal(folder, "later").hash == artefact.load(model_folder).manifest.hash
