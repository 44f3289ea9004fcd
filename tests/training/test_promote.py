"""training.promote: a worse model never becomes the default, and a better one does so whole."""

import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from detector.artefact import Artefact, load
from training.assemble import write
from training.promote import Gate, InvalidGate, check, figure, install, present_default, table

RECIPE = Path(__file__).parent.parent.parent / "training" / "gate.yaml"


@pytest.fixture(scope="module")
def candidate(judged: Artefact, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    """`judged`, whose fusion left expert a without a profile, with both experts at work."""
    spec = judged.spec.model_dump()
    spec["profiles"]["accurate"]["weights"] = {"a": 0.1, "b": 1.0}
    folder = Path(shutil.copytree(judged.folder, tmp_path_factory.mktemp("candidate") / "model"))
    return write(folder, "candidate", {"spec": spec})


def changed(candidate: Artefact, folder: Path, auc: float = 0.0, **values: Any) -> Artefact:
    """A copy whose `accurate` clean AUC on test is moved, and whose report holds other values."""
    report = deepcopy(candidate.document("report.json")) | values
    report["profiles"]["accurate"]["splits"]["test"]["tiers"]["clean"]["auc"]["value"] += auc
    return write(Path(shutil.copytree(candidate.folder, folder)), "changed", {"report": report})


def failed(gate: Gate, candidate: Artefact, present: Artefact | None = None) -> list[str]:
    return [found.name for found in check(gate, candidate, present) if not found.passed]


def test_floors_and_ceilings_hold_exactly(candidate: Artefact) -> None:
    report = candidate.document("report.json")
    auc = report["profiles"]["accurate"]["splits"]["test"]["tiers"]["clean"]["auc"]["value"]
    assert failed(Gate(floors={"accurate.clean.auc": auc}, ceilings={"accurate.clean.auc": auc}), candidate) == []
    assert failed(Gate(floors={"accurate.clean.auc": auc + 1e-6}), candidate) == ["accurate.clean.auc"]
    assert failed(Gate(ceilings={"accurate.clean.auc": auc - 1e-6}), candidate) == ["accurate.clean.auc"]


def test_the_worst_large_source_counts_and_small_ones_do_not(candidate: Artefact) -> None:
    report = deepcopy(candidate.document("report.json"))
    sources = report["profiles"]["fast"]["splits"]["test"]["groups"]["sources"]
    for name, photos, share in (("test-real-0", 19, 0.9), ("test-real-1", 20, 0.25), ("test-real-2", 50, 0.1)):
        sources[name]["real"]["photos"] = photos
        sources[name]["real"]["flagged"]["share"] = share
    assert figure(report, Gate(), "fast.source_fpr") == 0.25
    assert figure(report, Gate(smallest_source=51), "fast.source_fpr") is None


def test_a_figure_that_the_report_lacks_fails_and_one_that_none_could_have_is_named(candidate: Artefact) -> None:
    assert failed(Gate(split="elsewhere", floors={"accurate.clean.auc": 0.0}), candidate) == ["accurate.clean.auc"]
    assert failed(Gate(ceilings={"accurate.clean.mood": 1.0}), candidate) == ["accurate.clean.mood"]
    with pytest.raises(InvalidGate, match="accurate: names no figure"):
        failed(Gate(floors={"accurate": 0.0}), candidate)


def test_a_model_worse_than_the_default_is_refused_with_the_reason(candidate: Artefact, tmp_path: Path) -> None:
    gate = Gate(no_worse=("accurate.clean.auc",), slack=0.01)
    worse, little = changed(candidate, tmp_path / "worse", -0.02), changed(candidate, tmp_path / "little", -0.005)
    assert failed(gate, worse, candidate) == ["accurate.clean.auc (default)"]
    assert failed(gate, little, candidate) == []
    assert failed(gate, candidate, worse) == []
    assert table(check(gate, worse, candidate)).startswith("FAIL accurate.clean.auc (default)")


def test_figures_that_should_fall_are_compared_the_other_way(candidate: Artefact, tmp_path: Path) -> None:
    report = deepcopy(candidate.document("report.json"))
    report["profiles"]["accurate"]["splits"]["test"]["tiers"]["mixture"]["ece"]["value"] += 0.1
    worse = changed(candidate, tmp_path / "worse", profiles=report["profiles"])
    gate = Gate(no_worse=("accurate.mixture.ece",))
    assert failed(gate, worse, candidate) == ["accurate.mixture.ece (default)"]
    assert failed(gate, candidate, worse) == []


def test_other_photos_are_no_comparison_and_an_unjudged_default_is_never_better(
    candidate: Artefact, artefact: Artefact, tmp_path: Path
) -> None:
    gate = Gate(no_worse=("accurate.clean.auc",))
    data = candidate.document("report.json")["data"] | {"hash": "other"}
    assert failed(gate, candidate, changed(candidate, tmp_path / "other", data=data)) == ["photos judged by"]
    assert failed(gate, candidate, artefact) == []


def test_a_large_folder_and_an_expert_without_a_profile_are_refused(candidate: Artefact, tmp_path: Path) -> None:
    assert failed(Gate(largest=0.001), candidate) == ["megabytes"]
    spec = candidate.spec.model_dump()
    spec["profiles"]["accurate"]["weights"] = {"b": 1.0}
    idle = write(Path(shutil.copytree(candidate.folder, tmp_path / "idle")), "idle", {"spec": spec})
    assert failed(Gate(), idle) == ["experts without a profile"]


def test_a_promoted_model_replaces_the_default_whole(candidate: Artefact, artefact: Artefact, tmp_path: Path) -> None:
    default = tmp_path / "default"
    shutil.copytree(artefact.folder, default)
    (default / "left-over.bin").write_bytes(b"x")
    install(candidate, default)
    assert load(default).manifest == candidate.manifest
    assert not (default / "left-over.bin").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["default"]


def test_a_default_that_is_absent_or_altered_is_none(candidate: Artefact, tmp_path: Path) -> None:
    assert present_default(tmp_path / "none") is None
    copy = Path(shutil.copytree(candidate.folder, tmp_path / "copy"))
    (copy / "report.json").write_text("{}")
    assert present_default(copy) is None


def test_the_gate_that_ships_is_read_and_refuses_the_tiny_model(candidate: Artefact) -> None:
    assert "accurate.clean.auc" in failed(Gate.read(RECIPE), candidate)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("flors: {}", "flors: Extra inputs"), ("floors: {a.b.c: high}", r"floors\.a\.b\.c"), ("floors: {", "is not YAML")],
)
def test_a_faulty_gate_ends_in_one_line(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "gate.yaml").write_text(text)
    with pytest.raises(InvalidGate, match=complaint) as raised:
        Gate.read(tmp_path / "gate.yaml")
    assert "\n" not in str(raised.value)
