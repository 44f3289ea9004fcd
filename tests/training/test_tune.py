"""training.tune: a search finds, resumes, prunes, tracks and writes the winning recipe."""

import math
import shutil
from pathlib import Path

import pytest
import yaml

from training.recipe import Recipe
from training.tracking import runs
from training.train import Log
from training.tune import InvalidSearch, Range, describe, read_space, tune

BASE = Recipe(steps=3)
SPACE = {"learning_rate": Range(low=1e-5, high=1e-1, log=True), "mixup": Range(among=(0.0, 0.5))}
SHIPPED = Path(__file__).parent.parent.parent / "training" / "space.yaml"


@pytest.fixture
def folder(tmp_path: Path, empty_store: Path) -> Path:
    """Where a search goes."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return tmp_path


def peak(recipe: Recipe, folder: Path, log: Log) -> float:
    """Best at a learning rate of .001 without mixup; reports a rising worst tier."""
    value = 1 - 0.1 * abs(math.log10(recipe.learning_rate) + 3) - 0.2 * recipe.mixup
    for step in range(recipe.steps):
        log(step, {"auc_clean": 1.0, "auc_hard": value - 0.01 * (recipe.steps - step), "loss": 5.0})
    return value


def test_the_winning_recipe_is_ready_to_train_with(folder: Path) -> None:
    best = tune(peak, BASE, SPACE, 12, folder)
    recipe = Recipe.read(folder / "best.yaml")
    assert recipe.steps == 3
    assert recipe.learning_rate == best.params["learning_rate"]
    assert recipe.mixup == 0
    assert 1e-4 < recipe.learning_rate < 1e-2
    assert len(describe(folder).splitlines()) == 12


def test_a_search_goes_on_where_it_was_and_a_finished_one_tries_nothing(folder: Path) -> None:
    tried: list[str] = []

    def counting(recipe: Recipe, folder: Path, log: Log) -> float:
        tried.append(folder.name)
        if len(tried) == 3:
            raise KeyboardInterrupt
        return recipe.learning_rate

    with pytest.raises(KeyboardInterrupt):
        tune(counting, BASE, SPACE, 4, folder)
    assert Recipe.read(folder / "best.yaml")
    tune(counting, BASE, SPACE, 4, folder)
    assert tried == ["trial-000", "trial-001", "trial-002", "trial-003", "trial-004"]
    tune(counting, BASE, SPACE, 4, folder)
    assert len(tried) == 5


def test_a_trial_below_the_median_is_pruned_and_every_trial_is_tracked(folder: Path) -> None:
    def worse_each_time(recipe: Recipe, folder: Path, log: Log) -> float:
        value = 0.9 - 0.1 * int(folder.name.removeprefix("trial-"))
        for step in range(3):
            log(step, {"auc_clean": 0.95, "auc_hard": value})
        return value

    tune(worse_each_time, BASE, SPACE, 5, folder)
    tracked = runs(folder / "mlflow.db", "tune")
    assert [run["name"] for run in tracked] == [f"trial-00{number}" for number in range(5)]
    assert [run["status"] for run in tracked] == ["FINISHED"] * 5
    assert tracked[0]["figures"] == {"auc_clean": 0.95, "auc_hard": 0.9, "worst_tier": 0.9}
    assert float(tracked[1]["settings"]["learning_rate"]) != BASE.learning_rate
    assert [line.split()[1] for line in describe(folder).splitlines()] == ["complete"] * 3 + ["pruned"] * 2


def test_a_failed_trial_does_not_end_the_search(folder: Path) -> None:
    def flawed(recipe: Recipe, folder: Path, log: Log) -> float:
        if folder.name == "trial-000":
            raise ValueError("none of the photos can be read")
        return 0.5

    assert tune(flawed, BASE, SPACE, 2, folder).number == 1


def test_a_search_of_failed_trials_alone_says_so(folder: Path) -> None:
    def broken(recipe: Recipe, folder: Path, log: Log) -> float:
        raise ValueError

    with pytest.raises(InvalidSearch, match="no trial came to an end"):
        tune(broken, BASE, SPACE, 2, folder)


def test_another_search_does_not_take_over_a_folder(folder: Path) -> None:
    tune(peak, BASE, SPACE, 1, folder)
    with pytest.raises(InvalidSearch, match="a search of another recipe or space"):
        tune(peak, BASE.model_copy(update={"steps": 4}), SPACE, 1, folder)


def test_the_space_that_ships_is_of_settings_that_exist() -> None:
    assert set(read_space(SHIPPED)) <= set(Recipe.model_fields)
    for name, one in yaml.safe_load(SHIPPED.read_text()).items():
        for value in (one.get("low"), one.get("high"), *one.get("among", ())):
            if value is not None:
                Recipe.model_validate({name: value})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("mood: {low: 0, high: 1}", "mood is not a setting of a recipe"),
        ("mixup: {low: 1, high: 0}", "low is above high"),
        ("mixup: {low: 1}", "give either low and high, or among"),
        ("mixup: [", "is not YAML"),
    ],
)
def test_a_faulty_space_ends_in_one_line(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "space.yaml").write_text(text)
    with pytest.raises(InvalidSearch, match=complaint) as raised:
        read_space(tmp_path / "space.yaml")
    assert "\n" not in str(raised.value)
