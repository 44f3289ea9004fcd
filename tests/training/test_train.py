"""training.train: a run learns, repeats by its seed, goes on where it was stopped, and survives broken photos."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from detector.networks import ConvExpert
from training.data import Photo
from training.features import Lessons
from training.lessons import Batch, Insight, Retold, Showings, Source, batches, targets_of
from training.recipe import Recipe
from training.train import IMITATION, Imitation, Log, _losses, judge, start, train

RECIPE = Recipe(
    size=32, photos=4, steps=6, warmup=1, learning_rate=0.01, head_learning_rate=0.05, crops=0.3,
    bfloat16=False, threads=1, save_every=2, judge_every=3,
)  # fmt: skip


class Trunk(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 8, 8, stride=8)

    def forward_features(self, views: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.layer(views))


def expert() -> ConvExpert:
    torch.manual_seed(3)
    return ConvExpert(Trunk(), channels=8)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Photo]:
    """Real ones reddish, ai ones bluish: a class that a colour tells."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    made = []
    for number in range(12):
        label = number % 2
        pixels = rng.integers(0, 60, (48, 64, 3), dtype=np.uint8)
        pixels[..., 2 * label] += 150
        path = folder / f"{number}.jpg"
        Image.fromarray(pixels).save(path)
        made.append(Photo(path, label, "train", f"s{number}", "g" if label else ""))
    return made


def test_a_class_that_a_colour_tells_is_learned(photos: list[Photo], tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"steps": 40, "judge_every": 40, "save_every": 40, "average": 0.8})
    before = judge(expert(), photos, recipe)
    after = judge(train(photos, photos, expert(), recipe, tmp_path), photos, recipe)
    assert after["auc_clean"] == 1.0
    assert before["auc_clean"] < 1.0


def test_a_stopped_run_goes_on_to_the_same_weights(photos: list[Photo], tmp_path: Path) -> None:
    whole = train(photos, photos, expert(), RECIPE, tmp_path / "whole")

    def stop(step: int, _: object) -> None:
        if step == 3:  # judged, and saved last at 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(photos, photos, expert(), RECIPE, tmp_path / "cut", log=stop)
    assert json.loads((tmp_path / "cut" / "meta.json").read_text())["step"] == 2
    resumed = train(photos, photos, expert(), RECIPE, tmp_path / "cut")
    for name, weight in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], weight, atol=1e-6, rtol=1e-6)


def test_a_folder_of_another_recipe_is_not_continued(photos: list[Photo], tmp_path: Path) -> None:
    train(photos, photos, expert(), RECIPE, tmp_path)
    with pytest.raises(ValueError, match="another recipe"):
        train(photos, photos, expert(), RECIPE.model_copy(update={"seed": 1}), tmp_path)


def test_a_folder_of_a_run_from_other_weights_is_not_continued(photos: list[Photo], tmp_path: Path) -> None:
    train(photos, photos, expert(), RECIPE, tmp_path)
    other = expert()
    nn.init.ones_(other.head.weight)
    with pytest.raises(ValueError, match="began with other weights"):
        train(photos, photos, other, RECIPE, tmp_path)


@pytest.mark.parametrize("name", ["b0", "timm.resnet10t"])
def test_a_recipe_s_seed_draws_what_no_pretraining_fills(name: str) -> None:
    heads = [start(Recipe(architecture=name, seed=seed, size=64)).head.weight for seed in (1, 2, 1)]  # type: ignore[union-attr]
    torch.testing.assert_close(heads[0], heads[2], atol=0, rtol=0)
    assert not torch.equal(heads[0], heads[1])  # type: ignore[arg-type]


def test_pretrained_weights_are_for_timm_s_networks(tmp_path: Path) -> None:
    for name in ("b0", "clip.b16.1"):
        with pytest.raises(ValueError, match=f"{name} brings its weights"):
            start(Recipe(architecture=name, pretrained="hub"))
    with pytest.raises(ValueError, match="no such file"):
        start(Recipe(architecture="timm.resnet10t", pretrained=str(tmp_path / "absent")))


