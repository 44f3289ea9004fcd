"""training.scores: the table holds what the shipped runtime says, grows, and is never taken for another model's."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from detector import artefact as artefacts
from detector.artefact import Artefact
from detector.ensemble import Fusion
from detector.image import decode
from detector.preprocess import make_views
from detector.runtime import load_runtime
from tests.conftest import make_photo
from training import scores
from training.augment import TIERS, to_tier
from training.data import LIMITS, Photo, load_manifest
from training.scores import VARIANTS, InvalidScores, fill, read, to_variant


@pytest.fixture
def copied(table: Path, tmp_path: Path) -> Path:
    """A copy of the table that a test may spoil."""
    shutil.copy(table.with_suffix(".json"), tmp_path)
    return Path(shutil.copy(table, tmp_path))


def test_a_row_is_what_the_shipped_runtime_says_of_that_tier(artefact: Artefact, table: Path, manifest: Path) -> None:
    row = next(row for row in read(table).rows if row.variant == "hard")
    plan = artefact.spec.plan("accurate")
    pixels = to_tier(decode((manifest.parent / row.photo.path).read_bytes(), LIMITS).pixels, "hard")
    evidence = load_runtime(artefact.folder, plan, "cpu").score(make_views(pixels, plan.views, plan.size)[None])[0]
    assert row.logits == pytest.approx([plan.logits(evidence)[name] for name in ("a", "b")], rel=1e-4, abs=1e-5)
    mine = replace(read(table), rows=(row,)).fused(plan.fusion)
    assert mine == pytest.approx([plan.fuse(evidence)], rel=1e-4, abs=1e-5)


def test_every_readable_photo_has_every_variant_once_and_keeps_its_facts(table: Path, manifest: Path) -> None:
    found = read(table)
    assert Counter(found.variants) == dict.fromkeys(VARIANTS, 48)
    known = {photo.path.name: photo for photo in load_manifest(manifest)}
    for row in found.rows:
        assert replace(known[row.photo.path.name], path=row.photo.path) == row.photo


def test_a_broken_photo_is_named_with_its_reason_and_left_out(
    artefact: Artefact, table: Path, manifest: Path, copied: Path
) -> None:
    val = [photo for photo in load_manifest(manifest) if photo.split == "val"]
    broken = fill(copied, artefact, val, manifest.parent, threads=1)
    assert list(broken) == ["broken.jpg"]
    assert "JPEG" in broken["broken.jpg"]
    assert copied.read_bytes() == table.read_bytes()


def test_a_run_that_was_killed_goes_on_where_it_was(
    artefact: Artefact, table: Path, manifest: Path, copied: Path
) -> None:
    whole = table.read_bytes()
    copied.write_bytes(whole[: len(whole) // 2])  # ends in the middle of a line
    photos = [photo for photo in load_manifest(manifest) if photo.split != "train"]
    fill(copied, artefact, photos, manifest.parent, threads=1)
    assert sorted(copied.read_bytes().splitlines()) == sorted(whole.splitlines())
    assert copied.read_bytes()[: len(whole) // 3] == whole[: len(whole) // 3]


def test_new_calibration_leaves_scores_valid_and_new_views_do_not(
    artefact: Artefact, copied: Path, manifest: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(artefact.folder, tmp_path / "model"))
    calibration = json.loads((folder / "calibration.json").read_text())
    calibration["fast"]["curve"]["temperature"] = 5.0
    (folder / "calibration.json").write_text(json.dumps(calibration))
    artefacts.seal(folder, "next")
    assert read(copied, artefacts.load(folder)) == read(copied, artefact)
    spec = json.loads((folder / "spec.json").read_text())
    spec["views"][1]["centre"] = [0.5, 0]
    (folder / "spec.json").write_text(json.dumps(spec))
    artefacts.seal(folder, "next")
    for use in (read, lambda table, model: fill(table, model, load_manifest(manifest), manifest.parent)):
        with pytest.raises(InvalidScores, match="scores of other networks"):
            use(copied, artefacts.load(folder))


def test_absent_scores_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InvalidScores, match="there are no scores"):
        read(tmp_path / "absent.csv")


def test_a_table_is_cut_by_split_and_variant_and_fused_by_name(table: Path) -> None:
    found = read(table)
    val = found.of("val")
    assert {row.photo.split for row in val.rows} == {"val"}
    assert set(val.variants) == set(TIERS)
    assert len(val.rows) == 72
    fused = val.fused(Fusion(weights={"b": 2.0}, bias=1.0))
    np.testing.assert_allclose(fused, 1 + 2 * val.logits[:, found.experts.index("b")])


def test_variants_are_saves_of_the_photo() -> None:
    photo = make_photo(160, 120)
    assert to_variant(photo, "resize75").size == (120, 90)
    losses = [np.abs(np.asarray(to_variant(photo, one), float) - np.asarray(photo)).mean() for one in ("q90", "q75")]
    assert 0 < losses[0] < losses[1]
    with pytest.raises(ValueError, match="no variant"):
        to_variant(photo, "q50")


def test_a_photo_outside_the_data_folder_keeps_its_path(tmp_path: Path) -> None:
    assert scores._relative(Photo(tmp_path / "a.jpg", 0), tmp_path / "elsewhere") == (tmp_path / "a.jpg").as_posix()
