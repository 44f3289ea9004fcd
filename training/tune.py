"""A search over recipes that resumes: Optuna's TPE with median pruning, every trial an MLflow run.

Knows no network: what a recipe is worth is the objective's to say.
"""

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from sqlalchemy.exc import SQLAlchemyError

from training.recipe import Recipe
from training.tracking import Run, tracking
from training.train import Log

Objective = Callable[[Recipe, Path, Log], float]  # a recipe, its own folder, where to report; larger is better
REPORTED = "worst_tier"  # the figure that prunes; see `_Reporter`


class InvalidSearch(ValueError):
    """A search that can't be begun or gone on with; one line that says why."""


class Range(BaseModel):
    """What a setting may be: numbers between two, or one of several values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: float | None = None
    high: float | None = None
    log: bool = False
    whole: bool = Field(False, description="whole numbers alone")
    among: tuple[Any, ...] = ()

    @model_validator(mode="after")
    def _one_of_two(self) -> "Range":
        bounds = self.low is not None and self.high is not None
        if bounds == bool(self.among):
            raise ValueError("give either low and high, or among")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError("low is above high")
        return self

    def suggest(self, trial: Trial, name: str) -> Any:
        if self.low is None or self.high is None:
            return trial.suggest_categorical(name, list(self.among))
        if self.whole:
            return trial.suggest_int(name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)


Space = Mapping[str, Range]  # setting of a Recipe -> what it may be


def read_space(path: Path) -> dict[str, Range]:
    """A search space from YAML; InvalidSearch names what is no setting of a recipe, or no range."""
    try:
        space = TypeAdapter(dict[str, Range]).validate_python(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except OSError:
        raise InvalidSearch(f"{path}: there is no such search space, or it can't be read") from None
    except yaml.YAMLError:
        raise InvalidSearch(f"{path.name}: is not YAML") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InvalidSearch(f"{path.name}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    unknown = sorted(space.keys() - Recipe.model_fields.keys())
    if unknown:
        raise InvalidSearch(f"{path.name}: {unknown[0]} is not a setting of a recipe")
    return space


def tune(objective: Objective, base: Recipe, space: Space, trials: int, folder: Path, seed: int = 0) -> FrozenTrial:
    """Bring the search in `folder` to `trials` finished or pruned trials, and return the best.

    The winning recipe is written as best.yaml after every trial, so that an interruption loses the trial at hand
    alone. A trial whose objective fails by ValueError is a failed trial, and the search goes on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study = _study(base, space, folder, seed)
        left = trials - len(study.get_trials(states=[TrialState.COMPLETE, TrialState.PRUNED]))
        ask = partial(_try, objective, base, space, folder)
        if left > 0:
            study.optimize(ask, n_trials=left, catch=(ValueError,), callbacks=[partial(_keep_best, base, folder)])
        finished = study.get_trials(states=[TrialState.COMPLETE])
    except SQLAlchemyError as error:
        full = "disk is full" in str(error)
        raise InvalidSearch(f"{folder / 'study.db'}: {'the disk is full' if full else 'is damaged or busy'}") from error
    if not finished:
        raise InvalidSearch("no trial came to an end; the runs in the tracking store say why")
    _keep_best(base, folder, study, study.best_trial)
    return study.best_trial


def describe(folder: Path) -> str:
    """The trials of a search as lines to read, in their order."""
    study = optuna.load_study(study_name="tune", storage=_storage(folder))
    lines = []
    for trial in study.trials:
        settings = ", ".join(
            f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in trial.params.items()
        )
        value = "-" if trial.value is None else f"{trial.value:.4f}"
        lines.append(f"{trial.number:>4} {trial.state.name.lower():<9} {value}  {settings}")
    return "\n".join(lines)


class _Reporter:
    """Takes the figures of a run's steps: into the tracking store, and to the pruner the worst tier's AUC."""

    def __init__(self, trial: Trial, run: Run) -> None:
        self._trial, self._run = trial, run

    def __call__(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log(step, figures)
        tiers = [value for name, value in figures.items() if name.startswith("auc_")]
        if tiers:
            self._trial.report(min(tiers), step)
            if self._trial.should_prune():
                raise optuna.TrialPruned


def _study(base: Recipe, space: Space, folder: Path, seed: int) -> optuna.Study:
    study = optuna.create_study(
        storage=_storage(folder),
        study_name="tune",
        direction="maximize",
        load_if_exists=True,
        sampler=TPESampler(seed=seed, n_startup_trials=5),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=3),
    )
    asked = {
        "base": base.model_dump(mode="json"),
        "space": {name: one.model_dump(mode="json") for name, one in space.items()},
    }
    known = study.user_attrs.get("asked")
    if known is None:
        study.set_user_attr("asked", asked)
    elif known != asked:
        raise InvalidSearch(f"{folder}: holds a search of another recipe or space; give this one a folder of its own")
    return study


def _storage(folder: Path) -> str:
    return f"sqlite:///{(folder / 'study.db').resolve()}"


def _try(objective: Objective, base: Recipe, space: Space, folder: Path, trial: Trial) -> float:
    recipe = _vary(base, {name: one.suggest(trial, name) for name, one in space.items()})
    settings = recipe.model_dump(mode="json")
    name = f"trial-{trial.number:03}"
    pruned: optuna.TrialPruned | None = None
    value = float("nan")
    with tracking(folder / "mlflow.db", "tune", name, settings) as run:
        try:
            value = objective(recipe, folder / name, _Reporter(trial, run))
            run.log(recipe.steps, {REPORTED: value})
        except optuna.TrialPruned as error:  # no failure: the run ends in order
            run.tag("pruned", "true")
            pruned = error
    if pruned is not None:
        raise pruned
    return value


def _vary(base: Recipe, chosen: Mapping[str, Any]) -> Recipe:
    return Recipe.model_validate(base.model_dump() | dict(chosen))


def _keep_best(base: Recipe, folder: Path, study: optuna.Study, _: FrozenTrial) -> None:
    if not study.get_trials(states=[TrialState.COMPLETE], deepcopy=False):
        return
    best = study.best_trial
    recipe = _vary(base, best.params).model_dump(mode="json", exclude_defaults=True)
    head = f"# Trial {best.number} of {len(study.trials)}: worst tier's AUC {best.value:.4f}.\n"
    part = folder / "best.yaml.part"
    part.write_text(head + yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    part.replace(folder / "best.yaml")
