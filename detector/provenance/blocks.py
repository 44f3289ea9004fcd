"""A file's metadata as raw blocks, wherever in the file they sit: XMP, EXIF, IPTC, text, C2PA, edit records.

Finds and assembles; understands none of them. Takes any bytes: a broken file yields the blocks before the break.
Bounds: at most MAX_PARTS segments, chunks or boxes are walked, and each kind of block gets `limit` bytes in all.
"""

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

MAX_PARTS = 65_536
MAX_TEXTS = 64  # keyed texts of a PNG
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"
_IIM = b"Photoshop 3.0\0"
_EXIF = b"Exif\0\0"
_LATER_XMP = re.compile(rb"\xff\xe1(..)http://ns\.adobe\.com/xap/1\.0/\0", re.DOTALL)
_RE_EDIT = b"PhotoEditor_Re_Edit_Data"
_C2PA_UUID = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
_PACKET = re.compile(rb"<x:xmpmeta[\s>]")
_TIFF_IN_BOX = re.compile(rb"Exif\0\0(?:II\*\0|MM\0\*)")


@dataclass
class Blocks:
    """What was found. `manifest` counts the bytes of C2PA; `dropped` names kinds that had more than `limit`."""

    limit: int
    xmp: list[bytes] = field(default_factory=list)
    exif: list[bytes] = field(default_factory=list)
    iim: list[bytes] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)
    edits: list[bytes] = field(default_factory=list)
    manifest: int = 0
    dropped: set[str] = field(default_factory=set)
    _used: dict[str, int] = field(default_factory=dict)

    def room(self, kind: str) -> int:
        return self.limit - self._used.get(kind, 0)

    def take(self, kind: str, size: int) -> bool:
        """Whether `size` more bytes of this kind are within the limit; notes that some were dropped."""
        if size > self.room(kind):
            self.dropped.add(kind)
            return False
        self._used[kind] = self._used.get(kind, 0) + size
        return True

    def add(self, kind: str, block: bytes) -> None:
        if block and self.take(kind, len(block)):
            getattr(self, kind).append(block)

    def add_text(self, key: str, text: str) -> None:
        if len(self.texts) >= MAX_TEXTS:
            self.dropped.add("texts")
        elif self.take("texts", len(text)):
            self.texts.append((key, text))


def collect(kind: str, data: bytes, limit: int) -> Blocks:
    """kind: JPEG | PNG | WEBP | AVIF. limit: bytes of all blocks of one kind together."""
    found = Blocks(limit)
    walks: dict[str, Callable[[bytes, Blocks], None]] = {"JPEG": _jpeg, "PNG": _png, "WEBP": _webp, "AVIF": _avif}
    walks[kind](data, found)
    if not found.xmp and "xmp" not in found.dropped:
        _loose_packets(data, found)
    return found


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start of the body, end) of each segment as far as the first scan's header."""
    at = 2
    for _ in range(MAX_PARTS):
        at = data.find(b"\xff", at)
        if at < 0 or at + 4 > len(data):
            return
        marker = data[at + 1]
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD9:
            at += 1 if marker == 0xFF else 2
            continue
        end = at + 2 + max(int.from_bytes(data[at + 2 : at + 4]), 2)
        yield marker, at + 4, end
        if marker == 0xDA:
            return
        at = end


def _jpeg(data: bytes, found: Blocks) -> None:
    extensions: dict[bytes, list[tuple[int, bytes]]] = {}
    walked = 2
    for marker, start, walked in _jpeg_segments(data):
        body = data[start:walked] if marker >= 0xE1 else b""
        if marker == 0xE1 and body.startswith(_EXTENSION) and len(body) > 75:
            if found.take("xmp", len(body)):
                offset = int.from_bytes(body[71:75])  # XMP part 3: 32 characters of GUID, length, offset
                extensions.setdefault(body[35:67], []).append((offset, body[75:]))
        else:
            _jpeg_block(marker, body, found)
    found.xmp += [b"".join(part for _, part in sorted(parts)) for parts in extensions.values()]
    _behind_the_header(data, walked, found)


def _jpeg_block(marker: int, body: bytes, found: Blocks) -> None:
    if marker == 0xE1 and body.startswith(_XMP):
        found.add("xmp", body[len(_XMP) :])
    elif marker == 0xE1 and body.startswith(_EXIF):
        found.add("exif", body[len(_EXIF) :])
    elif marker == 0xED and body.startswith(_IIM):
        found.add("iim", body[len(_IIM) :])
    elif marker == 0xEB and body[:2] == b"JP" and (found.manifest or b"c2pa" in body[:64]):
        found.manifest += len(body)
    elif marker == 0xFE:
        found.add_text("Comment", _decoded(body))


