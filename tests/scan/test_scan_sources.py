"""What a catalogue lists, in which order, and what is said where there is nothing to list."""

from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet
import pytest

from detector.errors import InvalidScan
from detector.scan.sources import Columns, Entry, list_photos


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Photos in folders, and what is none."""
    for name in ("b/2.JPG", "a/1.png", "a/deep/3.webp", "top.jpeg", "a/notes.txt", "a/old.gif"):
        path = tmp_path / "shop" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "shop"


def names(entries: list[Entry], root: Path) -> list[tuple[str, str]]:
    return [(entry.address.removeprefix(f"{root}/"), entry.source) for entry in entries]


def test_a_folder_is_listed_in_order_with_its_folders_as_sources(shop: Path) -> None:
    assert names(list(list_photos(str(shop))), shop) == [
        ("top.jpeg", "."),
        ("a/1.png", "a"),
        ("a/old.gif", "a"),
        ("a/deep/3.webp", "a/deep"),
        ("b/2.JPG", "b"),
    ]


def test_a_glob_lists_what_it_matches(shop: Path) -> None:
    assert names(list(list_photos(f"{shop}/*/*.JPG")), shop) == [("b/2.JPG", "b")]
    assert names(list(list_photos(f"{shop}/**/*.[pw]*")), shop) == [("a/1.png", "a"), ("a/deep/3.webp", "a/deep")]


def test_a_single_photo_is_a_catalogue_of_one(shop: Path) -> None:
    assert list(list_photos(f"{shop}/top.jpeg")) == [Entry(f"{shop}/top.jpeg")]


def test_a_csv_names_photos_relative_to_it_with_source_and_id(shop: Path) -> None:
    manifest = shop / "photos.csv"
    manifest.write_text(
        '\ufeffid,path,source,other\n007,b/2.JPG,"Shop, ""B""",x\n8,https://a.example/x.jpg,C,\n9,,C,\n'
    )
    assert list(list_photos(str(manifest))) == [
        Entry(f"{shop}/b/2.JPG", 'Shop, "B"', "007"),
        Entry("https://a.example/x.jpg", "C", "8"),
        Entry("", "C", "9"),
    ]


def test_columns_may_be_named(shop: Path) -> None:
    manifest = shop / "photos.parquet"
    table = pa.table({"where": ["b/2.JPG", None], "seller": [17, 18], "listing": [1, 2]})
    pa.parquet.write_table(table, manifest)
    entries = list(list_photos(str(manifest), Columns("where", "seller", "listing")))
    assert entries == [Entry(f"{shop}/b/2.JPG", "17", "1"), Entry("", "18", "2")]


def test_a_row_without_a_source_counts_for_its_server_or_folder(shop: Path) -> None:
    manifest = shop / "photos.csv"
    manifest.write_text("url\nhttps://a.example:8443/x.jpg\nb/2.JPG\n")
    assert [entry.source for entry in list_photos(str(manifest))] == ["a.example", f"{shop}/b"]


def test_another_file_system_is_listed_the_same_way() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe({"/listed/a/1.jpg": b"", "/listed/b/2.jpg": b"", "/listed/photos.csv": b"path\nb/2.jpg\n"})
    assert list(list_photos("memory://listed")) == [
        Entry("memory:///listed/a/1.jpg", "a"),
        Entry("memory:///listed/b/2.jpg", "b"),
    ]
    assert [entry.address for entry in list_photos("memory://listed/photos.csv")] == ["memory:///listed/b/2.jpg"]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("gone", None, "There is no folder, manifest or photo"),
        ("a.txt", b"", "neither a photo nor a manifest"),
        ("a.csv", b"colour\nred\n", "None of the manifest's columns \\(colour\\)"),
        ("b.csv", b"path\n\xff\xfe\n", "is not a CSV file in UTF-8"),
        ("c.csv", b"path,id\na\nb,1,2\n", "with even rows"),
        ("a.parquet", b"PAR1 no", "is not a Parquet file"),
    ],
)
def test_what_cannot_be_listed_is_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes | None, sentence: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidScan, match=sentence):
        list(list_photos(str(tmp_path / name)))


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("path,id\n")
    with pytest.raises(InvalidScan, match="no column seller; it has path, id"):
        list(list_photos(str(tmp_path / "a.csv"), Columns(source="seller")))


def test_the_web_is_no_folder() -> None:
    with pytest.raises(InvalidScan, match="name them in a manifest"):
        list_photos("https://a.example/photos/")
