"""A small catalogue, and the command run over it with the tests' tiny model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pytest

from detector.cli import main
from tests.conftest import encoded, make_photo, remarked

Scan = Callable[..., int]


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    """Two shops of five photos; one photo is in both, three files are none."""
    root = tmp_path / "catalogue"
    for shop in (0, 1):
        (root / f"shop{shop}").mkdir(parents=True)
        for number in range(5):
            data = encoded(make_photo(seed=0 if number == 0 else 10 * shop + number))
            (root / f"shop{shop}/{number}.jpg").write_bytes(data)
    (root / "shop0/empty.jpg").touch()
    (root / "shop1/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"x" * 64)
    (root / "shop1/moving.gif").write_bytes(b"GIF89a" + bytes(64))
    return root


@pytest.fixture
def scan(model_folder: Path, tmp_path: Path) -> Scan:
    """`detector scan` in this process; the results lie in `out` unless named."""

    def run(source: Any, *options: str, out: Any = None) -> int:
        named = str(out or tmp_path / "out")
        return main(["scan", str(source), "--out", named, "--model", str(model_folder), "--quiet", *options])

    return run


def rows(out: Path, format: str = "parquet") -> list[dict[str, Any]]:
    """Every row of a run, in the catalogue's order."""
    table = pa.dataset.dataset(out / "results", format=format).to_table()
    return sorted(table.to_pylist(), key=lambda row: row["index"])


def fill(folder: Path, count: int) -> None:
    """Photos that differ in their bytes alone."""
    folder.mkdir()
    data = encoded(make_photo(96, 80))
    for number in range(count):
        (folder / f"{number:05d}.jpg").write_bytes(remarked(data, number))
