"""Where a catalogue's photos are: a folder, a glob, a manifest or one file, on any file system -> entries, in order.

Only lists; never opens a photo. A manifest's own paths are relative to it.
"""

import csv
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from fsspec.utils import glob_translate

from detector.errors import InvalidScan
from detector.scan.storage import Place, address_of, locate, protocol_of, walk

# Files of these names are listed; what is no photo after all becomes a row that says so.
SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".webp",
    ".avif",
    ".gif",
    ".bmp",
    ".tif",
    ".tiff",
    ".heic",
    ".heif",
)
COLUMNS = ("path", "url", "image", "image_url", "file", "address")  # of a manifest, where none is named
_MAGIC = re.compile(r"[*?\[]")
_ROWS = 65_536


@dataclass(frozen=True)
class Entry:
    """One photo to judge. `source` is whom the summary counts it for, `id` the caller's own name for it."""

    address: str
    source: str = ""
    id: str | None = None


@dataclass(frozen=True)
class Columns:
    """Names of a manifest's columns; None: found by COLUMNS, `source` and `id`, or absent."""

    address: str | None = None
    source: str | None = None
    id: str | None = None


def list_photos(address: str, columns: Columns = Columns()) -> Iterator[Entry]:
    """Raises InvalidScan, at the first entry, where there is nothing to list."""
    if protocol_of(address) in ("http", "https"):
        raise InvalidScan("Web addresses can't be listed; name them in a manifest, and allow them with --allow-http.")
    place = locate(address)
    try:
        if place.fs.isdir(place.path):
            return _folder(place)
        if place.fs.exists(place.path):
            return _file(place, columns)
    except OSError:
        raise InvalidScan(f"{address} can't be reached.") from None
    if _MAGIC.search(place.path):
        return _glob(place)
    raise InvalidScan(f"There is no folder, manifest or photo at {address}.")


def _file(place: Place, columns: Columns) -> Iterator[Entry]:
    suffix = posixpath.splitext(place.path)[1].lower()
    if suffix == ".csv":
        return _manifest(place, _csv(place, columns))
    if suffix in (".parquet", ".pq"):
        return _manifest(place, _parquet(place, columns))
    if suffix in SUFFIXES:
        return iter([Entry(address_of(place))])
    raise InvalidScan(f"{place.path} is neither a photo nor a manifest (.csv, .parquet).")


def _folder(place: Place) -> Iterator[Entry]:
    for path in walk(place):
        if path.lower().endswith(SUFFIXES):
            yield Entry(address_of(Place(place.fs, path)), _parent(path, place.path))


def _glob(place: Place) -> Iterator[Entry]:
    """Walks below the part without wildcards, so that memory does not grow with what is found."""
    fixed = place.path[: _MAGIC.search(place.path).start()]  # type: ignore[union-attr]
    root = Place(place.fs, posixpath.dirname(fixed) or "/")
    wanted = re.compile(glob_translate(place.path))
    for path in walk(root):
        if wanted.match(path):
            yield Entry(address_of(Place(place.fs, path)), _parent(path, root.path))


def _parent(path: str, root: str) -> str:
    """The folder below `root`, as a source."""
    inner = posixpath.dirname(posixpath.relpath(path, root))
    return inner or "."


def _manifest(place: Place, batches: Iterator[list[tuple[Any, Any, Any]]]) -> Iterator[Entry]:
    base = Place(place.fs, posixpath.dirname(place.path))
    for batch in batches:
        for address, source, name in batch:
            absolute = _absolute(base, str(address or "").strip())
            yield Entry(absolute, str(source) if source is not None else _host(absolute), _text(name))


def _absolute(base: Place, address: str) -> str:
    if not address or "://" in address or address.startswith("/"):
        return address
    return address_of(base / address)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _host(address: str) -> str:
    """A row without a source counts for its server, or for its folder."""
    if address.startswith(("http://", "https://")):
        try:
            return urlsplit(address).hostname or ""
        except ValueError:
            return ""
    return posixpath.dirname(address)


def _csv(place: Place, columns: Columns) -> Iterator[list[tuple[Any, Any, Any]]]:
    try:
        with place.fs.open(place.path, "rb") as file:
            header = next(csv.reader([file.readline().decode("utf-8-sig")]), [])
        chosen = _choose(header, columns)
        convert = pa.csv.ConvertOptions(
            include_columns=[name for name in chosen if name], column_types=dict.fromkeys(header, pa.string())
        )
        parse = pa.csv.ParseOptions(newlines_in_values=True)
        with (
            place.fs.open(place.path, "rb") as file,
            pa.csv.open_csv(file, parse_options=parse, convert_options=convert) as reader,
        ):
            for batch in reader:
                yield _rows(batch, chosen)
    except (pa.ArrowInvalid, UnicodeDecodeError, csv.Error):
        raise InvalidScan(f"{posixpath.basename(place.path)} is not a CSV file in UTF-8 with even rows.") from None


def _parquet(place: Place, columns: Columns) -> Iterator[list[tuple[Any, Any, Any]]]:
    try:
        with place.fs.open(place.path, "rb") as file:
            table = pa.parquet.ParquetFile(file)
            chosen = _choose(table.schema_arrow.names, columns)
            for batch in table.iter_batches(_ROWS, columns=list({name for name in chosen if name})):
                yield _rows(batch, chosen)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise InvalidScan(f"{posixpath.basename(place.path)} is not a Parquet file.") from None


_Chosen = tuple[str, str | None, str | None]


def _choose(names: list[str], wanted: Columns) -> _Chosen:
    for name in (wanted.address, wanted.source, wanted.id):
        if name and name not in names:
            raise InvalidScan(f"The manifest has no column {name}; it has {', '.join(names)}.")
    address = wanted.address or next((name for name in COLUMNS if name in names), None)
    if address is None:
        raise InvalidScan(f"None of the manifest's columns ({', '.join(names)}) holds paths; name it with --column.")
    source = wanted.source or ("source" if "source" in names else None)
    return address, source, wanted.id or ("id" if "id" in names else None)


def _rows(batch: Any, chosen: _Chosen) -> list[tuple[Any, Any, Any]]:
    none = [None] * batch.num_rows
    columns = [batch.column(name).to_pylist() if name else none for name in chosen]
    return list(zip(*columns, strict=True))
