"""A run's parts judged by a Ray cluster: Ray Data deals parts to workers, each the same engine as a local scan.

A worker writes its part itself, whole and under the part's own name, so a part that Ray deals twice is there once.
Ray decides where work goes, starts more workers while there is some, and replaces those that die.
"""

import argparse
import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from detector.errors import DetectorError, InvalidScan
from detector.scan.job import Job, open_engine
from detector.scan.listing import Listing
from detector.scan.local import judge_parts
from detector.scan.results import Outcome
from detector.scan.storage import Store, protocol_of

REGISTERS = 4  # actors that remember outcomes, each for a share of the hashes


@dataclass(frozen=True)
class Fleet:
    """How many workers, and what each is given. `max_workers` None: as many as the cluster may hold."""

    address: str | None = None
    min_workers: int = 1
    max_workers: int | None = None
    worker_cpus: int = 2
    worker_gpus: float = 0.0

    @classmethod
    def of(cls, options: argparse.Namespace) -> "Fleet":
        return cls(
            options.ray_address or os.environ.get("RAY_ADDRESS") or None,
            options.min_workers,
            options.max_workers,
            options.worker_cpus,
            options.worker_gpus,
        )


def judge(job: Job, parts: Sequence[int], fleet: Fleet) -> Iterator[int]:
    """Have all parts judged; the number of photos of each, as it is done."""
    ray = _ray()
    began = not ray.is_initialized()
    if began:
        _join(ray, fleet.address)
    if not _only_this_machine(ray) and protocol_of(job.store) in ("file", "memory"):
        print(f"{job.store} has to be the same folder on every machine of the cluster.")
    try:
        if began and fleet.address is None:
            _check_room(ray, fleet)
        registers = [_remote_memory(ray).remote() for _ in range(REGISTERS)]
        done = _dealt(ray, job, parts, fleet, registers)
        for row in done.iter_rows():
            if row["error"]:
                raise InvalidScan(row["error"])
            yield int(row["photos"])
    finally:
        if began:
            ray.shutdown()


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.data
    except ImportError:
        raise InvalidScan("--engine ray needs the extra `scan-fleet`.") from None
    return ray


def _join(ray: Any, address: str | None) -> None:
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level="error")
    except (ConnectionError, RuntimeError, ValueError):
        raise InvalidScan(f"There is no Ray cluster at {address or 'this machine'}.") from None
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # ours tells of photos
    context.print_on_execution_start = False


def _check_room(ray: Any, fleet: Fleet) -> None:
    """A cluster that doesn't grow would wait for its first workers for ever."""
    needed, there = fleet.min_workers * fleet.worker_cpus, int(ray.cluster_resources().get("CPU", 0))
    if needed > there:
        raise InvalidScan(f"The workers to begin with need {needed} cores; this cluster has {there}.")


def _only_this_machine(ray: Any) -> bool:
    return sum(1 for node in ray.nodes() if node["Alive"]) == 1


def _dealt(ray: Any, job: Job, parts: Sequence[int], fleet: Fleet, registers: list[Any]) -> Any:
    """The pool grows from `min_workers` while parts wait, which asks an autoscaling cluster for machines."""
    pool = ray.data.ActorPoolStrategy(
        min_size=fleet.min_workers,
        max_size=fleet.max_workers,
        max_tasks_in_flight_per_actor=2,  # the next part's listing is there when one is done
    )
    dealt = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts))
    return dealt.map_batches(
        Worker,
        fn_constructor_args=(job, registers),
        batch_size=1,
        compute=pool,
        num_cpus=fleet.worker_cpus,
        num_gpus=fleet.worker_gpus or None,
    )


class Worker:
    """One actor: an engine of its own, kept for every part it is dealt."""

    def __init__(self, job: Job, registers: list[Any]) -> None:
        self._job, self._store = job, Store(job.store)
        self._listing = Listing(self._store, job.wanted.part_size)
        self._failure = ""
        try:
            self._engine = open_engine(job, FleetMemory(registers))
        except DetectorError as error:  # every worker would fail the same way: told once, not tried again
            self._failure = error.detail

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        part = int(batch["part"][0])
        if self._failure:
            return {"part": [part], "photos": [0], "error": [self._failure]}
        photos: list[Any] = []
        wanted = self._job.wanted
        for _ in judge_parts(
            self._engine, self._store, self._listing, [part], wanted.part_size, wanted.format, photos.append
        ):
            pass
        return {"part": [part], "photos": [len(photos)], "error": [""]}


class FleetMemory:
    """Outcomes kept by actors, each for its share of the hashes; one that is gone costs time and no verdict."""

    def __init__(self, registers: list[Any]) -> None:
        self._registers = registers

    def recall(self, sha256: str) -> Outcome | None:
        import ray

        with contextlib.suppress(ray.exceptions.RayError):
            found: Outcome | None = ray.get(self._of(sha256).recall.remote(sha256))
            return found
        return None

    def keep(self, sha256: str, outcome: Outcome) -> None:
        import ray

        with contextlib.suppress(ray.exceptions.RayError):
            self._of(sha256).keep.remote(sha256, outcome)

    def close(self) -> None:
        pass

    def _of(self, sha256: str) -> Any:
        return self._registers[int(sha256[:8], 16) % len(self._registers)]


class _FileMemory:
    """What a register's actor runs: the local memory in a file of the actor's machine."""

    def __init__(self) -> None:
        from pathlib import Path
        from tempfile import TemporaryDirectory

        from detector.scan.register import SqliteMemory

        self._folder = TemporaryDirectory()
        self._memory = SqliteMemory(Path(self._folder.name) / "outcomes.sqlite")

    def recall(self, sha256: str) -> Outcome | None:
        return self._memory.recall(sha256)

    def keep(self, sha256: str, outcome: Outcome) -> None:
        self._memory.keep(sha256, outcome)


def _remote_memory(ray: Any) -> Any:
    return ray.remote(num_cpus=0, max_restarts=-1)(_FileMemory)
