"""training.data: what is read from manifests and folders, and what the integrity check finds."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.errors import InvalidImage
from tests.conftest import make_photo
from training.data import (
    InvalidDataset,
    Photo,
    assign_splits,
    balance,
    fingerprint,
    folds,
    in_split,
    inspect,
    load,
    perceptual_hash,
    read_photo,
)


def rows(**sources: int) -> list[Photo]:
    """`real_a=3` -> three real photos of a source real_a; `ai_x_1=2` -> two of generator x."""
    made = []
    for name, size in sources.items():
        label, *rest = name.split("_")
        generator = rest[0] if label == "ai" else ""
        made += [Photo(Path(f"{name}-{n}"), int(label == "ai"), "", name, generator) for n in range(size)]
    return made


def save(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    make_photo(seed=seed).save(path, quality=90)
    return path


def manifest(folder: Path, text: str) -> Path:
    save(folder / "a.jpg", 1)
    save(folder / "b.jpg", 2)
    path = folder / "manifest.csv"
    path.write_text(text)
    return path


def test_a_manifest_gives_its_rows_with_paths_beside_it(tmp_path: Path) -> None:
    text = "path,label,split,source,generator\na.jpg,real,val,shop,\nb.jpg,ai,val,tool,flux\n"
    first, second = load(manifest(tmp_path, text))
    assert first == Photo(tmp_path / "a.jpg", 0, "val", "shop")
    assert second == Photo(tmp_path / "b.jpg", 1, "val", "tool", "flux")


def test_a_photo_without_a_source_is_its_own(tmp_path: Path) -> None:
    photos = load(manifest(tmp_path, "path,label\na.jpg,real\nb.jpg,ai\n"))
    assert [photo.source for photo in photos] == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("path,label,colour,mood\na.jpg,real,red,sad\n", "unknown columns colour, mood"),
        ("path\na.jpg\n", "column label is missing"),
        ("path,label\na.jpg,fake\n", "line 2: the label is 'fake'"),
        ("path,label\na.jpg,real,more\n", "line 2: has more or fewer fields"),
        ("path,label\na.jpg,real\n", "holds no ai photos"),
        ("path,label,split\na.jpg,real,test\nb.jpg,ai,val\n", "split test of manifest.csv: holds no ai photos"),
        ("path,label\n", "holds no photos"),
        ("path,label\na.jpg,real\ngone.jpg,ai\n", r"1 of 2 photos are missing, first .*gone\.jpg"),
        ('path,label\n"a.jpg,real\n', "not a CSV file"),
    ],
)
def test_a_faulty_manifest_ends_in_one_line_that_names_the_fault(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(InvalidDataset, match=complaint) as raised:
        load(manifest(tmp_path, text))
    assert "\n" not in str(raised.value)


def test_an_absent_manifest_and_an_empty_split_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match="no such manifest"):
        load(tmp_path / "absent.csv")
    with pytest.raises(InvalidDataset, match="split val: holds no photos"):
        in_split(rows(real_a=1, ai_x=1), "val")


def test_sub_folders_are_sources_and_loose_photos_are_their_own(tmp_path: Path) -> None:
    for name in ("real/shop/1.jpg", "real/shop/deep/2.jpg", "real/loose.png", "ai/tool/3.jpg", "ai/notes.txt"):
        save(tmp_path / name) if name[-3:] != "txt" else (tmp_path / name).write_text("no photo")
    found = {str(photo.path.relative_to(tmp_path)): (photo.label, photo.source) for photo in load(tmp_path)}
    assert found == {
        "real/loose.png": (0, "real/loose.png"),
        "real/shop/1.jpg": (0, "shop"),
        "real/shop/deep/2.jpg": (0, "shop"),
        "ai/tool/3.jpg": (1, "tool"),
    }


def test_a_folder_without_a_class_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "real" / "1.jpg")
    with pytest.raises(InvalidDataset, match="holds no ai photos"):
        load(tmp_path)


def test_a_broken_photo_raises_the_detectors_error(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InvalidImage):
        read_photo(Photo(path, 0))


def test_each_class_weighs_half_and_a_source_by_the_root_of_its_size() -> None:
    photos = rows(real_big=16, real_small=4, ai_x=5)
    weights = balance(photos)
    mass = {source: sum(weights[[p.source == source for p in photos]]) for source in ("real_big", "real_small", "ai_x")}
    assert mass["ai_x"] == pytest.approx(0.5)
    assert mass["real_big"] == pytest.approx(1 / 3)
    assert mass["real_small"] == pytest.approx(1 / 6)


def test_a_generator_weighs_less_than_what_its_sources_bring() -> None:
    photos = rows(real_a=1, **{f"ai_x_{n}": 1 for n in range(16)}, ai_y_1=1)  # x brings 16 times what y brings
    weights = balance(photos)
    assert weights[1:17].sum() / weights[17] == pytest.approx(16**0.75)


def test_no_source_stands_on_both_sides_of_a_fold_and_all_photos_are_left_once() -> None:
    photos = rows(**{f"real_{n}": n + 1 for n in range(6)}, **{f"ai_x_{n}": n + 1 for n in range(6)})
    left_out = []
    for kept, left in folds(photos, 3):
        assert {photos[i].source for i in kept}.isdisjoint(photos[i].source for i in left)
        assert {photos[i].label for i in left} == {0, 1}
        left_out += left.tolist()
    assert sorted(left_out) == list(range(len(photos)))


def test_leaving_generators_out_leaves_their_sources_out_too() -> None:
    photos = rows(real_a=2, real_b=2, real_c=2, ai_x_1=2, ai_y_1=2, ai_z_1=2)
    shop = [Photo(Path(f"shop-{name}"), 1, "", "shop", name) for name in "xyz"]  # one source, every generator
    photos += shop
    for kept, left in folds(photos, 3, by="generator"):
        assert {photos[i].generator for i in kept if photos[i].label}.isdisjoint(photos[i].generator for i in left)
        assert {photos[i].source for i in kept}.isdisjoint(photos[i].source for i in left)


def test_more_folds_than_sources_are_refused() -> None:
    with pytest.raises(InvalidDataset, match="one class has 2"):
        folds(rows(real_a=5, real_b=5, ai_x=5, ai_y=5), 3)


def test_assigned_splits_share_no_source_and_hold_both_classes() -> None:
    photos = rows(**{f"real_{n}": 3 for n in range(14)}, **{f"ai_x_{n}": 3 for n in range(14)})
    assigned = assign_splits(photos)
    splits = Counter((photo.split, photo.label) for photo in assigned)
    assert splits == {("train", 0): 30, ("val", 0): 6, ("test", 0): 6, ("train", 1): 30, ("val", 1): 6, ("test", 1): 6}
    assert len({(photo.source, photo.split) for photo in assigned}) == 28
    assert assigned == assign_splits(photos)


def test_three_sources_a_class_are_the_fewest_that_split() -> None:
    assert {photo.split for photo in assign_splits(rows(real_a=1, real_b=1, real_c=1, ai_x=1, ai_y=1, ai_z=1))} == {
        "train",
        "val",
        "test",
    }
    with pytest.raises(InvalidDataset, match="one class has 1"):
        assign_splits(rows(real_a=9, ai_x=9))


def test_the_hash_survives_recompression_and_resizing_but_tells_photos_apart() -> None:
    photo = make_photo(400, 300, seed=1)
    small = photo.resize((200, 150), Image.Resampling.LANCZOS)
    assert (perceptual_hash(photo) ^ perceptual_hash(small)).bit_count() <= 4
    assert (perceptual_hash(photo) ^ perceptual_hash(make_photo(400, 300, seed=2))).bit_count() > 15


def test_inspection_names_broken_photos_twins_and_leaks(tmp_path: Path) -> None:
    original = save(tmp_path / "original.jpg", 1)
    copy = tmp_path / "copy.jpg"
    Image.open(original).resize((120, 90)).save(copy, quality=60)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff nothing")
    photos = [
        Photo(original, 0, "train", "shop"),
        Photo(copy, 1, "test", "shop"),
        Photo(save(tmp_path / "other.jpg", 2), 1, "test", "tool"),
        Photo(broken, 0, "test", "third"),
    ]
    found = inspect(photos)
    assert [photo.path for photo, _ in found.unreadable] == [broken]
    assert [(pair.first.path, pair.second.path) for pair in found.across] == [(original, copy)]
    assert found.contradictions == found.across
    assert found.leaks == [("shop", ("test", "train"))]
    assert not found.sound
    assert str(broken) in str(found)
    assert "shop: test, train" in str(found)


def test_different_packshots_on_white_are_no_twins(tmp_path: Path) -> None:
    photos = []
    for n, colour in enumerate(("navy", "orange")):
        picture = Image.new("RGB", (200, 200), "white")
        picture.paste(colour, (70, 40, 130, 170))
        picture.save(tmp_path / f"{n}.png")
        photos.append(Photo(tmp_path / f"{n}.png", n, "train", str(n)))
    found = inspect(photos)
    assert not found.twins
    assert found.sound


def test_weights_are_a_distribution_whatever_the_labels() -> None:
    assert np.isclose(balance(rows(real_a=3, real_b=1)).sum(), 1)


def test_the_fingerprint_is_of_bytes_and_facts_and_not_of_the_place(tmp_path: Path) -> None:
    def made(folder: str, seed: int = 1, split: str = "val") -> str:
        photos = [Photo(save(tmp_path / folder / "a.jpg", seed), 0, split), Photo(save(tmp_path / folder / "b.jpg"), 1)]
        return fingerprint(photos, tmp_path / folder)

    assert made("here") == made("there")
    assert len({made("here"), made("here", seed=2), made("here", split="test")}) == 3
