"""Heat lies where the evidence lies."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from detector import explain
from detector.ensemble import Plan, Spec
from tests.conftest import SPEC, make_photo


def plan_of(views: list[dict[str, object]]) -> Plan:
    expert = SPEC["experts"][0] | {"views": list(range(len(views))), "grid": 4}
    spec = SPEC | {"views": views, "experts": [expert], "profiles": {"only": {"weights": {"a": 2.0}, "bias": 1.0}}}
    return Spec.model_validate(spec).plan("only")


def test_evidence_in_one_corner_of_a_whole_view_is_hot_in_that_corner() -> None:
    maps = np.zeros((4, 4), np.float32)
    maps[0, 3] = 8.0
    heat = explain.evidence_map(plan_of([{"kind": "whole"}]), maps.ravel(), 400, 200)
    assert heat.shape == (48, 96)
    assert heat[:12, 72:].mean() > heat[24:, :48].mean() + 5
    assert explain.find_region(heat, True, 400, 200).name == "upper right"


def test_a_crop_is_laid_where_it_was_cut() -> None:
    plan = plan_of([{"kind": "crop", "centre": [1, 1]}])
    heat = explain.evidence_map(plan, np.full(16, 3.0, np.float32), 96, 96)
    np.testing.assert_allclose(heat, 1.0 + 2.0 * 3.0, rtol=1e-6)  # where nobody looked, the photo's own logit
    maps = np.linspace(0, 6, 16, dtype=np.float32)
    heat = explain.evidence_map(plan, maps, 96, 96)
    assert heat[95, 95] == pytest.approx(1 + 2 * 6, abs=0.1)
    assert heat[0, 0] == pytest.approx(1 + 2 * 3)


def test_overlapping_views_are_averaged() -> None:
    plan = plan_of([{"kind": "whole"}, {"kind": "whole"}])
    evidence = np.concatenate([np.full(16, 1.0), np.full(16, 3.0)]).astype(np.float32)
    np.testing.assert_allclose(explain.evidence_map(plan, evidence, 64, 64), 1 + 2 * 2.0)


def test_the_mean_of_a_whole_views_heat_is_its_fused_logit() -> None:
    plan = plan_of([{"kind": "whole"}])
    evidence = np.random.default_rng(0).normal(size=16).astype(np.float32)
    heat = explain.evidence_map(plan, evidence, 96, 96)
    assert float(heat.mean()) == pytest.approx(plan.fuse(evidence), abs=0.1)


def test_a_region_against_the_label_is_not_named() -> None:
    evidence = np.full((9, 9), 1.0, np.float32)
    evidence[6:, :3] = -4.0
    region = explain.find_region(evidence, False, 90, 60)
    assert (region.name, region.box, region.share) == ("lower left", (0, 40, 30, 60), 1.0)


def test_no_evidence_either_way_gives_a_share_of_nothing() -> None:
    assert explain.find_region(np.zeros((9, 9), np.float32), True, 90, 90).share == 0


@pytest.mark.parametrize(("width", "height"), [(1000, 10), (10, 1000), (640, 480)])
def test_pictures_keep_the_photos_aspect_ratio(width: int, height: int) -> None:
    photo = explain.shrink(make_photo(width, height), 512)
    assert max(photo.size) == min(512, max(width, height))
    assert photo.width / photo.height == pytest.approx(width / height, rel=0.15)
    heat = explain.evidence_map(plan_of([{"kind": "whole"}]), np.zeros(16, np.float32), width, height)
    assert explain.draw_heatmap(np.clip(heat, 0, 1), photo.size).size == photo.size


def test_opacity_runs_from_the_photo_to_the_colours() -> None:
    photo = make_photo(64, 48)
    hot = Image.new("L", photo.size, 255)
    assert explain.draw_overlay(photo, hot, "gray", 0.0).tobytes() == photo.tobytes()
    assert explain.draw_overlay(photo, hot, "gray", 1.0).getcolors() == [(64 * 48, (255, 255, 255))]


@pytest.mark.parametrize("format", ["png", "jpeg"])
def test_pictures_are_what_they_say(format: explain.OverlayFormat) -> None:
    drawing = explain.encode(make_photo(64, 48), format)
    picture = Image.open(BytesIO(drawing.data))
    assert (picture.format, picture.size) == (format.upper(), (drawing.width, drawing.height))
    assert drawing.media_type == f"image/{format}"


def test_every_colour_map_has_its_colours() -> None:
    assert {name: explain._palette(name).shape for name in ("viridis", "jet", "inferno")} == {
        "viridis": (256, 3),
        "jet": (256, 3),
        "inferno": (256, 3),
    }
