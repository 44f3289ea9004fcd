"""training.evaluate: the report's figures are those of the verdicts, and its groups add up."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detector.artefact import Artefact
from detector.calibration import Calibration, Temperature
from detector.ensemble import Fusion
from detector.schema import Thresholds
from training import scores
from training.data import InvalidDataset, Photo, load_manifest
from training.evaluate import describe, draw, evaluate, judge, show_worst
from training.metrics import auc
from training.scores import VARIANTS, InvalidScores, Row, Scores

LIMITS = Thresholds(real=0.4, ai_generated=0.8)


def probabilities(real: list[float], ai: list[float]) -> Scores:
    """Photos whose probability is given, by an expert a; each in every variant, two sources and styles a class."""
    rows = []
    for label, said in enumerate((real, ai)):
        for number, probability in enumerate(said):
            photo = Photo(
                Path(f"{label}-{number}.jpg"),
                label,
                "test",
                source=f"{label}-{number % 2}",
                generator="flux" if label else "",
                style=("white", "")[number % 2],
            )
            logit = float(np.log(probability / (1 - probability)))
            rows += [Row(photo, variant, (logit,)) for variant in VARIANTS]
    return Scores(("a",), tuple(rows))


def by_a(artefact: Artefact) -> Artefact:
    """A model of one profile that says what expert a says."""
    calibration = Calibration(curve=Temperature(method="temperature", temperature=1.0), thresholds=LIMITS)
    spec = artefact.spec.model_copy(update={"profiles": {"accurate": Fusion(weights={"a": 1.0})}})
    return replace(artefact, spec=spec, calibrations={"accurate": calibration})


@pytest.fixture
def report(artefact: Artefact) -> dict[str, Any]:
    given = probabilities(real=[0.1, 0.9, 0.2, 0.5], ai=[0.95, 0.3, 0.85, 0.6])
    found: dict[str, Any] = judge(by_a(artefact), given, ["test"], 50)["profiles"]["accurate"]["splits"]["test"]
    return found


def test_figures_are_those_of_the_verdicts(report: dict[str, Any]) -> None:
    clean = report["tiers"]["clean"]
    assert clean["auc"]["value"] == pytest.approx(
        auc([0, 0, 0, 0, 1, 1, 1, 1], [0.1, 0.9, 0.2, 0.5, 0.95, 0.3, 0.85, 0.6])
    )
    assert (clean["fpr"]["value"], clean["tpr"]["value"], clean["balanced_accuracy"]["value"]) == (0.25, 0.5, 0.625)
    assert clean["fpr"]["low"] <= 0.25 <= clean["fpr"]["high"]


def test_groups_count_the_photos_of_each_and_a_photo_without_one_is_in_none(report: dict[str, Any]) -> None:
    groups = report["groups"]
    assert {name: found["real"]["flagged"]["hits"] for name, found in groups["sources"].items() if name[0] == "0"} == {
        "0-0": 0,
        "0-1": 1,
    }
    assert list(groups["generators"]) == ["flux"]
    assert groups["generators"]["flux"]["auc"] == report["tiers"]["clean"]["auc"]["value"]  # against all real photos
    assert groups["styles"]["white"]["real"]["photos"] + groups["styles"]["white"]["ai"]["photos"] == 4
    assert list(groups["styles"]) == ["white"]
    assert groups["categories"] == {}
    source = groups["sources"]["0-1"]["real"]
    assert (source["photos"], source["called_real"], source["uncertain"]) == (2, 0, 1)


def test_the_worst_errors_are_wrong_verdicts_the_surest_first(artefact: Artefact) -> None:
    given = probabilities(real=[0.85, 0.99, 0.7, 0.1], ai=[0.3, 0.05, 0.5, 0.9])
    found = judge(by_a(artefact), given, ["test"], 2)["profiles"]["accurate"]["splits"]["test"]["worst"]
    assert [error["path"] for error in found["real"]] == ["0-1.jpg", "0-0.jpg"]
    assert [error["path"] for error in found["ai"]] == ["1-1.jpg", "1-0.jpg"]
    assert found["ai"][0]["generator"] == "flux"


def test_stability_counts_changed_and_reversed_labels(artefact: Artefact) -> None:
    given = probabilities(real=[0.1, 0.1], ai=[0.9, 0.9])
    moved = {("0-0.jpg", "q75"): 2.0, ("1-0.jpg", "q75"): 0.0, ("1-1.jpg", "q90"): 2.19}
    rows = [replace(row, logits=(moved.get((str(row.photo.path), row.variant), row.logits[0]),)) for row in given.rows]
    found = judge(by_a(artefact), Scores(("a",), tuple(rows)), ["test"], 2)
    stability = found["profiles"]["accurate"]["splits"]["test"]["stability"]
    assert (stability["q75"]["changed"], stability["q75"]["reversed"]) == (0.5, 0.25)
    assert (stability["q90"]["changed"], stability["q90"]["reversed"]) == (0.0, 0.0)
    assert 0 < stability["q90"]["moved"] < 0.01
    assert stability["resize75"]["moved"] == 0


def test_a_judged_model_carries_its_report(judged: Artefact, table: Path, manifest: Path) -> None:
    report = judged.document("report.json")
    assert set(report["profiles"]) == {"accurate", "fast"}
    assert list(report["profiles"]["fast"]["splits"]) == ["val", "test"]
    fused = scores.read(table).of("test", ["clean"])
    expected = auc(fused.labels, fused.fused(judged.spec.profiles["fast"]))
    assert report["profiles"]["fast"]["splits"]["test"]["tiers"]["clean"]["auc"]["value"] == pytest.approx(
        expected, abs=1e-5
    )
    assert report["data"]["splits"]["train"] == {
        "real": {"photos": 12, "sources": 4},
        "ai": {"photos": 12, "sources": 4},
        "generators": 2,
    }
    assert report["data"]["licences"] == {"MIT": 72}
    assert report["labels"]["commit"] == "0123456789ab+"
    assert report["labels"]["data"] == report["data"]["hash"][:12]
    assert all(isinstance(value, str) for value in report["labels"].values())
    assert set(report["null"]) == {"val", "test"}
    assert [expert["views"] for expert in report["model"]["experts"]] == [3, 1]
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_what_is_not_calibrated_or_lacks_scores_is_one_clear_line(
    artefact: Artefact, judged: Artefact, table: Path, manifest: Path
) -> None:
    found, photos = scores.read(table), load_manifest(manifest)
    given = {"broken": {}, "commit": "none", "rounds": 2}
    with pytest.raises(InvalidScores, match="is not calibrated yet"):
        evaluate(artefact, found, photos, manifest.parent, ["val"], **given)  # type: ignore[arg-type]
    with pytest.raises(InvalidDataset, match="split train: has no scores of real photos"):
        evaluate(judged, found, photos, manifest.parent, ["train"], **given)  # type: ignore[arg-type]


def test_the_report_is_told_and_drawn(judged: Artefact, table: Path, manifest: Path, tmp_path: Path) -> None:
    report = judged.document("report.json")
    lines = describe(report)
    value = report["profiles"]["accurate"]["splits"]["test"]["tiers"]["hard"]["auc"]["value"]
    assert f"accurate, test, hard: AUC {value:.3f}" in lines
    assert "zero-pixel null on test" in lines
    pictures = draw(judged, scores.read(table), report, "test", tmp_path)
    assert {picture.name for picture in pictures} == {
        "roc-test.png",
        "sources-accurate-test.png",
        "sources-fast-test.png",
    }
    show_worst(report, "accurate", "test", manifest.parent, tmp_path / "worst.png")
    errors = sum(len(found) for found in report["profiles"]["accurate"]["splits"]["test"]["worst"].values())
    for picture in (*pictures, tmp_path / "worst.png"):
        with Image.open(picture) as drawn:
            assert len(drawn.convert("L").getcolors() or []) > (10 if errors else 0)
