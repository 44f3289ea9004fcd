"""A Ray cluster of two workers says what one machine says, and goes on where any scan ended."""

import argparse
import subprocess
import sys
from pathlib import Path

import yaml

from detector.scan.options import add_options
from tests import serving
from tests.scan.conftest import Scan, rows


def test_two_workers_of_a_cluster_give_the_rows_of_one_machine(
    catalogue: Path, scan: Scan, tmp_path: Path, model_folder: Path
) -> None:
    """Begun here, a part taken away, gone on by the fleet; and done by the fleet alone. Bit for bit."""
    assert scan(catalogue, "--part-size", "3") == 0
    expected = rows(tmp_path / "out")
    for part in (1, 3):
        (tmp_path / f"out/results/part-{part:06d}.parquet").unlink()
    command = [sys.executable, "-m", "detector", "scan", str(catalogue), "--out", str(tmp_path / "out"), "--quiet"]
    command += ["--model", str(model_folder), "--part-size", "3", "--engine", "ray"]
    command += ["--worker-cpus", "1", "--min-workers", "2", "--max-workers", "2"]
    environ = serving.environment(tmp_path)
    done = subprocess.run(command, cwd=serving.ROOT, env=environ, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    seen = rows(tmp_path / "out")
    names = expected[0].keys() - {"reused"}
    assert [{name: row[name] for name in names} for row in seen] == [
        {name: row[name] for name in names} for row in expected
    ]


def test_the_kuberay_job_asks_for_what_the_command_takes_and_its_workers_hold() -> None:
    job = yaml.safe_load((serving.ROOT / "deploy/kuberay/scan.yaml").read_text())["spec"]
    parser = argparse.ArgumentParser()
    add_options(parser)
    options = parser.parse_args(job["entrypoint"].split()[2:])
    (group,) = job["rayClusterSpec"]["workerGroupSpecs"]
    cores = int(group["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"])
    assert (options.engine, options.ray_address) == ("ray", "auto")
    assert options.max_workers * options.worker_cpus == group["maxReplicas"] * cores
