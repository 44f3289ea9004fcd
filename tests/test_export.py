"""Weights are stored once, and both engines read the same bytes."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from detector.artefact import load
from detector.runtime import load_runtime
from tests.conftest import Tiny
from training.export import save_network


def test_a_split_network_gives_what_torch_gives(model_folder: Path, networks: dict[str, Tiny]) -> None:
    runtime = load_runtime(model_folder, load(model_folder).spec.plan("fast"), "cpu")
    views = np.random.default_rng(0).integers(0, 256, (5, 1, 3, 32, 32), np.uint8)
    with torch.inference_mode():
        expected = networks["b"](torch.from_numpy(views[:, 0])).numpy().reshape(5, -1)
    np.testing.assert_allclose(runtime.score(views), expected, atol=1e-5)


def test_each_part_holds_its_own_weights(model_folder: Path) -> None:
    assert set(load_file(model_folder / "b.st")) == {"trunk.weight", "trunk.bias"}
    assert {"head.weight", "head.bias"} <= set(load_file(model_folder / "h.st"))


def test_a_retrained_head_leaves_the_trunk_file_unchanged(tmp_path: Path) -> None:
    network = Tiny(3).eval()
    save_network(network, 32, tmp_path, "n.xml", {"trunk.st": "trunk.", "head.st": ""})
    before = (tmp_path / "trunk.st").read_bytes(), (tmp_path / "head.st").read_bytes()
    nn.init.zeros_(network.head.weight)
    save_network(network, 32, tmp_path, "n.xml", {"trunk.st": "trunk.", "head.st": ""})
    assert (tmp_path / "trunk.st").read_bytes() == before[0]
    assert (tmp_path / "head.st").read_bytes() != before[1]


class Quantised(nn.Module):
    """A linear layer kept as int8 with a scale per output channel."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.register_buffer("weight", torch.randint(-127, 128, (16, 3 * 32 * 32), dtype=torch.int8))
        self.register_buffer("scale", torch.full((16, 1), 1e-4).half().float())

    def forward(self, views: Tensor) -> Tensor:
        flat = views.float().flatten(1) / 255
        return nn.functional.linear(flat, self.weight.float() * self.scale).reshape(-1, 4, 4)


def test_int8_weights_stay_int8_on_disk(tmp_path: Path) -> None:
    save_network(Quantised().eval(), 32, tmp_path, "q.xml", {"q.st": ""})
    assert load_file(tmp_path / "q.st")["weight"].dtype == torch.int8
    assert (tmp_path / "q.st").stat().st_size < 1.1 * 16 * 3 * 32 * 32
