"""A small catalogue that the training tests share, and what the tiny model of `model_folder` says of it."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from detector.artefact import Artefact, load
from training import scores
from training.assemble import write
from training.calibrate import settle
from training.data import load_manifest
from training.evaluate import evaluate
from training.tracking import runs

SOURCES = 4  # a class and split
PHOTOS = 3  # a source


def _photo(label: str, seed: int) -> Image.Image:
    """Real photos have grain and are dark, ai ones are smooth and light, as far as chance lets them."""
    rng = np.random.default_rng(seed)
    light = rng.normal(110 if label == "real" else 150, 20)
    coarse = Image.fromarray(rng.normal(light, 40, (6, 8, 3)).clip(0, 255).astype(np.uint8)).resize((96, 72))
    grain = rng.normal(0, 12 if label == "real" else 3, (72, 96, 3))
    return Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8)).filter(ImageFilter.SMOOTH)


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """72 readable photos in three splits, and one in val that is broken; do not write beside it (copy it first)."""
    folder = tmp_path_factory.mktemp("photos")
    rows = []
    for split in ("train", "val", "test"):
        for label in ("real", "ai"):
            for number in range(SOURCES * PHOTOS):
                source, seed = f"{split}-{label}-{number // PHOTOS}", len(rows)
                path = folder / f"{source}-{number}.jpg"
                _photo(label, seed).save(path, quality=90)
                generator = f"generator-{number // PHOTOS % 2}" if label == "ai" else ""
                category, style = ("shoes", "bags")[number % 2], ("white", "")[number // PHOTOS % 2]
                rows.append([path.name, label, split, source, generator, category, style, "MIT"])
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    rows.append(["broken.jpg", "real", "val", "val-real-0", "", "shoes", "", "MIT"])
    with (folder / "manifest.csv").open("w", newline="") as file:
        header = ["path", "label", "split", "source", "generator", "category", "style", "licence"]
        csv.writer(file).writerows([header, *rows])
    return folder / "manifest.csv"


@pytest.fixture(scope="session")
def artefact(model_folder: Path) -> Artefact:
    return load(model_folder)


@pytest.fixture(scope="session")
def table(artefact: Artefact, manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scores of `model_folder` on val and test; do not write to it (copy it first)."""
    path = tmp_path_factory.mktemp("scores") / "scores.csv"
    photos = [photo for photo in load_manifest(manifest) if photo.split != "train"]
    scores.fill(path, artefact, photos, manifest.parent, threads=1)
    return path


@pytest.fixture(scope="session")
def judged(artefact: Artefact, table: Path, manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    """`model_folder` fused, calibrated and judged on the catalogue; do not write to it (copy it first)."""
    folder = Path(shutil.copytree(artefact.folder, tmp_path_factory.mktemp("judged") / "model"))
    found = scores.read(table, artefact)
    settled = write(folder, "settled", settle(artefact, found.of("val"), {"accurate": ["a", "b"], "fast": ["b"]}, 0.1))
    photos = [photo for photo in load_manifest(manifest) if photo.path.name != "broken.jpg"]
    report = evaluate(
        settled,
        found,
        photos,
        manifest.parent,
        ["val", "test"],
        broken={"broken.jpg": "The photo is damaged."},
        commit="0123456789ab+",
        notes=["White shoes are the errors."],
        rounds=20,
    )
    return write(folder, "judged", {"report": report})


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of MLflow's without a run of the tests'; to copy, for laying out its tables takes seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    assert runs(path, "none") == []
    return path
