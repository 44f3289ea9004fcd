"""`python -m training`: the whole way from trained experts to a promoted default, and one line for every fault."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn

from detector.artefact import Artefact, load
from detector.networks import ConvExpert
from tests.conftest import SIZE, Tiny
from training import assemble, commands, data, probe, tracking, train
from training.__main__ import FAULT, INTERRUPTED, main
from training.recipe import Recipe

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def place(manifest: Path, networks: dict[str, Tiny], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with trained experts, in which `tiny` is an architecture."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bento"))
    monkeypatch.setenv("TRAINING_DATA", str(manifest))
    monkeypatch.setattr(assemble, "build", lambda _: Tiny(0))
    view = {"kind": "whole"}
    experts: list[dict[str, Any]] = [
        {"name": name, "architecture": "tiny", "state": [f"{name}.safetensors"], "views": [view]} for name in networks
    ]
    experts[1]["parts"] = {"trunk.safetensors": "trunk.", "b.safetensors": ""}
    for name, network in networks.items():
        save_file(network.state_dict(), tmp_path / f"{name}.safetensors")
    (tmp_path / "experts.yaml").write_text(yaml.safe_dump({"size": SIZE, "experts": experts}))
    (tmp_path / "gate.yaml").write_text("floors: {accurate.clean.auc: 0.2}\nno_worse: [accurate.clean.auc]\n")
    return tmp_path


def call(*arguments: str) -> int:
    return main(arguments)


def fault(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a call ends in."""
    capsys.readouterr()
    assert main(arguments) == FAULT
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith(f"training {arguments[0]}: ")
    return line


