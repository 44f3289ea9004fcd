"""training.null: sees the files' traces where there are any, and is at chance where there are none."""

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import make_photo
from training.data import Photo
from training.null import NAMES, facts, null


def save(folder: Path, qualities: tuple[int, int], split: str) -> list[Photo]:
    photos = []
    for number in range(120):
        label = number % 2
        path = folder / f"{split}-{number}.jpg"
        make_photo(96, 72, seed=number + 1000 * (split == "test")).save(path, quality=qualities[label])
        photos.append(Photo(path, label, split, f"{label}-{number % 10}"))
    return photos


def test_classes_saved_differently_are_told_apart_without_a_pixel(tmp_path: Path) -> None:
    train, judged = save(tmp_path, (85, 90), "train"), save(tmp_path, (85, 90), "test")
    assert null(train, judged, rounds=50).value == pytest.approx(1.0)


def test_classes_saved_alike_are_not(tmp_path: Path) -> None:
    train, judged = save(tmp_path, (85, 85), "train"), save(tmp_path, (85, 85), "test")
    found = null(train, judged, rounds=50)
    assert 0.3 < found.value < 0.7
    assert found.low < found.value < found.high


def test_facts_are_those_of_the_file_and_nothing_where_it_tells_nothing(tmp_path: Path) -> None:
    make_photo(160, 120).save(tmp_path / "a.jpg", quality=90)
    make_photo(160, 120).save(tmp_path / "b.png")
    (tmp_path / "c.jpg").write_bytes(b"no photo")
    found = facts([Photo(tmp_path / name, 0) for name in ("a.jpg", "b.png", "c.jpg", "gone.jpg")])
    assert found[:2, :3].tolist() == [[160, 120, pytest.approx(4 / 3)]] * 2
    assert found[0, NAMES.index("bytes")] == (tmp_path / "a.jpg").stat().st_size
    assert found[0, len(NAMES)] == 3  # the first step of brightness at quality 90
    assert np.isnan(found[1, len(NAMES) :]).all()
    assert np.isnan(found[2:]).all()
