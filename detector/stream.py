"""The networks run for throughput: many photos under way at once, each scored by itself so that no batch bears on it.

OpenVINO's asynchronous queues on the CPU, batches of photos on a GPU. Takes views and gives futures of evidence;
loading and engines' options are `runtime`'s.
"""

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from detector.ensemble import Plan
from detector.errors import ModelUnavailable
from detector.runtime import Device, Precision, Runtime, compile_expert, find_device, load_runtime

Evidence = NDArray[np.float32]  # (plan.width,)
_Job = tuple[NDArray[np.uint8], Future[Evidence]]


class Stream(Protocol):
    """Takes one photo's views, (v, 3, s, s), at a time; waits where enough are under way."""

    device: Device

    def submit(self, views: NDArray[np.uint8]) -> Future[Evidence]: ...

    def check(self) -> None:
        """Raise what an engine has failed with, if it has."""

    def close(self) -> None: ...


def load_stream(
    folder: Path,
    plan: Plan,
    device: Literal["auto"] | Device = "auto",
    precision: Precision = "f32",
    threads: int = 0,
    batch: int = 32,
) -> Stream:
    """threads: CPU threads, 0 = every core. batch: photos in one go on a GPU."""
    chosen = find_device(device)
    if chosen == "cpu":
        return CpuStream(folder, plan, precision, threads)
    return GpuStream(load_runtime(folder, plan, chosen), batch)


class CpuStream:
    """One queue an expert; a photo's future is done when the last expert has answered."""

    device: Device = "cpu"

    def __init__(self, folder: Path, plan: Plan, precision: Precision = "f32", threads: int = 0) -> None:
        from openvino import AsyncInferQueue

        self._plan, self._queues, self._locks = plan, [], []
        for index, expert in enumerate(plan.experts):
            shape = (len(expert.views), 3, plan.size, plan.size)
            compiled = compile_expert(folder, expert, precision, threads, "THROUGHPUT", shape)
            ready = 2 * compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")  # so that no stream waits for us
            waiting = AsyncInferQueue(compiled, ready)
            waiting.set_callback(_receiver(index))
            self._queues.append(waiting)
            self._locks.append(threading.Lock())  # a queue may be fed by one thread at a time

    def submit(self, views: NDArray[np.uint8]) -> Future[Evidence]:
        photo = _Scored(len(self._queues))
        for expert, waiting, lock in zip(self._plan.experts, self._queues, self._locks, strict=True):
            shown = np.ascontiguousarray(views[list(expert.views)])
            try:
                with lock:
                    waiting.start_async([shown], photo)
            except RuntimeError:
                raise ModelUnavailable("The networks have failed.") from None
        return photo.future

    def check(self) -> None:
        try:
            for waiting in self._queues:
                waiting.wait_all()
        except RuntimeError:
            raise ModelUnavailable("The networks have failed.") from None

    def close(self) -> None:
        self.check()
        self._queues.clear()


class _Scored:
    """What the experts have said of a photo so far."""

    def __init__(self, experts: int) -> None:
        self.future: Future[Evidence] = Future()
        self._columns: list[NDArray[np.float32] | None] = [None] * experts
        self._missing, self._lock = experts, threading.Lock()

    def take(self, index: int, maps: NDArray[np.float32]) -> None:
        self._columns[index] = maps
        with self._lock:
            self._missing -= 1
            last = not self._missing
        if last:
            self.future.set_result(np.concatenate([column for column in self._columns if column is not None]))


def _receiver(index: int) -> Any:
    def receive(request: Any, photo: _Scored) -> None:
        photo.take(index, np.array(request.get_output_tensor(0).data, np.float32).ravel())

    return receive


class GpuStream:
    """A thread of its own that scores whatever waits, up to `batch` photos in one go."""

    def __init__(self, runtime: Runtime, batch: int) -> None:
        self.device: Device = runtime.device
        self._runtime, self._batch = runtime, batch
        self._waiting: queue.Queue[_Job | None] = queue.Queue(2 * batch)
        self._thread = threading.Thread(target=self._run, name="gpu", daemon=True)
        self._thread.start()

    def submit(self, views: NDArray[np.uint8]) -> Future[Evidence]:
        future: Future[Evidence] = Future()
        self._waiting.put((views, future))
        return future

    def check(self) -> None:
        if not self._thread.is_alive():
            raise ModelUnavailable("The networks have failed.")

    def close(self) -> None:
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            jobs = [first]
            while len(jobs) < self._batch and not self._waiting.empty():
                if (job := self._waiting.get()) is None:
                    self._waiting.put(None)
                    break
                jobs.append(job)
            self._score(jobs)

    def _score(self, jobs: Sequence[_Job]) -> None:
        try:
            for row, (_, future) in zip(self._runtime.score(np.stack([views for views, _ in jobs])), jobs, strict=True):
                future.set_result(row)
        except Exception as error:  # whoever waits for these photos is told
            for _, future in jobs:
                if not future.done():
                    future.set_exception(error)
