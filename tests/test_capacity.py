"""The capacity plan is arithmetic on what the benchmarks' pages say."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import capacity
from benchmarks.capacity import Measured, Pod

ROOT = Path(__file__).parent.parent
SEEN = Measured(4, {capacity.ROUTE: 40.0}, {capacity.ROUTE: 200.0}, 500.0, 900.0, 1.0)
POD = Pod(cores=2, memory=1024, busy=0.5, most=10)


def test_the_page_says_what_the_command_says_now() -> None:
    """After a new measurement: make capacity."""
    page = capacity.page(capacity.pod(capacity.chart_values()), capacity.measured())
    assert capacity.PAGE.read_text("utf-8") == page


def test_a_pod_is_planned_for_its_share_of_the_cores_that_were_measured() -> None:
    assert capacity.photos_of(POD, SEEN) == 40 / 4 * 2 * 0.5


@pytest.mark.parametrize(("photos", "pods"), [(1, 2), (10, 2), (10.1, 3), (200, 21)])
def test_a_plan_has_one_pod_more_than_the_load_needs(photos: float, pods: int) -> None:
    assert capacity.plan(photos, POD, SEEN) == capacity.Plan(photos, pods, 2 * pods, pods)


def test_slower_photos_need_more_pods() -> None:
    slower = replace(SEEN, photos={capacity.ROUTE: 20.0})
    assert capacity.plan(100, POD, slower).pods > capacity.plan(100, POD, SEEN).pods


def test_what_the_pages_say_is_read_from_their_tables(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(
        "service and limit share the same 8 cores.\n"
        "| load (route x callers) | photos/s | of the limit | p50 ms | p95 ms |\n"
        "| --- | --- | --- | --- | --- |\n"
        "| /predict x 8 | 50.5 | 0.9 | 100 | 250 |\n"
        "| resident memory of all processes | 700 MiB (800, shared pages in each) | < 600 MB |\n"
    )
    (tmp_path / "storm.md").write_text(
        "| `/livez` p99 meanwhile | 1503 ms | |\n| memory before, after | 532, 946 MiB | |\n"
    )
    seen = capacity.measured(tmp_path)
    assert seen == Measured(8, {"/predict x 8": 50.5}, {"/predict x 8": 250.0}, 700.0, 946.0, 1.503)


def test_the_command_prints_a_plan() -> None:
    command = [sys.executable, "-m", "benchmarks.capacity", "--photos-per-second", "200"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    pods = capacity.plan(200, capacity.pod(capacity.chart_values()), capacity.measured()).pods
    assert f"{pods} pods" in done.stdout
    assert f"autoscaling.maxReplicas={pods}" in done.stdout


def test_no_photos_are_no_load() -> None:
    command = [sys.executable, "-m", "benchmarks.capacity", "--photos-per-second", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "must be above 0" in done.stderr
