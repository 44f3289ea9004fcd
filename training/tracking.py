"""Runs into a local MLflow store, one SQLite file; nothing leaves the machine.

The only place that knows MLflow. `mlflow ui --backend-store-uri sqlite:///runs/mlflow.db` of the full package shows it.
"""

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

LONGEST = 500  # characters of a parameter that MLflow keeps for sure
_SILENCE = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}


@dataclass(frozen=True)
class Run:
    """One run that is being tracked."""

    id: str
    _client: "MlflowClient"

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Figures of a step, in the form that `train` reports them."""
        with _quiet():
            for name, value in figures.items():
                self._client.log_metric(self.id, name, float(value), step=step)

    def tag(self, name: str, value: str) -> None:
        with _quiet():
            self._client.set_tag(self.id, name, value)


@contextmanager
def tracking(store: Path, experiment: str, name: str, settings: Mapping[str, Any]) -> Iterator[Run]:
    """A run in the SQLite file `store`; it ends FINISHED, FAILED on an error and KILLED on an interruption.

    settings: nested mappings become dotted names.
    """
    with _quiet():
        client = _client(store)
        found = client.get_experiment_by_name(experiment)
        artefacts = (store.parent / "mlflow").resolve().as_uri()
        place = found.experiment_id if found else client.create_experiment(experiment, artifact_location=artefacts)
        run = Run(client.create_run(place, run_name=name).info.run_id, client)
        for key, value in _flat(settings):
            client.log_param(run.id, key, str(value)[:LONGEST])
    status = "FINISHED"
    try:
        yield run
    except BaseException as error:
        status = "FAILED" if isinstance(error, Exception) else "KILLED"
        raise
    finally:
        with _quiet():
            client.set_terminated(run.id, status)


def runs(store: Path, experiment: str) -> list[dict[str, Any]]:
    """The runs of an experiment, oldest first: name, status, settings and last figures."""
    with _quiet():
        client = _client(store)
        found = client.get_experiment_by_name(experiment)
        listed = client.search_runs([found.experiment_id], order_by=["attributes.start_time ASC"]) if found else []
    return [
        {"name": run.info.run_name, "status": run.info.status, "settings": run.data.params, "figures": run.data.metrics}
        for run in listed
    ]


def _client(store: Path) -> "MlflowClient":
    store.parent.mkdir(parents=True, exist_ok=True)
    from mlflow.tracking import MlflowClient

    return MlflowClient(f"sqlite:///{store.resolve()}")


@contextmanager
def _quiet() -> Iterator[None]:
    """MLflow 3.17 uses what SQLAlchemy 2.1 deprecates; telemetry is refused before MLflow is first imported."""
    for name, value in _SILENCE.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
