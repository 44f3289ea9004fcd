"""The photos of one run, listed once and for all: part k is always the same photos, whoever asks and whenever.

Files of Parquet with one row group a part, so that a part is read without the rest.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from detector.scan.sources import Entry
from detector.scan.storage import Store

PARTS_A_FILE = 256
_SCHEMA = pa.schema([("address", pa.binary()), ("source", pa.string()), ("id", pa.string())])


@dataclass(frozen=True)
class Item:
    """An entry at its position in the catalogue."""

    index: int
    entry: Entry


def write(store: Store, entries: Iterator[Entry], part_size: int) -> int:
    """Freeze the listing; how many photos there are. No more than a file's worth is held at once."""
    photos, number = 0, 0
    while chunk := list(islice(entries, part_size * PARTS_A_FILE)):
        table = pa.Table.from_pylist([_record(entry) for entry in chunk], _SCHEMA)
        buffer = BytesIO()
        pa.parquet.write_table(table, buffer, row_group_size=part_size, compression="zstd")
        store.write(_name(number), buffer.getvalue())
        photos, number = photos + len(chunk), number + 1
    return photos


class Listing:
    """A frozen listing, read part by part; for one thread."""

    def __init__(self, store: Store, part_size: int) -> None:
        self._store, self._part_size = store, part_size
        self._number = -1
        self._file: Any = None

    def part(self, part: int) -> list[Item]:
        number, group = divmod(part, PARTS_A_FILE)
        if number != self._number or self._file is None:
            self._number, self._file = number, pa.parquet.ParquetFile(BytesIO(self._store.read(_name(number))))
        rows = self._file.read_row_group(group).to_pylist()
        first = part * self._part_size
        return [Item(first + offset, _entry(row)) for offset, row in enumerate(rows)]


def _name(number: int) -> str:
    return f"listing/listing-{number:06d}.parquet"


def _record(entry: Entry) -> dict[str, object]:
    """Addresses as bytes: a file's name need not be UTF-8."""
    address = entry.address.encode("utf-8", "surrogateescape")
    return {"address": address, "source": _printable(entry.source), "id": entry.id}


def _entry(row: dict[str, object]) -> Entry:
    address, source, name = row["address"], row["source"], row["id"]
    assert isinstance(address, bytes)
    return Entry(address.decode("utf-8", "surrogateescape"), str(source), None if name is None else str(name))


def _printable(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
