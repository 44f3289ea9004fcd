"""Photos that look alike, grouped by their perceptual hashes: recompressed and resized copies, not crops or mirrors.

Exact within the distance: two hashes that differ in at most 4 bits are equal in one of 5 bands (pigeonhole). Holds
all hashes in memory; different packshots on white may share one, so a group is a lead and no proof.
"""

from collections.abc import Iterator, Sequence
from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from detector.facts import TWIN_BITS
from detector.scan import results, run
from detector.scan.results import Format
from detector.scan.storage import Store

NAME = "near-duplicates.parquet"
BITS = 63
Hashes = NDArray[np.uint64]  # (n,)
Indices = NDArray[np.int64]  # (n,)


def write_groups(store: Store, parts: Sequence[int], format: Format) -> int:
    """Write index, group and hash of every photo that looks like another; how many groups there are.

    A group is named by the first of its photos.
    """
    indices, hashes = _read(store, parts, format)
    groups = group(hashes)
    members = np.flatnonzero(np.bincount(groups, minlength=len(groups))[groups] > 1)
    table = pa.table(
        {
            "index": indices[members],
            "group": indices[groups[members]],
            "perceptual_hash": [f"{value:016x}" for value in hashes[members].tolist()],
        }
    )
    buffer = BytesIO()
    pa.parquet.write_table(table, buffer, compression="zstd")
    store.write(NAME, buffer.getvalue())
    return len(np.unique(groups[members]))


def group(hashes: Hashes) -> Indices:
    """For each photo the first one that it is linked to by steps of at most TWIN_BITS; itself where it stands alone."""
    unique, first, where = np.unique(hashes, return_index=True, return_inverse=True)
    parent = np.arange(len(unique))
    for one, other in _pairs(unique):
        a, b = _root(parent, one), _root(parent, other)
        if a != b:
            older, newer = (a, b) if first[a] < first[b] else (b, a)
            parent[newer] = older
    roots = np.array([_root(parent, index) for index in range(len(unique))], np.int64)
    found: Indices = first[roots][where] if len(unique) else np.empty(0, np.int64)
    return found


def _pairs(unique: Hashes) -> Iterator[tuple[int, int]]:
    edges = np.linspace(0, BITS, TWIN_BITS + 2).round().astype(int)
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        band = (unique >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        order = np.argsort(band, kind="stable")
        for run_of_equals in np.split(order, np.flatnonzero(np.diff(band[order])) + 1):
            yield from _close(unique, run_of_equals)


def _close(unique: Hashes, members: NDArray[np.intp]) -> Iterator[tuple[int, int]]:
    for at, member in enumerate(members[:-1].tolist()):
        others = members[at + 1 :]
        near = np.bitwise_count(unique[others] ^ unique[member]) <= TWIN_BITS
        for other in others[near].tolist():
            yield member, other


def _root(parent: NDArray[np.intp], index: int) -> int:
    while parent[index] != index:
        parent[index] = parent[parent[index]]
        index = int(parent[index])
    return index


def _read(store: Store, parts: Sequence[int], format: Format) -> tuple[Indices, Hashes]:
    indices, hashes = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
    for part in parts:
        with store.open(run.part_name(part, format)) as file:
            table = results.decode(file, format, ["index", "perceptual_hash"])
        rows = [row for row in table.to_pylist() if row["perceptual_hash"]]
        indices.append(np.array([row["index"] for row in rows], np.int64))
        hashes.append(np.array([int(row["perceptual_hash"], 16) for row in rows], np.uint64))
    return np.concatenate(indices), np.concatenate(hashes)