def test_the_best_judgement_is_shipped_and_lack_of_progress_ends_the_run(
    photos: list[Photo], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = iter([0.7, 0.9, 0.8, 0.6, 0.5])
    monkeypatch.setattr("training.train.judge", lambda *_: {"auc_clean": 0.95, "auc_hard": next(said)})
    recipe = RECIPE.model_copy(update={"steps": 50, "judge_every": 2, "patience": 2})
    train(photos, photos, expert(), recipe, tmp_path)
    facts = json.loads((tmp_path / "meta.json").read_text())
    assert [one["step"] for one in facts["judged"]] == [2, 4, 6, 8]
    assert (tmp_path / "best-4.safetensors").exists()


def test_a_broken_photo_is_skipped_and_counted(photos: list[Photo], tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff nothing")
    with_broken = [*photos, Photo(broken, 0, "train", "shop")]
    showings = Showings(with_broken, targets_of(with_broken, {}, RECIPE), RECIPE.model_copy(update={"photos": 64}))
    batch = next(batches(showings, 0))
    assert batch.views.shape == (64, 2, 3, 32, 32)
    assert showings.broken == {broken}


def test_nothing_that_can_be_read_is_one_clear_error(tmp_path: Path) -> None:
    photos = [Photo(tmp_path / f"gone-{label}.jpg", label, "train", f"s{label}") for label in (0, 1)]
    with pytest.raises(ValueError, match="none of the photos"):
        Showings(photos, targets_of(photos, {}, RECIPE), RECIPE).batch(0)


def test_what_a_step_shows_depends_on_seed_and_number_alone(photos: list[Photo]) -> None:
    def batch(seed: int, step: int) -> bytes:
        recipe = RECIPE.model_copy(update={"seed": seed})
        return Showings(photos, targets_of(photos, {}, recipe), recipe).batch(step).views.tobytes()

    assert batch(0, 5) == batch(0, 5)
    assert len({batch(0, 5), batch(0, 6), batch(1, 5)}) == 3


def test_batches_come_in_order_from_any_number_of_loaders() -> None:
    class Slow(Source):
        def batch(self, step: int) -> Batch:
            time.sleep(0.02 * (step % 3 == 0))
            return Batch(np.zeros(0), np.array([step], np.float32))

    for loaders in (1, 4):
        found = [int(batch.targets[0]) for _, batch in zip(range(9), batches(Slow(), 5, loaders), strict=False)]
        assert found == list(range(5, 14))


@pytest.mark.parametrize("mix", ["", "mixup", "cutmix", "imitation"])
def test_a_loss_is_taken_where_the_expert_lies(mix: str) -> None:
    """On a GPU that is only pretended: each tensor has a place, and an operation across two places raises."""
    recipe = RECIPE.model_copy(update={mix: 1.0} if mix else {})
    seen = Insight(np.zeros((4, 2, 768, 4, 4), np.float32), np.zeros((4, 2, 10), np.float32))
    batch = Batch(np.zeros((4, 2, 3, 32, 32), np.uint8), np.zeros(4, np.float32), seen if mix == "imitation" else None)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"):
        pretended = expert()
        pretended.add_module(IMITATION, Imitation(8, 10))
        losses = _losses(pretended, batch, recipe, np.random.default_rng(0))
    assert {loss.device.type for loss in losses.values()} == {"cuda"}


def test_a_teacher_moves_only_the_photos_it_knows(photos: list[Photo]) -> None:
    recipe = RECIPE.model_copy(update={"teacher": 0.5, "smoothing": 0.0})
    targets = targets_of(photos[:3], {str(photos[0].path): 0.4}, recipe)
    assert targets.tolist() == [0.2, 1.0, 0.0]


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_mixing_runs_through_the_loop(photos: list[Photo], tmp_path: Path, mix: str) -> None:
    recipe = RECIPE.model_copy(update={mix: 1.0, "steps": 2})
    assert isinstance(train(photos, photos, expert(), recipe, tmp_path), ConvExpert)


@pytest.mark.parametrize(
    ("text", "complaint"), [("stepps: 3", "stepps"), ("steps: many", "steps"), ("steps: 0", "steps")]
)
def test_a_recipe_names_what_it_does_not_know(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(ValueError, match=complaint):
        Recipe.read(tmp_path / "r.yaml")


@pytest.mark.parametrize("recipe", sorted(Path("training/recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_recipes_of_the_repository_are_ones(recipe: Path) -> None:
    Recipe.read(recipe)


@pytest.fixture
def lessons(photos: list[Photo]) -> Lessons:
    """Three showings of every photo; the trunk saw how red and how blue each place is."""
    rng = np.random.default_rng(0)
    rows = {(str(photo.path), f"{n}"): 3 * at + n for at, photo in enumerate(photos) for n in range(3)}
    views = rng.integers(0, 60, (len(rows), 3, 56, 56), dtype=np.uint8)
    for at, photo in enumerate(photos):
        views[3 * at : 3 * at + 3, 2 * photo.label] += 150
    colours = views.reshape(len(rows), 3, 7, 8, 7, 8).mean((3, 5))
    maps = np.tile(colours, (1, 256, 1, 1)).astype(np.float16)
    return Lessons(rows, views, maps.mean((2, 3)).astype(np.float16), maps)


def test_a_student_learns_to_see_what_the_trunk_saw(photos: list[Photo], lessons: Lessons, tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"steps": 60, "judge_every": 60, "save_every": 20, "imitation": 1.0})
    told: list[float] = []
    log: Log = lambda _, figures: told.append(figures.get("imitation", np.nan))  # noqa: E731
    finished = train(photos, photos, expert(), recipe, tmp_path, log=log, lessons=lessons)
    said = [one for one in told if not np.isnan(one)]
    assert said[-1] < 0.7 * said[0]
    assert not hasattr(finished, "imitation")
    assert judge(finished, photos, recipe)["auc_clean"] == 1.0


def test_a_view_and_what_was_seen_in_it_are_flipped_together(photos: list[Photo], lessons: Lessons) -> None:
    retold = Retold(photos, targets_of(photos, {}, RECIPE), RECIPE, lessons)
    batch = retold.batch(0)
    assert batch.insight is not None
    seen = batch.insight.maps[:, :, :3]
    grid = seen.shape[-1]  # a step may show crops
    colours = batch.views.reshape(*batch.views.shape[:3], grid, 8, grid, 8).mean((4, 6))
    assert np.corrcoef(colours.ravel(), seen.ravel())[0, 1] > 0.5
    for view, shown in zip(colours.reshape(-1, 3, grid, grid), seen.reshape(-1, 3, grid, grid), strict=True):
        grain = np.corrcoef(view[1].ravel(), shown[1].ravel())[0, 1]
        assert grain > np.corrcoef(view[1, :, ::-1].ravel(), shown[1].ravel())[0, 1]


def test_lessons_that_lack_a_photo_are_refused(photos: list[Photo], lessons: Lessons) -> None:
    some = Lessons(dict(list(lessons.rows.items())[:-3]), lessons.views, lessons.tokens, lessons.maps)
    with pytest.raises(ValueError, match="lack photos"):
        Retold(photos, targets_of(photos, {}, RECIPE), RECIPE, some)
