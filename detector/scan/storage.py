"""Places for files, local or remote, by one address; and the folder of a run, whose files appear whole or not at all.

S3 and Google storage go through Arrow's own clients, everything else through fsspec. Knows nothing of photos.
"""

import os
import posixpath
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
from fsspec.core import split_protocol, url_to_fs
from fsspec.implementations.arrow import ArrowFSWrapper
from fsspec.implementations.local import LocalFileSystem

from detector.errors import InvalidScan

_ARROW = {"s3", "gs", "gcs"}
_opened: dict[str, Any] = {}  # Arrow's clients, by protocol; each keeps its connections


@dataclass(frozen=True)
class Place:
    """A file system with a path on it."""

    fs: Any
    path: str

    @property
    def local(self) -> Path | None:
        return Path(self.path) if isinstance(self.fs, LocalFileSystem) else None

    def __truediv__(self, name: str) -> "Place":
        return Place(self.fs, posixpath.join(self.path, name))


def protocol_of(address: str) -> str:
    """`file` for a path; of a chain such as `zip://a::s3://b` the first."""
    return split_protocol(address)[0] or "file"


def locate(address: str) -> Place:
    """The place an address names; InvalidScan where nothing here can open its kind."""
    protocol = protocol_of(address)
    if protocol in _ARROW and "::" not in address:
        return Place(_arrow(protocol), address.split("://", 1)[1])
    try:
        fs, path = url_to_fs(address)
    except (ValueError, ImportError):
        raise InvalidScan(f"Addresses of the kind {protocol}:// can't be opened here.") from None
    return Place(fs, path)


def address_of(place: Place) -> str:
    """What `locate` takes to get there again: a plain path where it is local."""
    if place.local:
        return place.path
    named = place.fs.protocol if isinstance(place.fs.protocol, str) else place.fs.protocol[0]
    protocol = _opened_as(place.fs) or named
    return f"{protocol}://{place.path.lstrip('/') if protocol != 'memory' else place.path}"


def _arrow(protocol: str) -> Any:
    """Credentials, region and endpoint as the vendor's own variables say (AWS_ENDPOINT_URL, ...)."""
    if protocol not in _opened:
        from pyarrow import fs

        made = fs.S3FileSystem(**s3_options(os.environ)) if protocol == "s3" else fs.GcsFileSystem()
        _opened[protocol] = ArrowFSWrapper(made)
    return _opened[protocol]


def s3_options(environ: Mapping[str, str]) -> dict[str, Any]:
    """Arrow finds credentials by itself, yet not an endpoint other than Amazon's."""
    endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL")
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    options: dict[str, Any] = {"region": region} if region else {}
    if endpoint:
        scheme, _, host = endpoint.rpartition("://")
        options |= {"endpoint_override": host.rstrip("/"), "scheme": scheme or "https"}
    return options


def _opened_as(fs: Any) -> str | None:
    return next((protocol for protocol, one in _opened.items() if one is fs), None)


class Store:
    """A folder whose files are written whole: a reader, or a later run, never sees half of one."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.place = locate(address)

    def names(self, folder: str = "") -> list[str]:
        """The files in it, without those a killed process left half written."""
        with suppress(FileNotFoundError):
            found = self.place.fs.ls((self.place / folder).path, detail=False)
            return sorted(name for name in (posixpath.basename(one) for one in found) if not name.startswith("."))
        return []

    def exists(self, name: str) -> bool:
        return bool(self.place.fs.exists((self.place / name).path))

    def read(self, name: str) -> bytes:
        data: bytes = self.place.fs.cat_file((self.place / name).path)
        return data

    def open(self, name: str) -> Any:
        """A seekable file for reading."""
        return self.place.fs.open((self.place / name).path, "rb")

    def write(self, name: str, data: bytes) -> None:
        """Replace a file as a whole. Object stores show an object when it is complete; a disk needs a rename."""
        target = self.place / name
        if target.local is None:
            target.fs.makedirs(posixpath.dirname(target.path), exist_ok=True)
            with target.fs.open(target.path, "wb") as file:
                file.write(data)
            return
        target.local.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.local.with_name(f".{target.local.name}.{uuid4().hex[:8]}")
        with unfinished.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(target.local)


def walk(place: Place) -> Iterator[str]:
    """Paths of every file below, folder by folder, in order; no more than one folder's names in memory."""
    for folder, folders, files in place.fs.walk(place.path):
        folders.sort()
        for name in sorted(files):
            yield posixpath.join(folder, name)


def known_protocols() -> set[str]:
    return set(fsspec.available_protocols())
