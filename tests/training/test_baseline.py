"""training.baseline: the histograms are of the photos and verdicts, each counted once."""

import json
from pathlib import Path

import numpy as np
import pytest

from detector.artefact import Artefact
from training import scores
from training.baseline import baseline, measure_all
from training.data import Photo


def test_every_photo_counts_once_in_every_histogram(judged: Artefact, table: Path, manifest: Path) -> None:
    val = scores.read(table).of("val")
    found = baseline(judged, val, manifest.parent)
    assert json.loads(json.dumps(found)) == found
    assert found["photos"] == 24
    for entry in (*found["facts"].values(), *found["probability"].values(), *found["logit"].values()):
        assert sum(entry["counts"]) == 24
        assert len(entry["edges"]) == len(entry["counts"]) + 1
    assert found["facts"]["width"]["counts"][0] == 24  # all are 96 pixels wide
    quality = dict(zip(found["facts"]["jpeg_quality"]["edges"], found["facts"]["jpeg_quality"]["counts"], strict=False))
    assert quality[90.0] + quality[85.0] == 24


def test_verdicts_are_those_of_the_calibration(judged: Artefact, table: Path, manifest: Path) -> None:
    val = scores.read(table).of("val", ["clean"])
    found = baseline(judged, val, manifest.parent)["labels"]["fast"]
    said = judged.calibrations["fast"].curve.apply(val.fused(judged.spec.profiles["fast"]))
    flagged = np.mean(said >= judged.calibrations["fast"].thresholds.ai_generated)
    assert found["ai_generated"] == pytest.approx(flagged)
    assert sum(found.values()) == pytest.approx(1)


def test_a_photo_that_cannot_be_read_counts_in_none(manifest: Path) -> None:
    photos = [Photo(Path("broken.jpg"), 0), Photo(Path("gone.jpg"), 0), Photo(Path("val-real-0-0.jpg"), 0)]
    assert {len(values) for values in measure_all(photos, manifest.parent).values()} == {1}
