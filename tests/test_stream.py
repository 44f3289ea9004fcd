"""What runs for throughput says what the service's runtime says, whatever else is under way."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from detector.artefact import load
from detector.ensemble import Plan
from detector.runtime import load_runtime
from detector.stream import CpuStream, GpuStream, load_stream

COUNT = 40


@pytest.fixture
def plan(model_folder: Path) -> Plan:
    return load(model_folder).spec.plan("accurate")


@pytest.fixture
def views() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (COUNT, 3, 3, 32, 32), np.uint8)


def test_each_photo_gets_its_own_evidence(model_folder: Path, plan: Plan, views: NDArray[np.uint8]) -> None:
    stream = load_stream(model_folder, plan, "cpu")
    futures = [stream.submit(one) for one in views]
    seen = np.stack([future.result(30) for future in futures])
    stream.close()
    np.testing.assert_allclose(seen, load_runtime(model_folder, plan, "cpu").score(views), atol=1e-5)


def test_a_photo_scores_bit_for_bit_the_same_beside_any_others(
    model_folder: Path, plan: Plan, views: NDArray[np.uint8]
) -> None:
    stream = CpuStream(model_folder, plan)
    alone = stream.submit(views[7]).result(30)
    crowd = [stream.submit(one) for one in views]
    assert crowd[7].result(30).tobytes() == alone.tobytes()
    stream.close()


def test_a_gpu_s_batches_keep_photos_apart(model_folder: Path, plan: Plan, views: NDArray[np.uint8]) -> None:
    """The batching alone, over the CPU's networks."""
    runtime = load_runtime(model_folder, plan, "cpu")
    stream = GpuStream(runtime, 8)
    seen = [future.result(30) for future in [stream.submit(one) for one in views[:20]]]
    stream.close()
    np.testing.assert_allclose(np.stack(seen), runtime.score(views[:20]), atol=1e-5)


def test_a_failing_gpu_is_told_to_whoever_waits(model_folder: Path, plan: Plan) -> None:
    stream = GpuStream(load_runtime(model_folder, plan, "cpu"), 8)
    future = stream.submit(np.zeros((1, 1), np.uint8))
    with pytest.raises(IndexError):
        future.result(30)
    stream.close()
