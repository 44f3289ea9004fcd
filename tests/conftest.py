"""Small real things every test may use: a sealed model folder with two tiny experts, and photos."""

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from detector import artefact
from tests import serving
from tests.provenance.signing import Authority
from tests.redis_server import RedisServer
from training.export import save_network

SIZE = 32
SPEC: dict[str, Any] = {
    "name": "product-photo-detector",
    "size": SIZE,
    "views": [
        {"kind": "whole"},
        {"kind": "crop", "centre": [0, 0]},
        {"kind": "crop", "centre": [1, 1], "long_side": 64},
    ],
    "experts": [
        {"name": "a", "architecture": "tiny", "views": [0, 1, 2], "grid": 4, "network": "a.xml", "weights": ["a.st"]},
        {"name": "b", "architecture": "tiny", "views": [0], "grid": 4, "network": "b.xml", "weights": ["b.st", "h.st"]},
    ],
    "profiles": {
        "accurate": {"weights": {"a": 1.0, "b": 0.5}, "bias": 0.25},
        "fast": {"weights": {"b": 1.0}},
    },
}
CALIBRATION: dict[str, Any] = {
    "accurate": {
        "curve": {"method": "platt", "slope": 2.0, "intercept": -0.5},
        "thresholds": {"real": 0.3, "ai_generated": 0.9},
    },
    "fast": {
        "curve": {"method": "temperature", "temperature": 2.0},
        "thresholds": {"real": 0.2, "ai_generated": 0.8},
    },
}


# Of photos as `make_photo` draws them, but twice as wide as those that are sent
BASELINE: dict[str, Any] = {
    "photos": 400,
    "probability": {name: {"edges": [0, 0.5, 1], "counts": [200, 200]} for name in ("accurate", "fast")},
    "labels": {name: {"real": 0.25, "uncertain": 0.5, "ai_generated": 0.25} for name in ("accurate", "fast")},
    "facts": {"width": {"edges": [0, 200, 400, 800], "counts": [0, 400, 0]}},
}


class Tiny(nn.Module):
    """(n, 3, 32, 32) uint8 -> (n, 4, 4): a two-layer network of the form every expert has."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.trunk = nn.Conv2d(3, 8, 4, stride=4)
        self.head = nn.Conv2d(8, 1, 2, stride=2)

    def forward(self, views: Tensor) -> Tensor:
        features = torch.relu(self.trunk(views.float() / 127.5 - 1))
        evidence: Tensor = self.head(features)[:, 0]
        return evidence


@pytest.fixture(scope="session")
def networks() -> dict[str, Tiny]:
    """The experts of `model_folder` as torch modules, with their weights as stored (fp16)."""
    made = {"a": Tiny(1), "b": Tiny(2)}
    for network in made.values():
        network.half().float().eval()
    return made


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory, networks: dict[str, Tiny]) -> Path:
    """A sealed model folder; do not write to it (copy it first)."""
    folder = tmp_path_factory.mktemp("model")
    save_network(networks["a"], SIZE, folder, "a.xml", {"a.st": ""})
    save_network(networks["b"], SIZE, folder, "b.xml", {"b.st": "trunk.", "h.st": ""})
    documents = {"spec": SPEC, "calibration": CALIBRATION, "baseline": BASELINE, "report": {"labels": {"auc": "0.5"}}}
    for name, content in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    artefact.seal(folder, "test")
    return folder


def make_photo(width: int = 160, height: int = 120, seed: int = 0) -> Image.Image:
    """A smooth colourful picture with some grain."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize((width, height))
    grain = rng.normal(0, 6, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8))


def encoded(photo: Image.Image, format: str = "JPEG", **options: Any) -> bytes:
    buffer = BytesIO()
    photo.save(buffer, format, **options)
    return buffer.getvalue()


def remarked(jpeg: bytes, number: int) -> bytes:
    """The same photo with a comment of its own, so that no cache knows it."""
    return jpeg[:2] + b"\xff\xfe\x00\x0a" + number.to_bytes(8) + jpeg[2:]


@pytest.fixture
def photo() -> Image.Image:
    return make_photo()


@pytest.fixture
def jpeg(photo: Image.Image) -> bytes:
    return encoded(photo, quality=90)


@pytest.fixture(scope="session")
def bento_home(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Bento store that holds `model_folder`; do not write to it (copy it first)."""
    home = tmp_path_factory.mktemp("bento")
    serving.store(model_folder, home)
    return home


@pytest.fixture(scope="session")
def authority() -> Authority:
    """The root whose signers `service` trusts."""
    return Authority("Trusted root")


@pytest.fixture(scope="session")
def service(bento_home: Path, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of the real service: a trust list, and no budgets, which many tests at once would spend."""
    folder = tmp_path_factory.mktemp("service")
    (folder / "anchors.pem").write_text(authority.root)
    settings = {"PPD_PROVENANCE__TRUST_ANCHORS": str(folder / "anchors.pem")}
    unlimited = {
        f"PPD_LIMITS__{route}": "null" for route in ("PREDICT", "BATCH", "EXPLAIN", "DECISIONS", "FEEDBACK", "DRIFT")
    }
    with serving.serving(bento_home, folder / "serve.log", **settings, **unlimited) as client:
        yield client


@pytest.fixture(scope="session")
def redis_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("redis")


@pytest.fixture
def redis_server(redis_folder: Path) -> Iterator[RedisServer]:
    """A running redis-server, empty; the test may stop and start it."""
    server = RedisServer(redis_folder)
    server.start()
    yield server
    server.stop()