def _behind_the_header(data: bytes, start: int, found: Blocks) -> None:
    """XMP among or behind the scans, and the record that Samsung's editor leaves at the end."""
    for match in islice(_LATER_XMP.finditer(data, start), MAX_TEXTS):
        block = data[match.end() : match.start() + 2 + int.from_bytes(match.group(1))]
        if block not in found.xmp:
            found.add("xmp", block)
    at = data.rfind(_RE_EDIT, start)
    if at >= 0:
        found.add("edits", data[at : at + min(found.limit, 65_536)])


def _png(data: bytes, found: Blocks) -> None:
    at, texts = len(PNG_MAGIC), 0
    for _ in range(MAX_PARTS):
        if at + 12 > len(data):
            return
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind in (b"tEXt", b"zTXt", b"iTXt") and texts < MAX_TEXTS:
            texts += 1
            _png_text(kind, data[at + 8 : at + 8 + min(length, 2 * found.limit)], found)
        elif kind == b"eXIf":
            found.add("exif", data[at + 8 : at + 8 + length].removeprefix(_EXIF))
        elif kind == b"caBX":
            found.manifest += min(length, len(data) - at)
        at += 12 + length


def _png_text(kind: bytes, body: bytes, found: Blocks) -> None:
    name, _, value = body.partition(b"\0")
    key = name.decode("latin-1")
    packed = kind == b"zTXt"
    if kind == b"iTXt":
        packed = value[:1] == b"\1"
        value = value[2:].partition(b"\0")[2].partition(b"\0")[2]
    elif packed:
        value = value[1:]
    if packed:
        value = _inflated(value, found.room("texts"))
    if key == "XML:com.adobe.xmp":
        found.add("xmp", value)
    elif key.startswith("Raw profile type "):
        _raw_profile(key.rpartition(" ")[2], value, found)
    else:
        found.add_text(key, _decoded(value))


def _raw_profile(kind: str, text: bytes, found: Blocks) -> None:
    """ImageMagick's hexadecimal text: a line with a name, a line with the length, lines with the bytes."""
    lines = text.strip().split(b"\n", 2)
    block = b""
    with suppress(ValueError):
        block = bytes.fromhex(lines[-1].decode("ascii")) if len(lines) == 3 else b""
    if kind in ("iptc", "8bim"):
        found.add("iim", block)
    elif kind == "xmp" or block.startswith(_XMP):
        found.add("xmp", block.removeprefix(_XMP))
    elif kind in ("exif", "APP1"):
        found.add("exif", block.removeprefix(_EXIF))


def _inflated(packed: bytes, limit: int) -> bytes:
    """At most `limit` bytes; nothing where the stream is broken or holds more."""
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(packed, max(limit, 1))
    except zlib.error:
        return b""
    return text if inflater.eof else b""


def _decoded(value: bytes) -> str:
    """tEXt is Latin-1 by its specification and UTF-8 from most generators."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _webp(data: bytes, found: Blocks) -> None:
    at = 12
    for _ in range(MAX_PARTS):
        if at + 8 > len(data):
            return
        kind, length = struct.unpack_from("<4sI", data, at)
        if kind == b"XMP ":
            found.add("xmp", data[at + 8 : at + 8 + length])
        elif kind == b"EXIF":
            found.add("exif", data[at + 8 : at + 8 + length].removeprefix(_EXIF))
        elif kind == b"C2PA":
            found.manifest += min(length, len(data) - at)
        at += 8 + length + (length & 1)


def _avif(data: bytes, found: Blocks) -> None:
    """C2PA has a box of its own; EXIF and XMP are items somewhere in the media data, found by how they begin."""
    at = 0
    for _ in range(MAX_PARTS):
        if at + 24 > len(data):
            break
        length, kind = struct.unpack_from(">I4s", data, at)
        body = at + 8
        if length == 1:
            length, body = int.from_bytes(data[body : body + 8]), body + 8
        if kind == b"uuid" and data[body : body + 16] == _C2PA_UUID:
            found.manifest += min(length, len(data) - at) if length else len(data) - at
        if length < 8:
            break
        at += length
    exif = _TIFF_IN_BOX.search(data)
    if exif:
        found.add("exif", data[exif.start() + len(_EXIF) : exif.start() + len(_EXIF) + 65_536])


def _loose_packets(data: bytes, found: Blocks) -> None:
    for match in islice(_PACKET.finditer(data), MAX_TEXTS):
        end = data.find(b"</x:xmpmeta>", match.start(), match.start() + found.limit)
        if end >= 0:
            found.add("xmp", data[match.start() : end + 12])
