"""Photos that look alike are found, whatever the order, and none that differ more."""

from pathlib import Path

import numpy as np
import pyarrow.parquet

from detector.scan.likeness import group
from tests.conftest import encoded, make_photo
from tests.scan.conftest import Scan


def test_groups_are_what_comparing_every_pair_finds() -> None:
    rng = np.random.default_rng(0)
    bases = rng.integers(0, 2**63, 30, dtype=np.uint64)
    flips = [sum(1 << int(bit) for bit in rng.choice(63, count, replace=False)) for count in rng.integers(0, 7, 200)]
    hashes = rng.choice(bases, 200) ^ np.array(flips, np.uint64)
    near = np.bitwise_count(hashes[:, None] ^ hashes[None]) <= 4
    expected = np.arange(200)
    for _ in range(200):
        expected = np.array([expected[row].min() for row in near])
    np.testing.assert_array_equal(group(hashes), expected)


def test_no_photos_make_no_groups() -> None:
    assert group(np.empty(0, np.uint64)).tolist() == []


def test_a_resized_copy_is_grouped_with_its_photo(scan: Scan, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "0.jpg").write_bytes(encoded(make_photo(400, 300, seed=1)))
    (folder / "1.jpg").write_bytes(encoded(make_photo(400, 300, seed=2)))
    (folder / "2.jpg").write_bytes(encoded(make_photo(400, 300, seed=1).resize((320, 240)), quality=60))
    (folder / "3.jpg").touch()
    assert scan(folder, "--near-duplicates") == 0
    table = pyarrow.parquet.read_table(tmp_path / "out/near-duplicates.parquet").to_pylist()
    assert [(row["index"], row["group"]) for row in table] == [(0, 0), (2, 0)]
