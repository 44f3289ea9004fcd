"""Bytes -> upright sRGB pixels with the facts of their file, or a refusal that says what to change.

The whole of input validation. What a file says of itself is `detector.provenance`'s to read.

Not covered: damage that a decoder conceals (inside a JPEG scan or AV1 frame, or a PNG stream that is whole but
short) shows as a browser would show it; PNG's gAMA, cHRM and cICP are ignored.
"""

import hashlib
import re
import struct
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image, ImageChops, ImageCms, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from detector.container import MAX_PROFILE, PNG_MAGIC, damaged, unpack
from detector.errors import (
    EmptyImage,
    TooManyBytes,
    TooManyPixels,
    TooSmall,
    UnsupportedType,
)

MAX_NAME = 80  # characters

# A profile whose description (ICC.1:2022 10.15) begins with sRGB, or is c2, the tiny sRGB that social networks embed.
# Looked for here: littlecms takes 0.2 s and 250 MB to read the description of a hostile profile of 600 bytes.
_SRGB = re.compile(rb"desc\0{4}.{4}(sRGB|c2\0)|mluc\0{4}.{20}\0s\0R\0G\0B", re.DOTALL)

_FOREIGN = (  # magic bytes -> what the file is; only to say so
    (rb"GIF8", "a GIF image"),
    (rb"BM", "a BMP image"),
    (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", "a TIFF or raw camera image"),
    (rb"....ftyp(hei|hev|mif1|msf1)", "a HEIC image"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "a JPEG XL image"),
    (rb"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (rb"8BPS", "a Photoshop document"),
    (rb"\0\0\x01\0", "an icon"),
    (rb"%PDF", "a PDF document"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "a PostScript file"),
    (rb"PK\x03\x04", "a ZIP archive or office document"),
    (rb"....ftyp|\x1a\x45\xdf\xa3|RIFF....AVI ", "a video"),
    (rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!DOCTYPE svg[^>]*>\s*)?<svg", "an SVG drawing"),
    (rb"(?i)(\xef\xbb\xbf)?\s*<(!doctype html|html|head|body)", "an HTML page"),
    (rb"(\xef\xbb\xbf)?\s*[{\[<]", "text"),
)

_TURNS = {  # EXIF 2.32, tag 0x0112
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Limits:
    """What a photo may be: bytes of its file, width x height, sides in pixels, formats by Pillow's names."""

    max_bytes: int
    max_pixels: int
    max_side: int
    min_side: int
    formats: frozenset[str]


@dataclass(frozen=True)
class Photo:
    """An accepted photo."""

    pixels: Image.Image  # upright, mode RGB, sRGB
    format: str  # JPEG | PNG | WEBP | AVIF
    mode: str  # Pillow's name for the pixels as stored, such as CMYK
    orientation: int  # EXIF 1..8, applied already
    animated: bool  # the file holds several frames; these are the first
    bytes: int
    sha256: str  # of the bytes as uploaded

    @property
    def width(self) -> int:
        return self.pixels.width

    @property
    def height(self) -> int:
        return self.pixels.height


def decode(data: bytes, limits: Limits) -> Photo:
    """Check, decode and turn upright; raises an InvalidImage. Safe to call from several threads."""
    if not data:
        raise EmptyImage("The photo's file is empty (0 bytes).")
    if len(data) > limits.max_bytes:
        raise TooManyBytes(f"The photo's file has {len(data):,} bytes; at most {limits.max_bytes:,} are allowed.")
    kind = _sniff(data, limits.formats)
    container = unpack(kind, data)
    if container.size:
        _check_size(container.size, limits)
    reader = _reader(kind)
    with _refusing_damage(kind):
        image = reader(BytesIO(container.picture))
    _check_size(image.size, limits)
    with _refusing_damage(kind):
        image.load()
        pixels = _rgb(image, container.profile or image.info.get("icc_profile") or b"")
    orientation = _orientation(container.exif or image.info.get("exif") or b"")
    if orientation in _TURNS:
        pixels = pixels.transpose(_TURNS[orientation])
    return Photo(
        pixels=pixels,
        format=kind,
        mode=image.mode,
        orientation=orientation,
        animated=max(container.frames, getattr(image, "n_frames", 1)) > 1,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )


def safe_name(name: str | None) -> str | None:
    """An upload's own file name as a harmless label: no path, no control or direction marks, at most MAX_NAME."""
    last = re.split(r"[\\/]", name or "")[-1]
    visible = "".join(" " if c.isspace() else c for c in last if c.isspace() or unicodedata.category(c)[0] != "C")
    label = " ".join(visible.split())[:MAX_NAME].strip()
    return label if label.strip(". ") else None


def _sniff(data: bytes, formats: frozenset[str]) -> str:
    """The format by magic bytes alone; what the upload calls itself is not asked."""
    kind = _magic(data)
    *others, last = sorted(formats)
    wanted = f"{', '.join(others)} or {last}" if others else last
    if kind in formats:
        return kind
    if kind:
        raise UnsupportedType(f"The photo is {kind}, which is not accepted here; send {wanted}.")
    for magic, name in _FOREIGN:
        if re.match(magic, data[:1024], re.DOTALL):
            raise UnsupportedType(f"The file looks like {name}; send {wanted}.")
    raise UnsupportedType(f"The file does not begin like an image; send {wanted}.")


def _magic(data: bytes) -> str:
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(PNG_MAGIC):
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    brands = data[8 : min(int.from_bytes(data[:4]), 256)]
    if data[4:8] == b"ftyp" and (b"avif" in brands or b"avis" in brands):
        return "AVIF"
    return ""


def _check_size(size: tuple[int, int], limits: Limits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        millions = f"{width * height / 1e6:.1f} megapixels ({width} x {height})"
        raise TooManyPixels(f"The photo has {millions}; at most {limits.max_pixels / 1e6:g} are allowed.")
    if max(size) > limits.max_side:
        raise TooManyPixels(f"The photo is {width} x {height} pixels; a side may have at most {limits.max_side}.")
    if min(size) < limits.min_side:
        raise TooSmall(f"The photo is {width} x {height} pixels; each side needs at least {limits.min_side}.")


@contextmanager
def _refusing_damage(kind: str) -> Iterator[None]:
    """Pillow names no set of errors for hostile bytes, so any is taken as damage; its message stays here."""
    try:
        yield
    except Exception:
        raise damaged(kind) from None


def _reader(kind: str) -> Callable[[BytesIO], ImageFile.ImageFile]:
    """The one decoder of a format, asked by name: Pillow's search through all it knows is not used."""
    if kind == "AVIF":
        from PIL.AvifImagePlugin import AvifImageFile  # since Pillow 11.3; an option here, so asked for when used

        return AvifImageFile
    return {"JPEG": JpegImageFile, "PNG": PngImageFile, "WEBP": WebPImageFile}[kind]


def _orientation(exif: bytes) -> int:
    """The orientation of a photo, 1 where EXIF is silent or malformed."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if not order:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (entries,) = struct.unpack_from(f"{order}H", tiff, start)
        for at in range(start + 2, start + 2 + 12 * entries, 12):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, at)
            if tag == 0x0112:
                return value if kind == 3 and value in _TURNS else 1
    except struct.error:
        pass
    return 1


def _rgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Any mode a decoder gives -> RGB on white, in sRGB."""
    if image.mode == "I;16":
        image = _eight_bit(image)
    if image.mode == "CMYK" and "adobe" not in image.info:
        image = ImageChops.invert(image)  # Pillow takes every CMYK JPEG for one of Adobe's, which are inverted
    if image.has_transparency_data:
        layer = image if image.mode == "RGBA" else image.convert("RGBA")
        image = Image.new("RGB", layer.size, "white")
        image.paste(layer, mask=layer)
    elif image.mode not in ("RGB", "L", "CMYK"):
        image = image.convert("RGB")
    return _srgb(image, profile)


def _eight_bit(image: Image.Image) -> Image.Image:
    """16-bit grey -> 8 bits by the high byte, as Pillow does for 16-bit RGB; `convert` would clip at 255."""
    samples = np.asarray(image)
    grey = (samples >> 8).astype(np.uint8)
    if "transparency" in image.info:
        grey[samples == image.info["transparency"]] = 255
    return Image.fromarray(grey)


def _srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Through the embedded profile where it is sound and not sRGB already; 17 ms a megapixel."""
    if 0 < len(profile) <= MAX_PROFILE and not _SRGB.search(profile):
        with suppress(Exception):  # a profile that is broken or for another mode never costs the photo
            source, target = ImageCms.ImageCmsProfile(BytesIO(profile)), ImageCms.createProfile("sRGB")
            image = ImageCms.profileToProfile(image, source, target, outputMode="RGB") or image
    return image if image.mode == "RGB" else image.convert("RGB")