def test_trained_experts_become_the_default(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Export, calibrate, evaluate, promote, card; and the store holds what the default folder holds."""
    experts = yaml.safe_load(Path("experts.yaml").read_text())
    Path("experts.yaml").write_text(yaml.safe_dump(experts | {"experts": experts["experts"][1:]}))
    assert call("export", "experts.yaml") == 0
    assert "largest difference in probability: accurate" in capsys.readouterr().out
    assert call("calibrate", "--budget", "0.1") == 0
    assert "Left out, for they can't be read: 1\n  broken.jpg: " in capsys.readouterr().out
    assert call("evaluate", "--splits", "val", "test", "--rounds", "10") == 0
    assert call("promote", "--gate", "gate.yaml", "--default", "default", "--version", "1.2.3") == 0
    told = capsys.readouterr().out
    promoted = load(Path("default"))
    assert promoted.manifest.version == "1.2.3"
    assert promoted.document("baseline.json")["photos"] == 24
    assert f"product-photo-detector:{promoted.manifest.hash[:12]}" in told
    assert list(Path("runs").glob("judged/*/worst-accurate-test.png"))
    assert call("card", "--model", "default", "--out", "card.md") == 0
    assert "| `accurate` | hard |" in Path("card.md").read_text()


def test_a_worse_model_is_refused_with_a_table_of_why(
    place: Path, candidate_pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    worse, better = candidate_pair
    before = load(better).manifest
    assert main(["promote", "--model", str(worse), "--default", str(better), "--gate", "gate.yaml"]) == FAULT
    told = capsys.readouterr()
    assert "FAIL accurate.clean.auc (default)" in told.out
    assert told.err.strip() == "training promote: the model stays where it is; the default is unchanged"
    assert load(better).manifest == before


@pytest.fixture
def candidate_pair(judged: Artefact, tmp_path: Path) -> tuple[Path, Path]:
    """The same model, and the same with a report that claims more."""
    report = json.loads((judged.folder / "report.json").read_text())
    worse = Path(shutil.copytree(judged.folder, tmp_path / "worse"))
    better = Path(shutil.copytree(judged.folder, tmp_path / "better"))
    report["profiles"]["accurate"]["splits"]["test"]["tiers"]["clean"]["auc"]["value"] += 0.05
    assemble.write(better, "better", {"report": report})
    return worse, better


RECIPE = {"size": SIZE, "photos": 4, "steps": 2, "warmup": 1, "bfloat16": False, "threads": 1, "save_every": 1}


class Trunk(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 8, 8, stride=8)

    def forward_features(self, views: Tensor) -> Tensor:
        return torch.relu(self.layer(views))


@pytest.fixture
def recipe(place: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe of two steps of a tiny expert."""
    for folder in (place / "runs", place / "runs" / "tune"):
        folder.mkdir()
        shutil.copy(empty_store, folder / "mlflow.db")

    def start(_: Recipe, __: Path | None = None) -> ConvExpert:
        torch.manual_seed(0)
        return ConvExpert(Trunk(), channels=8)

    monkeypatch.setattr(train, "start", start)
    (place / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    return place / "tiny.yaml"


def test_an_expert_is_trained_tracked_and_gone_on_with(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("train", str(recipe)) == 0
    facts = json.loads(Path("runs/tiny/meta.json").read_text())
    assert facts["step"] == 2
    (tracked,) = tracking.runs(Path("runs/mlflow.db"), "train")
    assert (tracked["name"], tracked["status"], tracked["settings"]["steps"]) == ("tiny", "FINISHED", "2")
    assert tracked["figures"]["auc_hard"] == pytest.approx(facts["judged"][-1]["auc_hard"], abs=1e-4)
    capsys.readouterr()
    assert call("train", str(recipe)) == 0
    assert "continuing at step 2" in capsys.readouterr().out
    recipe.write_text(yaml.safe_dump(RECIPE | {"steps": 3}))
    assert "holds a run of another recipe" in fault(capsys, "train", str(recipe))
    recipe.write_text(yaml.safe_dump(RECIPE | {"mood": 3}))
    assert "tiny.yaml: mood: Extra inputs" in fault(capsys, "train", str(recipe))
    assert "absent.yaml: No such file" in fault(capsys, "train", "absent.yaml")
    recipe.write_text(yaml.safe_dump(RECIPE))
    if not torch.cuda.is_available():
        assert "--device is cuda, but this machine has none" in fault(capsys, "train", str(recipe), "--device", "cuda")
    Path("teacher.json").write_text("[]")
    assert "is not what `python -m training probe` writes" in fault(
        capsys, "train", str(recipe), "--teacher", "teacher.json"
    )


def test_recipes_are_searched_and_the_winner_is_one_to_train_with(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("space.yaml").write_text("learning_rate: {low: 1.0e-3, high: 1.0e-1, log: true}")
    assert call("tune", str(recipe), "--space", "space.yaml", "--trials", "2") == 0
    told = capsys.readouterr().out
    assert "   0 complete" in told
    assert "   1 complete" in told
    best = Recipe.read(Path("runs/tune/best.yaml"))
    assert best.size == SIZE
    assert 1e-3 <= best.learning_rate <= 1e-1
    assert [run["status"] for run in tracking.runs(Path("runs/tune/mlflow.db"), "tune")] == ["FINISHED"] * 2


def test_a_head_is_fitted_on_cached_features_and_teaches(
    place: Path, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = [replace(photo, source=photo.path.name) for photo in data.load(manifest)]  # five sources a class and more
    lines = [f"{photo.path},{data.LABELS[photo.label]},{photo.split},{photo.source}" for photo in photos]
    Path("manifest.csv").write_text("\n".join(["path,label,split,source", *lines]))
    showings = [(str(photo.path), tier) for photo in photos for tier in ("clean", "web", "hard", "degraded-0")]
    labels = np.repeat([photo.label for photo in photos], 4)
    values = np.random.default_rng(0).normal(labels[:, None, None], 2.0, (len(showings), 2, 768)).astype(np.float16)
    Path("features").mkdir()
    np.save("features/values.npy", values)
    Path("features/index.json").write_text(
        json.dumps(
            {"architecture": "clip.b16.1", "size": 224, "lessons": False, "rows": showings, "done": len(showings)}
        )
    )
    call_probe = ("probe", "--data", "manifest.csv", "--features", "features", "--folder", "probe")
    assert call(*call_probe) == 0
    assert "val, hard: AUC 1.0000, TPR at 1 % FPR 1.000" in capsys.readouterr().out
    taught = json.loads(Path("probe/teacher.json").read_text())
    assert len(taught) == 24
    assert np.mean([(probability > 0.5) == ("-ai-" in path) for path, probability in taught.items()]) > 0.9
    assert probe.read(Path("probe/head.safetensors")).clip.taps == (1,)
    Path("features/index.json").write_text(
        json.dumps({"architecture": "clip.b16.1", "size": 224, "lessons": False, "rows": showings, "done": 3})
    )
    assert "are not finished; run the same command again" in fault(capsys, *call_probe)


def test_photos_are_inspected_and_shown(place: Path, manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("data", "--sheet", "sheet.png") == 1
    told = capsys.readouterr().out
    assert "unreadable: 1" in told
    assert "Not sound" in told
    assert call("augment", "--sheet", "new/augment.png", "--photos", "2") == 0
    assert Path("sheet.png").stat().st_size > 10_000
    assert Path("new/augment.png").stat().st_size > 10_000


def test_a_folder_of_photos_is_split_by_source(place: Path, manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in manifest.parent.glob("*-*.jpg"):
        _, label, source, _ = path.stem.split("-")
        target = Path("catalogue") / label / f"{path.stem.rsplit('-', 1)[0]}-{source}" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    assert call("data", "--data", "catalogue") == 0
    told = capsys.readouterr().out
    assert "split by source" in told
    assert "Sound." in told
    for split in ("train", "val", "test"):
        assert f"{split:<8}real" in told


def test_every_fault_of_input_is_one_line(place: Path, judged: Artefact, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such manifest" in fault(capsys, "data", "--data", "absent.csv")
    assert "There is no model in" in fault(capsys, "score", "--model", "absent")
    assert "absent.yaml: there is no such file" in fault(capsys, "export", "absent.yaml")
    assert call("export", "experts.yaml") == 0
    assert "is not calibrated yet" in fault(capsys, "evaluate")
    assert "is not judged yet" in fault(capsys, "card", "--model", "runs/model")
    assert "split elsewhere: holds no photos" in fault(capsys, "score", "--splits", "elsewhere")
    assert "there is no expert z; there are a, b" in fault(capsys, "calibrate", "--fast", "z")
    assert "no such gate" in fault(capsys, "promote", "--gate", "absent.yaml")
    folder = str(judged.folder)
    assert "nowhere/card.md: No such file" in fault(capsys, "card", "--model", folder, "--out", "nowhere/card.md")
    header = "path,label,mood\n"
    Path("odd.csv").write_text(header)
    assert "unknown columns mood" in fault(capsys, "data", "--data", "odd.csv")


def test_networks_that_disagree_are_not_exported(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assemble, "AGREED", 1e-12)
    assert "differ by more than" in fault(capsys, "export", "experts.yaml")


def test_a_full_disk_is_one_line(place: Path, judged: Artefact, capsys: pytest.CaptureFixture[str]) -> None:
    assert "the disk is full" in fault(capsys, "card", "--model", str(judged.folder), "--out", "/dev/full")


def test_a_full_disk_is_known_in_other_libraries_words(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class SafetensorError(Exception):
        pass

    for error in (OSError(errno.ENOSPC, "x"), SafetensorError("I/O error: No space left on device (os error 28)")):

        def fail(_: object, error: Exception = error) -> int:
            raise error

        monkeypatch.setitem(commands.COMMANDS, "score", fail)
        assert "the disk is full" in fault(capsys, "score")


def test_a_mistake_of_ours_keeps_its_traceback(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(commands.COMMANDS, "score", lambda _: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        call("score")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_is_one_line(
    sent: signal.Signals, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handler is called as the signal would call it; afterwards the caller's own is back."""

    def interrupted(_: object) -> int:
        handler = signal.getsignal(sent)
        assert callable(handler)
        handler(sent, None)
        return 0

    before = signal.getsignal(sent)
    monkeypatch.setitem(commands.COMMANDS, "score", interrupted)
    assert call("score") == INTERRUPTED
    assert capsys.readouterr().err.strip() == "Interrupted; the same command goes on where it was."
    assert signal.getsignal(sent) is before


def test_the_command_line_says_what_there_is_and_asks_for_photos(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRAINING_DATA"}
    told = subprocess.run(
        [sys.executable, "-m", "training", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert all(re.search(rf"^    {name}\b", told, re.MULTILINE) for name in commands.COMMANDS)
    asked = subprocess.run(
        [sys.executable, "-m", "training", "data"], cwd=ROOT, capture_output=True, text=True, env=environment
    )
    assert asked.returncode == FAULT
    assert "--data" in asked.stderr
