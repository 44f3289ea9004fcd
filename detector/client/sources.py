"""What a caller may hand over as a photo, and the upload it becomes.

A PIL image is known by its methods, so Pillow is not imported. Addresses are only told apart here; `connection`
fetches them, on the caller's machine.
"""

import os
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from urllib.parse import unquote, urlsplit

from detector.errors import NotAFile

_PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA"}


@runtime_checkable
class Readable(Protocol):
    """A file opened for reading bytes."""

    def read(self, size: int = ..., /) -> Any: ...


@runtime_checkable
class PilImage(Protocol):
    """As much of a PIL image as is needed to send it."""

    @property
    def mode(self) -> Any: ...

    def convert(self, mode: str) -> Any: ...

    def getexif(self) -> Any: ...

    def save(self, fp: Any, format: str | None = ..., **params: Any) -> None: ...


Source = str | os.PathLike[str] | bytes | bytearray | memoryview | Readable | PilImage


@dataclass(frozen=True)
class Upload:
    """A photo's file with a name, which is a label only."""

    name: str
    data: bytes

    @property
    def sha256(self) -> str:
        return sha256(self.data).hexdigest()


def is_address(source: Source) -> bool:
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def name_of(source: Source) -> str | None:
    """The label of a source, known before it is read."""
    if is_address(source):
        return unquote(Path(urlsplit(str(source)).path).name) or "photo"
    if isinstance(source, str | os.PathLike):
        return Path(source).name
    named = getattr(source, "name", None) or getattr(source, "filename", None)
    return Path(named).name if isinstance(named, str) and named else None


def read(source: Source) -> Upload:
    """Read a source that is no address; a file is read from where it stands.

    Raises OSError for a path that can't be read, and NotAFile for what is no source at all.
    """
    name = name_of(source) or "photo"
    if isinstance(source, bytes | bytearray | memoryview):
        return Upload(name, bytes(source))
    if isinstance(source, str | os.PathLike):
        return Upload(name, Path(source).read_bytes())
    if isinstance(source, PilImage):
        return Upload(name, _encode(source))
    if isinstance(source, Readable):
        data = source.read()
        if isinstance(data, bytes):
            return Upload(name, data)
        raise NotAFile("The file was opened as text; open it with mode 'rb'.")
    raise NotAFile(f"A photo can't be read from a {type(source).__name__}.")


def _encode(image: PilImage) -> bytes:
    """The image's pixels without loss, as PNG, with its Exif block (which may turn it upright)."""
    drawn = image if image.mode in _PNG_MODES else image.convert("RGB")
    buffer = BytesIO()
    drawn.save(buffer, "PNG", compress_level=1, exif=image.getexif())
    return buffer.getvalue()
