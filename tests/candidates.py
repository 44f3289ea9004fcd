"""Tiny models to try beside `model_folder`: other weights, and views of their own."""

import json
from pathlib import Path

from detector import artefact
from tests import serving
from tests.conftest import CALIBRATION, SIZE, SPEC, Tiny
from training.export import save_network


def make_candidate(folder: Path, seed: int) -> str:
    """Write a sealed folder of one expert on two views; its tag in a Bento store."""
    folder.mkdir()
    network = Tiny(seed).half().float().eval()
    save_network(network, SIZE, folder, "a.xml", {"a.st": ""})
    spec = SPEC | {
        "views": [{"kind": "whole"}, {"kind": "crop", "centre": [0.5, 0.5]}],
        "experts": [SPEC["experts"][0] | {"views": [0, 1]}],
        "profiles": {"accurate": {"weights": {"a": 1.0}}},
    }
    calibration = {"accurate": CALIBRATION["accurate"]}
    documents = {"spec": spec, "calibration": calibration, "baseline": {}, "report": {"labels": {"auc": "0.5"}}}
    for name, content in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return tag(artefact.seal(folder, f"candidate-{seed}"))


def tag(manifest: artefact.Manifest) -> str:
    return f"product-photo-detector:{manifest.hash[:12]}"


def store_all(home: Path, *folders: Path) -> None:
    """The last one becomes `latest`."""
    for folder in folders:
        serving.store(folder, home)
