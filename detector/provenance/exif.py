"""EXIF: marks that generators leave, and what a camera says of itself.

Camera facts are the easiest to copy from another photo: they are noted and never weigh against a signature.
Reads IFD0 and the Exif IFD; no thumbnails, no positions (GPS is never looked at).
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from detector.provenance.vocabulary import clean, is_generator, vendor_of
from detector.schema import Finding

MAX_ENTRIES = 512  # of one directory
MAX_VALUE = 1_048_576  # bytes
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}  # bytes, by TIFF type
_EXIF_IFD = 0x8769
_TEXTS = {  # EXIF 3.0, by name
    0x010E: "ImageDescription",
    0x010F: "Make",
    0x0110: "Model",
    0x0131: "Software",
    0x013B: "Artist",
    0x9286: "UserComment",
    0xA434: "LensModel",
}
_EXPOSURE = {0x829A, 0x829D, 0x8827, 0x9003, 0x920A, 0x9201, 0x9202}  # time, f-number, ISO, date, focal length
_MAKER_NOTE = 0x927C
_KNOWN = {_EXIF_IFD, _MAKER_NOTE, *_TEXTS, *_EXPOSURE}
_MAKER_NOTES = {b"Apple iOS": "apple", b"Nikon": "nikon", b"OLYMP": "olympus", b"FUJIFILM": "fujifilm", b"SONY": "sony"}
_GROK_SIGNATURE = re.compile(r"Signature: [A-Za-z0-9+/=]{64,}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


@dataclass
class Facts:
    """texts: by EXIF's own names. exposure: how many facts of the exposure stand there."""

    texts: dict[str, str]
    exposure: int = 0
    maker_note: bytes = b""

    def text(self, name: str) -> str:
        return self.texts.get(name, "")


def parse(tiff: bytes) -> Facts:
    """Whatever is legible; anything malformed is left out."""
    facts = Facts({})
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if not order:
        return facts
    try:
        (first,) = struct.unpack_from(f"{order}I", tiff, 4)
        inner = [_note(facts, *entry, order) for entry in _entries(tiff, first, order)]
        for start in [at for at in inner if at][:1]:
            for entry in _entries(tiff, start, order):
                _note(facts, *entry, order)
    except struct.error:
        pass
    return facts


def _entries(tiff: bytes, start: int, order: str) -> Iterator[tuple[int, bytes]]:
    """(tag, value) of each known tag of a directory, where it stands first."""
    seen: set[int] = set()
    (count,) = struct.unpack_from(f"{order}H", tiff, start)
    for at in range(start + 2, start + 2 + 12 * min(count, MAX_ENTRIES), 12):
        tag, kind, number = struct.unpack_from(f"{order}HHI", tiff, at)
        if tag not in _KNOWN:
            continue
        size = _SIZES.get(kind, 0) * number
        (offset,) = struct.unpack_from(f"{order}I", tiff, at + 8) if size > 4 else (at + 8,)
        if 0 < size <= MAX_VALUE and tag not in seen:
            seen.add(tag)
            yield tag, tiff[offset : offset + size]


def _note(facts: Facts, tag: int, value: bytes, order: str) -> int:
    """Where the Exif IFD lies, for the tag that tells; else 0."""
    if tag == _EXIF_IFD and len(value) == 4:
        return int(struct.unpack(f"{order}I", value)[0])
    if tag in _TEXTS and value:
        text = _comment(value, order) if tag == 0x9286 else value.decode("utf-8", "replace")
        facts.texts.setdefault(_TEXTS[tag], text.replace("\0", " ").strip())
    elif tag in _EXPOSURE:
        facts.exposure += 1
    elif tag == _MAKER_NOTE:
        facts.maker_note = value[:64]
    return 0


def _comment(value: bytes, order: str) -> str:
    """UserComment: eight bytes name its character set, or nothing does."""
    if value.startswith(b"UNICODE\0"):
        body = value[8:]
        odd, even = body[1:200:2].count(0), body[:200:2].count(0)
        big = even > odd if odd != even else order == ">"  # writers disagree with the specification on the order
        return body.decode("utf-16-be" if big else "utf-16-le", "replace")
    return re.sub(rb"\A(ASCII\0{3}|JIS\0{5}|\0{8})", b"", value).decode("utf-8", "replace")


def comments(facts: Facts) -> list[str]:
    """The fields in which generators keep their records."""
    return [facts.text(name) for name in ("UserComment", "ImageDescription", "Make", "Model")]


def read(facts: Facts) -> list[Finding]:
    """A generator's mark where there is one; else the camera, as a claim of capture when it tells of an exposure."""
    mark = _mark(facts)
    if mark:
        return [mark]
    make, model = facts.text("Make"), facts.text("Model")
    if not make.split() or not model or "{" in make + model:  # some generators keep their record there
        return []
    device = clean(model if model.casefold().startswith(make.casefold().split()[0]) else f"{make} {model}")
    foreign = _foreign_maker_note(facts)
    told = ["make and model"]
    told += ["exposure"] if facts.exposure >= 3 else []
    told += ["lens"] if facts.text("LensModel") else []
    told += [f"maker note of {foreign}" if foreign else "maker note"] if facts.maker_note else []
    return [
        Finding(
            source="exif",
            claim="captured" if facts.exposure >= 3 and not foreign else "none",
            detail=f"camera facts: {', '.join(told)}",
            device=device,
        )
    ]


def _foreign_maker_note(facts: Facts) -> str | None:
    """The maker whose note it is, where Make names another."""
    make = facts.text("Make").casefold()
    owner = next((owner for start, owner in _MAKER_NOTES.items() if facts.maker_note.startswith(start)), None)
    return owner if owner and owner not in make else None


def _mark(facts: Facts) -> Finding | None:
    description, comment = facts.text("ImageDescription"), facts.text("UserComment")
    if _GROK_SIGNATURE.match(description) and _UUID.fullmatch(facts.text("Artist")):
        return _generated("ImageDescription: Signature, Artist: UUID", "xAI", "Grok")
    if facts.maker_note.startswith(b"OpenAI--ImageGeneration") or comment.startswith("Made with OpenAI"):
        return _generated("MakerNote or UserComment: OpenAI", "OpenAI", "DALL-E")
    for name in ("Software", "Make", "Model"):
        value = facts.text(name)
        if is_generator(value):
            return _generated(f"{name}: {clean(value)}", vendor_of(value), clean(value))
    return None


def _generated(detail: str, vendor: str | None, generator: str) -> Finding:
    return Finding(source="exif", claim="generated", detail=detail, vendor=vendor, generator=generator)
