"""training.features: what is cached is what the expert sees, and a stopped extraction goes on where it was."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from detector.calibration import sigmoid
from detector.networks import Clip
from tests.conftest import make_photo
from training.augment import TIERS
from training.data import Photo
from training.features import Showing, extract, plan, read, read_lessons
from training.metrics import log_loss
from training.probe import Head, cross_fit, fit, install, save, teach
from training.probe import read as read_head
from training.weights import load_clip

ONE = Clip((1,))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Photo]:
    folder = tmp_path_factory.mktemp("photos")
    made = []
    for number in range(10):
        path = folder / f"{number}.jpg"
        make_photo(64, 64, number).save(path)
        made.append(Photo(path, number % 2, "val" if number > 7 else "train", f"s{number}", "g" if number % 2 else ""))
    return made


@pytest.fixture(scope="module")
def cache(photos: list[Photo], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    assert extract(plan(photos, 1), ONE, folder, "f32") == 0
    return folder


def test_train_photos_are_shown_clean_and_degraded_and_val_photos_in_every_tier(photos: list[Photo]) -> None:
    shown = [(one.photo.split, one.variant) for one in plan(photos, 2)]
    assert {variant for split, variant in shown if split == "train"} == {"clean", "degraded-0", "degraded-1"}
    assert {variant for split, variant in shown if split == "val"} == set(TIERS)
    assert len(shown) == 8 * 3 + 2 * 3


def test_a_stopped_extraction_goes_on_and_keeps_what_it_had(photos: list[Photo], cache: Path, tmp_path: Path) -> None:
    showings = plan(photos, 1)
    whole = np.load(cache / "values.npy")
    extract(showings, ONE, tmp_path, "f32")
    index = json.loads((tmp_path / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps(index | {"done": 16}))
    values = np.load(tmp_path / "values.npy", mmap_mode="r+")
    values[:16], values[16:] = 7, 0
    with pytest.raises(ValueError, match="not finished"):
        read(tmp_path)
    extract(showings, ONE, tmp_path, "f32")
    values = np.load(tmp_path / "values.npy")
    assert (values[:16] == 7).all()
    np.testing.assert_allclose(values[16:], whole[16:], atol=0.02)


def test_a_cache_of_something_else_is_refused_and_not_overwritten(photos: list[Photo], cache: Path) -> None:
    before = (cache / "values.npy").read_bytes()
    with pytest.raises(ValueError, match="other photos, taps or sides"):
        extract(plan(photos, 2), ONE, cache)
    assert (cache / "values.npy").read_bytes() == before


def test_caches_and_heads_of_no_known_trunk_are_refused(cache: Path, tmp_path: Path) -> None:
    index = json.loads((cache / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps(index | {"architecture": "vit.l14"}))
    with pytest.raises(ValueError, match="which CLIP they are of"):
        read(tmp_path)
    save_file({"weights": np.zeros(2), "bias": np.zeros(1)}, tmp_path / "head.safetensors")
    with pytest.raises(ValueError, match="which CLIP it is a head for"):
        read_head(tmp_path / "head.safetensors")
    save_file({"other": np.zeros(2)}, tmp_path / "head.safetensors", {"architecture": "clip.b16.6"})
    for absent in (tmp_path / "head.safetensors", tmp_path / "index.json", tmp_path / "absent.safetensors"):
        with pytest.raises(ValueError, match="holds no head"):
            read_head(absent)


def test_a_broken_photo_is_counted(tmp_path: Path, photos: list[Photo]) -> None:
    broken = Photo(tmp_path / "gone.jpg", 0, "train", "s")
    assert extract([Showing(photos[0], "clean"), Showing(broken, "clean")], ONE, tmp_path / "cache", "f32") == 1


def test_a_head_in_the_expert_gives_the_probe_s_logits(photos: list[Photo], cache: Path, tmp_path: Path) -> None:
    trained = [photo for photo in photos if photo.split == "train"]
    features = read(cache)
    head = fit(features, trained, ["clean", "degraded-0"], (1,), 0.01)
    save(head, tmp_path / "head.safetensors")
    stored = read_head(tmp_path / "head.safetensors")
    assert (stored.clip, stored.bias) == (head.clip, head.bias)
    expert = load_clip(ONE).eval()
    install(stored, expert)
    views = torch.from_numpy(np.stack([np.asarray(make_photo(64, 64, 0).resize((224, 224)))]).transpose(0, 3, 1, 2))
    tokens = expert.tokens(views.contiguous())
    seen = torch.stack([tokens[:, 0], tokens[:, 1:].mean(1)], 1).reshape(1, -1).detach().numpy()
    assert expert(views.contiguous()).mean().item() == pytest.approx(float(head.logits(seen)[0]), abs=1e-3)


def test_a_teacher_never_saw_the_photo_it_teaches(photos: list[Photo], cache: Path, tmp_path: Path) -> None:
    """Of pure noise a head that saw the photo would say its label; cross-fitted ones can't."""
    trained = [photo for photo in photos if photo.split == "train"]
    features = read(cache)
    labels = np.array([photo.label for photo in trained])
    seen = fit(features, trained, ["clean"], (1,), 10.0).logits(features.of(trained, "clean", (1,)))
    left_out = cross_fit(features, trained, ["clean"], (1,), 10.0, folds=4)
    assert ((seen > 0) == labels).all()
    assert not ((left_out > 0) == labels).all()
    teach(trained, left_out, tmp_path / "teacher.json")
    said = json.loads((tmp_path / "teacher.json").read_text())
    assert said.keys() == {str(photo.path) for photo in trained}
    assert all(0 <= one <= 1 for one in said.values())


def test_head_logits_are_linear() -> None:
    head = Head(ONE, np.array([1.0, -2.0]), 0.5)
    assert head.logits(np.array([[1.0, 1.0], [0.0, 0.0]], np.float32)).tolist() == [-0.5, 0.5]


def test_a_degraded_copy_counts_by_its_share(photos: list[Photo], cache: Path) -> None:
    """The less it counts, the worse it is fitted."""
    trained, known = [photo for photo in photos if photo.split == "train"], read(cache)
    labels, copies = np.array([photo.label for photo in trained]), known.of(trained, "degraded-0", (1,))
    heads = [fit(known, trained, ["clean", "degraded-0"], (1,), 0.01, share) for share in (1e-6, 0.5, 1.0)]
    losses = [log_loss(labels, sigmoid(head.logits(copies))) for head in heads]
    assert losses == sorted(losses, reverse=True)


def test_views_may_be_larger_than_what_the_trunk_looks_at(photos: list[Photo], tmp_path: Path) -> None:
    small = Clip((1,), 64)
    extract(plan(photos, 0), small, tmp_path, "f32", lessons=True, size=128)
    kept = read_lessons(tmp_path)
    assert kept.views.shape[1:] == (3, 128, 128)
    assert kept.maps.shape[1:] == (768, 2, 2)
    assert read(tmp_path).clip == small
