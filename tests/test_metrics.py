"""Metrics are documented as they are, and tell of those who live."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.multiprocess import MultiProcessCollector

from detector import metrics
from tests.test_docs import rows

ROOT = Path(__file__).parent.parent


def named() -> dict[str, MetricWrapperBase]:
    made = [value for value in vars(metrics).values() if isinstance(value, MetricWrapperBase)]
    return {f"{one._name}_total" if one._type == "counter" else one._name: one for one in made}


def test_every_metric_is_documented_once_with_its_type_and_labels() -> None:
    table = [row for row in rows("docs/metrics.md") if row[0].startswith("ppd_")]
    documented = {row[0]: (row[1], tuple(row[2].split(", ")) if row[2] else ()) for row in table}
    assert len(table) == len(documented)
    assert documented == {name: (one._type, one._labelnames) for name, one in named().items()}


def test_gauges_tell_of_living_processes_alone() -> None:
    modes = {one._multiprocess_mode for one in named().values() if one._type == "gauge"}  # type: ignore[attr-defined]
    assert all(mode.startswith("live") for mode in modes)


def run(code: str, folder: Path) -> None:
    environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environ, check=True, timeout=60)


def value(folder: Path, name: str) -> Any:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
    return registry.get_sample_value(name)


def test_what_a_killed_process_held_is_forgotten_and_what_it_counted_is_not(tmp_path: Path) -> None:
    run(
        "import os; from detector import metrics; metrics.IN_FLIGHT.inc(); metrics.CALLERS_LEFT.inc(); os._exit(0)",
        tmp_path,
    )
    assert value(tmp_path, "ppd_in_flight") == 1
    metrics.forget_ended(tmp_path)
    assert value(tmp_path, "ppd_in_flight") is None
    assert value(tmp_path, "ppd_callers_left_total") == 1


def test_a_process_that_runs_is_not_forgotten(tmp_path: Path) -> None:
    code = "from detector import metrics; metrics.IN_FLIGHT.inc(); text = metrics.exposition().decode()"
    run(f"{code}; assert 'ppd_in_flight 1.0' in text", tmp_path)
