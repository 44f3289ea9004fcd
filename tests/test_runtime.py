"""Evidence comes back in the order of the photos, whatever the batch, and the engines agree."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from detector import runtime as engines
from detector.artefact import load
from detector.errors import InvalidArtefact, InvalidSettings
from detector.runtime import Runtime, load_runtime
from tests.conftest import Tiny


@pytest.fixture
def runtime(model_folder: Path) -> Runtime:
    return load_runtime(model_folder, load(model_folder).spec.plan("accurate"), "cpu")


def views(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 3, 32, 32), np.uint8)


def test_a_photo_scores_the_same_alone_and_in_a_batch(runtime: Runtime) -> None:
    batch = views(23)  # 69 views of expert a: more than one chunk, and an uneven rest
    together = runtime.score(batch)
    alone = np.concatenate([runtime.score(batch[index : index + 1]) for index in range(23)])
    assert together.shape == (23, runtime.plan.width)
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_an_earlier_answer_is_not_overwritten_by_a_later_one(runtime: Runtime) -> None:
    first = runtime.score(views(1))
    kept = first.copy()
    runtime.score(views(1, seed=1))
    np.testing.assert_array_equal(first, kept)


def test_openvino_and_torch_agree_in_probability(
    model_folder: Path, networks: dict[str, Tiny], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The torch backend, run on the CPU here, is the one CUDA and MPS use."""
    artefact = load(model_folder)
    plan, calibration = artefact.spec.plan("accurate"), artefact.calibrations["accurate"]
    monkeypatch.setattr("detector.networks.build", lambda _: Tiny(0))
    torch_runtime = Runtime(plan, [engines._torch(model_folder, expert, "cpu") for expert in plan.experts], "cpu")
    openvino_runtime = load_runtime(model_folder, plan, "cpu")
    batch = views(8)
    pairs = zip(torch_runtime.score(batch), openvino_runtime.score(batch), strict=True)
    for one, other in pairs:
        assert calibration.probability(plan.fuse(one)) == pytest.approx(
            calibration.probability(plan.fuse(other)), abs=1e-3
        )


def test_a_heat_map_is_what_grad_cam_by_autograd_gives(networks: dict[str, Tiny]) -> None:
    """Selvaraju et al. 2017: channel weights are the gradient of the logit; with a linear head that is CAM."""

    class WithFeatures(Tiny):
        def forward(self, views: Tensor) -> Tensor:
            self.features = torch.relu(self.trunk(views.float() / 127.5 - 1))
            self.features.retain_grad()
            return self.head(self.features)[:, 0]

    network = WithFeatures(0)
    network.head = torch.nn.Conv2d(8, 1, 1)  # one weight a channel, as a linear head on pooled features has
    evidence = network(torch.from_numpy(views(1)[0, :1]))
    evidence.mean().backward()
    assert network.features.grad is not None
    weights = network.features.grad.sum(dim=(2, 3), keepdim=True)
    grad_cam = (weights * network.features).sum(1) + network.head.bias
    torch.testing.assert_close(grad_cam, evidence)


def test_a_gpu_that_is_not_there_is_refused_by_name() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(InvalidSettings, match=r"model\.device is cuda"):
        engines.find_device("cuda")


def test_auto_takes_the_cpu_where_torch_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    assert engines.find_device("auto") == "cpu"
    with pytest.raises(InvalidSettings, match="torch is not installed"):
        engines.find_device("mps")


def test_a_broken_network_file_is_a_broken_artefact(model_folder: Path, tmp_path: Path) -> None:
    plan = load(model_folder).spec.plan("fast")
    for name in ("b.st", "h.st"):
        (tmp_path / name).write_bytes((model_folder / name).read_bytes())
    (tmp_path / "b.xml").write_text("<net/>")
    with pytest.raises(InvalidArtefact, match=r"b\.xml can't be run"):
        load_runtime(tmp_path, plan, "cpu")
