"""The embedded model is whole, says the same on both engines, and does not jump at what a shop does to a photo."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from detector.artefact import Artefact, load
from detector.ensemble import Plan
from detector.preprocess import make_views
from detector.runtime import Runtime, load_runtime
from tests.conftest import make_photo
from training.assemble import AGREED, agreement, rebuild
from training.card import write_card

ROOT = Path(__file__).parent.parent
PHOTOS = [make_photo(640, 480, seed) for seed in range(3)]


@pytest.fixture(scope="module")
def model() -> Artefact:
    return load(ROOT / "detector" / "default_model")


@pytest.fixture(scope="module")
def runtime(model: Artefact) -> Runtime:
    return load_runtime(model.folder, model.spec.plan("accurate"), "cpu")


def probability(model: Artefact, runtime: Runtime, photo: Image.Image) -> float:
    plan: Plan = runtime.plan
    logit = plan.fuse(runtime.score(make_views(photo, plan.views, plan.size)[np.newaxis])[0])
    return model.calibrations[plan.profile].probability(logit)


def resaved(photo: Image.Image, quality: int) -> Image.Image:
    buffer = BytesIO()
    photo.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def test_torch_and_openvino_agree(model: Artefact) -> None:
    assert max(agreement(model, rebuild(model), PHOTOS[:2]).values()) < AGREED


@pytest.mark.parametrize("photo", PHOTOS, ids=range(len(PHOTOS)))
def test_a_probability_moves_little_when_a_photo_is_saved_again_mirrored_or_made_smaller(
    model: Artefact, runtime: Runtime, photo: Image.Image
) -> None:
    before = probability(model, runtime, photo)
    changed = [resaved(photo, 90), ImageOps.mirror(photo), photo.resize((576, 432), Image.Resampling.LANCZOS)]
    assert [abs(probability(model, runtime, other) - before) < 0.15 for other in changed] == [True] * 3


def test_a_photo_s_score_does_not_depend_on_its_company(runtime: Runtime) -> None:
    plan = runtime.plan
    views = np.stack([make_views(photo, plan.views, plan.size) for photo in PHOTOS])
    together = runtime.score(views)
    alone = np.concatenate([runtime.score(one[np.newaxis]) for one in views])
    np.testing.assert_allclose(together, alone, atol=2e-3)


def test_the_model_card_is_what_the_report_says(model: Artefact) -> None:
    assert (ROOT / "docs" / "model-card.md").read_text(encoding="utf-8") == write_card(model.document("report.json"))
