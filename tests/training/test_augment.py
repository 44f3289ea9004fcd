"""training.augment: tiers are what they are defined to be, degradations are random, bounded and repeatable."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import make_photo
from training.augment import (
    LARGEST,
    SMALLEST,
    STEPS,
    TIERS,
    Degradation,
    cutmix,
    degrade,
    mixup,
    to_tier,
    write_sheet,
)

NOTHING = Degradation(**dict.fromkeys(STEPS, 0.0))


def only(step: str) -> Degradation:
    return Degradation(**{name: float(name == step) for name in STEPS})


def same(first: Image.Image, second: Image.Image) -> bool:
    return first.size == second.size and first.tobytes() == second.tobytes()


@pytest.mark.parametrize(("tier", "size"), [("clean", (1000, 500)), ("web", (768, 384)), ("hard", (512, 256))])
def test_a_tier_bounds_the_long_side(tier: str, size: tuple[int, int]) -> None:
    assert to_tier(make_photo(1000, 500), tier).size == size


@pytest.mark.parametrize("tier", TIERS)
def test_no_tier_enlarges(tier: str) -> None:
    assert to_tier(make_photo(160, 120), tier).size == (160, 120)


def test_a_harder_tier_is_further_from_the_photo() -> None:
    photo = make_photo(160, 120)
    losses = [np.abs(np.asarray(photo, float) - np.asarray(to_tier(photo, tier), float)).mean() for tier in TIERS]
    assert losses[0] == 0 < losses[1] < losses[2]


def test_an_unknown_tier_is_refused() -> None:
    with pytest.raises(ValueError, match="'soft' is no tier"):
        to_tier(make_photo(), "soft")


def test_the_same_generator_state_gives_the_same_picture() -> None:
    photo = make_photo()
    first, second, other = (degrade(photo, np.random.default_rng(seed), Degradation()) for seed in (5, 5, 6))
    assert same(first, second)
    assert not same(first, other)


def test_all_steps_off_leave_the_photo_alone() -> None:
    photo = make_photo()
    assert same(degrade(photo, np.random.default_rng(0), NOTHING), photo)


@pytest.mark.parametrize("step", STEPS)
def test_each_step_can_be_switched_on_alone_and_leaves_the_original_untouched(step: str) -> None:
    photo = make_photo()
    before = photo.tobytes()
    degraded = degrade(photo, np.random.default_rng(0), only(step))
    assert degraded.mode == "RGB"
    assert not same(degraded, photo)
    assert photo.tobytes() == before


def test_every_step_has_its_probability_and_the_other_way_round() -> None:
    assert [field.name for field in fields(Degradation) if field.name != "extra"] == list(STEPS)


def test_extra_steps_are_drawn_where_none_was_likely() -> None:
    config = Degradation(**dict.fromkeys(STEPS, 0.0), extra=3)
    assert not same(degrade(make_photo(), np.random.default_rng(0), config), make_photo())


@pytest.mark.parametrize("wrong", [{"blur": 1.5}, {"crop": -0.1}, {"extra": -1}])
def test_an_impossible_probability_is_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Degradation(**wrong)


@pytest.mark.parametrize("size", [(20, 20), (300, 8), (8, 300), (2400, 600)])
def test_odd_sizes_survive_every_step_and_stay_bounded(size: tuple[int, int]) -> None:
    everything = Degradation(**dict.fromkeys(STEPS, 1.0))
    for seed in range(5):
        degraded = degrade(make_photo(*size), np.random.default_rng(seed), everything)
        assert min(SMALLEST, max(size)) / 2 <= max(degraded.size) <= LARGEST * 2


def test_a_crop_keeps_45_to_100_percent_of_the_area() -> None:
    photo = make_photo(400, 300)
    rng = np.random.default_rng(0)
    areas = [np.prod(degrade(photo, rng, only("crop")).size) / 120_000 for _ in range(50)]
    assert 0.44 < min(areas) < 0.55
    assert 0.85 < max(areas) <= 1


def test_scaling_stays_in_its_range() -> None:
    photo, rng = make_photo(400, 300), np.random.default_rng(0)
    shrunk = [degrade(photo, rng, only("shrink")).width / 400 for _ in range(50)]
    enlarged = [degrade(photo, rng, only("enlarge")).width / 400 for _ in range(50)]
    assert min(shrunk) >= 0.35
    assert max(shrunk) <= 1 < 1.2 <= min(enlarged)
    assert max(enlarged) <= 2.2


def test_mixup_blends_views_and_targets_by_one_share() -> None:
    targets = torch.tensor([0.0, 1.0, 1.0, 0.0])
    views = targets[:, None, None, None].expand(4, 3, 8, 8)  # each view is filled with its own target
    mixed, mixed_targets = mixup(views, targets, np.random.default_rng(1))
    torch.testing.assert_close(mixed.mean((1, 2, 3)), mixed_targets)
    assert not torch.equal(mixed_targets, targets)


def test_cutmix_moves_targets_by_the_area_it_pasted() -> None:
    targets = torch.tensor([0.0, 1.0, 1.0, 0.0])
    views = targets[:, None, None, None].expand(4, 3, 16, 16)
    mixed, mixed_targets = cutmix(views, targets, np.random.default_rng(1))
    torch.testing.assert_close(mixed.mean((1, 2, 3)), mixed_targets)
    assert set(mixed.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(mixed_targets, targets)


def test_a_sheet_has_a_row_for_every_tier_step_and_mix(tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    write_sheet([make_photo(seed=1), make_photo(seed=2)], out, cell=48)
    with Image.open(out) as sheet:
        assert sheet.size == (100 + 2 * 48, 48 * (len(TIERS) + len(STEPS) + 3))
