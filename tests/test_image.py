"""detector.image: every photo becomes upright RGB pixels with the right colours, every other file a typed refusal."""

import hashlib
import io
import struct
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps, WebPImagePlugin

from detector.container import MAX_SCANS
from detector.errors import (
    CorruptImage,
    EmptyImage,
    InvalidImage,
    TooManyBytes,
    TooManyPixels,
    TooSmall,
    TruncatedImage,
    UnsupportedType,
)
from detector.image import Limits, Photo, decode, safe_name

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
LIMITS = Limits(
    max_bytes=2_000_000,
    max_pixels=50_000_000,
    max_side=16_384,
    min_side=64,
    formats=frozenset({"JPEG", "PNG", "WEBP", "AVIF"}),
)
FORMATS = ["JPEG", "PNG", "WEBP", *(["AVIF"] if ".avif" in Image.registered_extensions() else [])]


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def corner(size: tuple[int, int] = (96, 64), colour: tuple[int, int, int] = RED) -> Image.Image:
    """White with a coloured top left quarter."""
    image = Image.new("RGB", size, WHITE)
    image.paste(colour, (0, 0, size[0] // 2, size[1] // 2))
    return image


def noise(mode: str = "RGB", size: int = 64) -> Image.Image:
    bands = len(Image.new(mode, (1, 1)).getbands())
    samples = np.random.default_rng(7).integers(0, 256, (size, size, bands), np.uint8)
    return Image.fromarray(samples if bands > 1 else samples[..., 0])


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, colour: int, row: bytes, *more: bytes) -> bytes:
    """A PNG by hand: every line is `row`; `more` chunks stand before the picture."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    picture = zlib.compress((b"\0" + row) * height, 9)
    chunks = (chunk(b"IHDR", header), *more, chunk(b"IDAT", picture), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def at(photo: Photo, x: float, y: float) -> tuple[int, ...]:
    """The colour at a place given as shares of the sides."""
    pixel = photo.pixels.getpixel((int(x * photo.width), int(y * photo.height)))
    assert isinstance(pixel, tuple)
    return pixel


def close(colour: tuple[int, ...], wanted: tuple[int, ...], tolerance: int = 4) -> bool:
    return len(colour) == len(wanted) and max(abs(a - b) for a, b in zip(colour, wanted, strict=True)) <= tolerance


def refusal(data: bytes, limits: Limits = LIMITS) -> InvalidImage:
    with pytest.raises(InvalidImage) as caught:
        decode(data, limits)
    return caught.value


# what is accepted, and how it looks


@pytest.mark.parametrize("kind", FORMATS)
def test_each_format_gives_its_pixels_and_facts(kind: str) -> None:
    data = encode(corner(), kind, quality=95)
    photo = decode(data, LIMITS)
    assert (photo.format, photo.width, photo.height, photo.pixels.mode) == (kind, 96, 64, "RGB")
    assert (photo.bytes, photo.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert (photo.animated, photo.orientation) == (False, 1)
    assert close(at(photo, 0.2, 0.2), RED) and close(at(photo, 0.8, 0.8), WHITE)


def test_lossless_pixels_are_untouched() -> None:
    image = noise()
    for data in (encode(image, "PNG"), encode(image, "WEBP", lossless=True)):
        assert decode(data, LIMITS).pixels.tobytes() == image.tobytes()


@pytest.mark.parametrize("options", [{"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}])
def test_jpeg_variants_equal_plain_pillow(options: dict[str, Any]) -> None:
    data = encode(noise(), "JPEG", quality=90, comment=b"hello", exif=turned(1), **options)
    assert decode(data, LIMITS).pixels.tobytes() == Image.open(io.BytesIO(data)).tobytes()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_undone(kind: str, orientation: int) -> None:
    data = encode(corner(), kind, exif=turned(orientation), quality=95)
    photo = decode(data, LIMITS)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert photo.orientation == orientation
    assert photo.pixels.tobytes() == upright.tobytes()


def test_orientation_6_swaps_the_sides_and_puts_the_corner_top_right() -> None:
    photo = decode(encode(corner((96, 64)), "JPEG", exif=turned(6), quality=95), LIMITS)
    assert (photo.width, photo.height) == (64, 96)
    assert close(at(photo, 0.8, 0.2), RED) and close(at(photo, 0.2, 0.2), WHITE)


@pytest.mark.skipif("AVIF" not in FORMATS, reason="this Pillow has no AVIF")
def test_avif_is_turned_by_its_container_and_its_exif_is_not_read() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x0131] = 6, "a text that lies somewhere else"
    data = encode(corner((96, 64)), "AVIF", exif=exif.tobytes(), quality=95)
    start = data.index(b"II*\0") if b"II*\0" in data else data.index(b"MM\0*")
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        photo = decode(data[: start + 8] + b"\xff" * 16 + data[start + 24 :], LIMITS)
    assert (photo.width, photo.height) == (64, 96)
    assert close(at(photo, 0.8, 0.2), RED, 12)
    assert heard == []


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40,
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0\0\0\0\0",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x04\0\x01\0\0\0\x06\0\0\0\0\0\0\0",
        b"Exif\0\0nonsense",
    ],
)
def test_malformed_exif_is_ignored_without_a_warning(exif: bytes) -> None:
    plain = encode(corner(), "JPEG")
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        photo = decode(plain[:2] + segment(0xE1, exif) + plain[2:], LIMITS)
    assert photo.orientation == 1
    assert heard == []


def test_alpha_is_laid_on_white() -> None:
    image = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    image.paste((255, 0, 0, 128), (0, 0, 32, 64))
    for data in (encode(image, "PNG"), encode(image, "WEBP", lossless=True, exact=True)):
        photo = decode(data, LIMITS)
        assert close(at(photo, 0.2, 0.5), (255, 127, 127), 1)
        assert at(photo, 0.8, 0.5) == WHITE


def test_grey_with_alpha_is_laid_on_white() -> None:
    photo = decode(encode(Image.new("LA", (64, 64), (0, 64)), "PNG"), LIMITS)
    assert close(at(photo, 0.5, 0.5), (191, 191, 191), 1)


@pytest.mark.parametrize("transparency", [0, b"\0\xff"])
def test_palette_transparency_is_laid_on_white(transparency: int | bytes) -> None:
    image = Image.new("P", (64, 64), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(1, (0, 0, 32, 64))
    photo = decode(encode(image, "PNG", transparency=transparency), LIMITS)
    assert (at(photo, 0.2, 0.5), at(photo, 0.8, 0.5)) == (BLUE, WHITE)


@pytest.mark.parametrize(
    ("depth", "colour", "row", "key", "left", "right"),
    [
        (8, 2, bytes([10, 20, 30]) * 32 + bytes([1, 2, 3]) * 32, (10, 20, 30), WHITE, (1, 2, 3)),
        (16, 2, b"\x10\x11\x20\x21\x30\x31" * 32 + bytes(192), (0x1011, 0x2021, 0x3031), WHITE, (0, 0, 0)),
        (8, 0, b"\x07" * 32 + b"\x08" * 32, (7,), WHITE, (8, 8, 8)),
        (16, 0, b"\x07\x00" * 32 + b"\x07\x01" * 32, (0x0700,), WHITE, (7, 7, 7)),
        (4, 0, b"\x33" * 16 + b"\x77" * 16, (3,), WHITE, (0x77, 0x77, 0x77)),
        (2, 0, b"\x55" * 8 + b"\0" * 8, (1,), WHITE, (0, 0, 0)),
        (1, 0, b"\0" * 4 + b"\xff" * 4, (0,), WHITE, WHITE),
    ],
)
def test_a_transparent_colour_is_white_at_every_depth(
    depth: int, colour: int, row: bytes, key: tuple[int, ...], left: tuple[int, ...], right: tuple[int, ...]
) -> None:
    data = png(64, 64, depth, colour, row, chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)))
    photo = decode(data, LIMITS)
    assert (at(photo, 0.2, 0.5), at(photo, 0.8, 0.5)) == (left, right)


@pytest.mark.parametrize(
    ("colour", "sample"),
    [(0, b"\x80\0"), (2, b"\x80\0" * 3), (4, b"\x80\0\xff\xff"), (6, b"\x80\0" * 3 + b"\xff\xff")],
)
def test_mid_grey_of_16_bits_is_mid_grey_of_8(colour: int, sample: bytes) -> None:
    photo = decode(png(64, 64, 16, colour, sample * 64), LIMITS)
    assert close(at(photo, 0.5, 0.5), (128, 128, 128), 1)


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_grey_and_palette_become_rgb(mode: str) -> None:
    image = corner(colour=(0, 0, 0)).convert(mode)
    photo = decode(encode(image, "PNG"), LIMITS)
    assert photo.mode == mode
    assert (at(photo, 0.2, 0.2), at(photo, 0.8, 0.8)) == ((0, 0, 0), WHITE)


def test_grey_jpeg_becomes_rgb() -> None:
    photo = decode(encode(Image.new("L", (64, 64), 100), "JPEG"), LIMITS)
    assert close(at(photo, 0.5, 0.5), (100, 100, 100), 1)


def test_cmyk_of_adobe_and_plain_cmyk_show_the_same_colour() -> None:
    """Adobe stores ink inverted and says so in APP14; a file without that segment stores it straight."""
    adobe = encode(Image.new("CMYK", (64, 64), (0, 200, 200, 20)), "JPEG", quality=95)
    straight = encode(Image.new("CMYK", (64, 64), (255, 55, 55, 235)), "JPEG", quality=95)
    start = straight.index(b"\xff\xee")
    plain = straight[:start] + straight[start + 16 :]
    for data in (adobe, plain):
        photo = decode(data, LIMITS)
        assert photo.mode == "CMYK"
        assert close(at(photo, 0.5, 0.5), (235, 51, 51), 6)


# colour profiles


def wide_gamut() -> bytes:
    """sRGB with its red and green columns exchanged: a valid profile that nobody could mistake for sRGB."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    description = "sRGB built-in".encode("utf-16-be")
    assert description in profile
    return (profile.replace(b"rXYZ", b"tmpX").replace(b"gXYZ", b"rXYZ").replace(b"tmpX", b"gXYZ")).replace(
        description, "XYZW built-in".encode("utf-16-be")
    )


def linear_grey() -> bytes:
    white = struct.pack(">3I", 0xF6D6, 0x10000, 0xD32D)  # D50, s15Fixed16
    tags = struct.pack(">I", 2) + struct.pack(">4sII4sII", b"wtpt", 156, 20, b"kTRC", 176, 12)
    body = tags + b"XYZ \0\0\0\0" + white + b"curv" + bytes(8)
    head = struct.pack(">II4s4s4s12x4s28x12s48x", 0, 0x02400000, b"mntr", b"GRAY", b"XYZ ", b"acsp", white)
    return struct.pack(">I", 128 + len(body)) + head + body


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_embedded_profile_is_applied(kind: str) -> None:
    data = encode(Image.new("RGB", (64, 64), RED), kind, quality=95, icc_profile=wide_gamut())
    assert close(at(decode(data, LIMITS), 0.5, 0.5), GREEN, 6)


def test_a_profile_that_calls_itself_srgb_is_not_applied() -> None:
    """Else every such photo would pay for a conversion that changes nothing."""
    named = wide_gamut().replace("XYZW built-in".encode("utf-16-be"), "sRGB built-in".encode("utf-16-be"))
    image = noise()
    assert decode(encode(image, "PNG", icc_profile=named), LIMITS).pixels.tobytes() == image.tobytes()


def test_a_profile_in_parts_is_joined_by_their_numbers() -> None:
    profile, plain = wide_gamut(), encode(Image.new("RGB", (64, 64), RED), "JPEG", quality=95)
    parts = [segment(0xE2, b"ICC_PROFILE\0\2\2" + profile[200:]), segment(0xE2, b"ICC_PROFILE\0\1\2" + profile[:200])]
    assert close(at(decode(plain[:2] + b"".join(parts) + plain[2:], LIMITS), 0.5, 0.5), GREEN, 6)


def test_a_grey_profile_is_applied_to_grey() -> None:
    """128 of 255 is half the light, which sRGB writes as 188."""
    photo = decode(encode(Image.new("L", (64, 64), 128), "PNG", icc_profile=linear_grey()), LIMITS)
    assert close(at(photo, 0.5, 0.5), (188, 188, 188), 1)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("damage", ["short", "text", "lab", "grey"])
def test_a_useless_profile_is_ignored(kind: str, damage: str) -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    profile = {"short": wide_gamut()[:300], "text": b"not a profile", "lab": lab, "grey": linear_grey()}[damage]
    photo = decode(encode(corner(), kind, quality=95, icc_profile=profile), LIMITS)
    assert close(at(photo, 0.2, 0.2), RED)


# several frames


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind != "JPEG"])
def test_an_animation_is_judged_by_its_first_frame_and_says_so(kind: str) -> None:
    frames = [Image.new("RGB", (64, 64), colour) for colour in (RED, GREEN, BLUE)]
    photo = decode(encode(frames[0], kind, save_all=True, append_images=frames[1:], duration=50), LIMITS)
    assert photo.animated
    assert close(at(photo, 0.5, 0.5), RED, 6)


def test_a_jpeg_with_further_pictures_behind_it_is_its_first() -> None:
    data = encode(corner(), "MPO", save_all=True, append_images=[corner(colour=BLUE)], quality=95)
    photo = decode(data, LIMITS)
    assert (photo.format, photo.animated) == ("JPEG", False)
    assert close(at(photo, 0.2, 0.2), RED)


# refusals


def test_an_empty_file_is_refused() -> None:
    assert type(refusal(b"")) is EmptyImage


def test_too_many_bytes_are_refused_before_anything_is_read() -> None:
    error = refusal(bytes(2_000_001))
    assert type(error) is TooManyBytes
    assert error.detail == "The photo's file has 2,000,001 bytes; at most 2,000,000 are allowed."


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (encode(Image.new("P", (64, 64)), "GIF"), "a GIF image"),
        (encode(corner(), "BMP"), "a BMP image"),
        (encode(corner(), "TIFF"), "a TIFF or raw camera image"),
        (encode(corner(), "EPS"), "a PostScript file"),
        (encode(corner(), "ICO"), "an icon"),
        (encode(corner(), "PDF"), "a PDF document"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64), "a HEIC image"),
        (b"\0\0\0\x18ftypisom\0\0\0\0mp42isom" + bytes(64), "a video"),
        (b"PK\x03\x04" + bytes(64), "a ZIP archive or office document"),
        (b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
        (b"\n<!DOCTYPE html><html></html>", "an HTML page"),
        (b'{"url": "http://127.0.0.1/"}', "text"),
    ],
)
def test_another_type_is_refused_by_its_name(data: bytes, name: str) -> None:
    error = refusal(data)
    assert type(error) is UnsupportedType
    assert error.detail == f"The file looks like {name}; send AVIF, JPEG, PNG or WEBP."


@pytest.mark.parametrize("data", [b"\0", b"http://127.0.0.1/a.png", b"RIFF\x04\0\0\0WAVE", b"\xff\xd8"])
def test_bytes_that_are_no_image_are_refused(data: bytes) -> None:
    error = refusal(data)
    assert type(error) is UnsupportedType
    assert error.detail.startswith("The file does not begin like an image")


def test_a_format_outside_the_limits_is_refused() -> None:
    limits = Limits(2_000_000, 50_000_000, 16_384, 64, frozenset({"JPEG"}))
    error = refusal(encode(corner(), "PNG"), limits)
    assert type(error) is UnsupportedType
    assert error.detail == "The photo is PNG, which is not accepted here; send JPEG."


@pytest.mark.parametrize("marker", [0xC3, 0xC5])
def test_a_rare_kind_of_jpeg_is_refused_as_a_type(marker: int) -> None:
    data = encode(corner(), "JPEG").replace(b"\xff\xc0", bytes([0xFF, marker]))
    assert type(refusal(data)) is UnsupportedType


def test_a_177_megapixel_png_is_refused_unseen() -> None:
    """0.5 MB that would inflate to 531 MB; the refusal allocates little beyond the file itself."""
    deflate = zlib.compressobj(9)
    line = bytes(1 + 3 * 16_000)
    picture = b"".join(deflate.compress(line) for _ in range(11_063)) + deflate.flush()
    header = struct.pack(">IIBBBBB", 16_000, 11_063, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", picture) + chunk(b"IEND", b"")
    assert 400_000 < len(data) < 600_000
    tracemalloc.start()
    error = refusal(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert type(error) is TooManyPixels
    assert error.detail == "The photo has 177.0 megapixels (16000 x 11063); at most 50 are allowed."
    assert peak < 4 * len(data)


def huge(kind: str) -> bytes:
    """A small photo whose header claims 12000 x 12000 pixels."""
    data = bytearray(encode(corner(), kind))
    if kind == "JPEG":
        start = data.index(b"\xff\xc0") + 5
        data[start : start + 4] = struct.pack(">HH", 12_000, 12_000)
    elif kind == "PNG":
        data[16:24] = struct.pack(">II", 12_000, 12_000)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    else:
        data[26:30] = struct.pack("<HH", 12_000, 12_000)
    return bytes(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_too_many_pixels_are_refused_before_a_decoder_exists(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_decoder(kind: str) -> None:
        raise AssertionError(f"{kind} was given to a decoder")

    monkeypatch.setattr("detector.image._reader", no_decoder)
    error = refusal(huge(kind))
    assert type(error) is TooManyPixels
    assert error.detail == "The photo has 144.0 megapixels (12000 x 12000); at most 50 are allowed."


@pytest.mark.skipif("AVIF" not in FORMATS, reason="this Pillow has no AVIF")
def test_too_many_pixels_of_an_avif_are_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(corner((300, 200)), "AVIF")
    monkeypatch.setattr("PIL.AvifImagePlugin.AvifImageFile.load", lambda image: pytest.fail("decoded"))
    limits = Limits(2_000_000, 50_000, 16_384, 64, frozenset({"AVIF"}))
    assert type(refusal(data, limits)) is TooManyPixels


@pytest.mark.parametrize("kind", FORMATS)
def test_a_side_outside_the_limits_is_refused(kind: str) -> None:
    limits = Limits(2_000_000, 50_000_000, 512, 64, LIMITS.formats)
    long = refusal(encode(corner((513, 64)), kind), limits)
    assert type(long) is TooManyPixels
    assert long.detail == "The photo is 513 x 64 pixels; a side may have at most 512."
    thin = refusal(encode(corner((63, 300)), kind), limits)
    assert type(thin) is TooSmall
    assert thin.detail == "The photo is 63 x 300 pixels; each side needs at least 64."
    assert decode(encode(corner((512, 64)), kind), limits).width == 512


def test_every_webp_layout_tells_its_size_as_libwebp_does() -> None:
    """Lossy, lossless and extended files keep it in three places."""
    image = Image.new("RGBA", (70, 90), (9, 9, 9, 99))
    limits = Limits(2_000_000, 50_000_000, 16_384, 1_000, LIMITS.formats)
    for options in ({}, {"lossless": True}, {"exif": turned(1)}):
        for source in (image, image.convert("RGB")):
            error = refusal(encode(source, "WEBP", **options), limits)
            assert error.detail == "The photo is 70 x 90 pixels; each side needs at least 1000."


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.999])
def test_a_cut_file_is_called_truncated(kind: str, share: float) -> None:
    data = encode(noise(), kind)
    error = refusal(data[: int(len(data) * share)])
    assert type(error) is TruncatedImage
    assert error.detail == f"The {kind} file ends before its picture does; upload the whole file again."


@pytest.mark.parametrize("kind", FORMATS)
def test_damage_inside_a_whole_file_is_called_corrupt(kind: str) -> None:
    data = bytearray(encode(noise(), kind))
    frame_header = 20
    start = {
        "JPEG": data.find(b"\xff\xdb") + 4,
        "PNG": len(data) // 2,
        "WEBP": frame_header,
        "AVIF": data.find(b"iloc"),
    }[kind]
    data[start : start + 40] = b"\x5a" * 40
    error = refusal(bytes(data))
    assert type(error) is CorruptImage
    assert error.detail == f"The {kind} file is damaged and can't be decoded; export the photo again."


def test_a_png_whose_stream_breaks_off_is_corrupt() -> None:
    """Its chunks are whole and their checksums right; only the pixels tell."""
    data = encode(noise(), "PNG")
    start = data.index(b"IDAT")
    assert (
        type(refusal(data[: start - 4] + chunk(b"IDAT", data[start + 4 : 6_000]) + chunk(b"IEND", b""))) is CorruptImage
    )


def test_a_wrong_checksum_over_pixels_is_corrupt() -> None:
    data = encode(noise(), "PNG")
    assert type(refusal(data[:-13] + bytes([data[-13] ^ 1]) + data[-12:])) is CorruptImage


# hostile files that are whole


def test_a_jpeg_of_many_scans_is_refused() -> None:
    """Each scan of 60 bytes costs a pass over the whole picture."""
    data = encode(Image.new("L", (64, 64), 128), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    error = refusal(data[:-2] + scan * MAX_SCANS + data[-2:])
    assert type(error) is CorruptImage
    assert error.detail == f"The JPEG file has more than {MAX_SCANS} scans; export the photo again."


def test_scans_can_not_hide_behind_a_false_end() -> None:
    """libjpeg would read past an end marker inside a comment; it is given nothing that was not counted."""
    data = encode(Image.new("L", (64, 64), 128), "JPEG", progressive=True)
    first, last = data.index(b"\xff\xda"), data.rindex(b"\xff\xda")
    second = data.index(b"\xff\xda", first + 2)
    tables = data.rindex(b"\xff\xc4", first, second)
    hidden = data[:tables] + segment(0xFE, b"\xff\xd9") + data[tables:-2] + data[last:-2] * MAX_SCANS + data[-2:]
    assert type(refusal(hidden)) is CorruptImage


@pytest.mark.parametrize("part", [b"\0\0\0\0tEXt\0\0\0\0", b"\0\0\0\0IDAT\x35\xaf\x06\x1e"])
def test_a_png_of_many_chunks_is_refused(part: bytes) -> None:
    data = png(64, 64, 8, 2, bytes(192))
    error = refusal(data[:33] + part * 65_536 + data[33:])
    assert type(error) is CorruptImage
    assert error.detail == "The PNG file has more than 65536 chunks; export the photo again."


@pytest.mark.parametrize("marker", [0xE1, 0xE2, 0xFE, 0xFF, 0x01])
def test_a_jpeg_of_many_segments_is_refused(marker: int) -> None:
    plain = encode(corner(), "JPEG")
    part = bytes([0xFF, marker]) if marker in (0x01, 0xFF) else segment(marker, b"Exif\0\0")
    error = refusal(plain[:2] + part * 1_001 + plain[2:])
    assert type(error) is CorruptImage
    assert "more than 1000 segments" in error.detail


def test_metadata_bombs_are_never_inflated() -> None:
    """40 text chunks and profiles of 8 MB each: the photo is accepted, and nothing of theirs is held."""
    bomb = zlib.compress(bytes(8 << 20), 9)
    parts = [chunk(b"zTXt", b"a\0\0" + bomb), chunk(b"iTXt", b"a\0\1\0\0\0" + bomb), chunk(b"iCCP", b"a\0\0" + bomb)]
    data = png(64, 64, 8, 2, bytes(RED) * 64, *(parts * 40))
    tracemalloc.start()
    photo = decode(data, LIMITS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert at(photo, 0.5, 0.5) == RED
    assert peak < 10 << 20


def test_a_png_with_broken_metadata_is_still_a_photo() -> None:
    broken = [
        chunk(b"acTL", b"\0"),
        chunk(b"gAMA", b""),
        chunk(b"iCCP", b"x"),
        chunk(b"eXIf", b"\xff"),
        b"\0\0\0\0tEXt    ",
    ]
    assert at(decode(png(64, 64, 8, 2, bytes(RED) * 64, *broken), LIMITS), 0.5, 0.5) == RED


def test_the_decoder_is_the_one_of_the_magic_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's search through its registry, where EPS waits, is never used."""
    monkeypatch.setattr(Image, "open", lambda *args, **options: pytest.fail("Image.open was called"))
    assert decode(encode(corner(), "PNG"), LIMITS).pixels.tobytes() == corner().tobytes()


def test_a_decoders_own_message_is_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(image: object) -> None:
        raise MemoryError("/srv/secret")

    data = encode(corner(), "WEBP")
    monkeypatch.setattr(WebPImagePlugin.WebPImageFile, "load", fail)
    error = refusal(data)
    assert type(error) is CorruptImage
    assert "secret" not in error.detail and error.__cause__ is None


def test_threads_share_nothing() -> None:
    files = [encode(corner(colour=colour), kind, quality=95) for colour in (RED, GREEN, BLUE) for kind in FORMATS]
    alone = [decode(data, LIMITS).pixels.tobytes() for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: decode(data, LIMITS).pixels.tobytes(), files * 10))
    assert together == alone * 10


# fuzz


def seeds() -> list[bytes]:
    """One small file of each kind of container and coding."""
    image, exif, profile = noise(size=64), turned(6), wide_gamut()
    frames = {"save_all": True, "append_images": [corner((64, 64))]}
    files = [
        encode(image, "JPEG", exif=exif, icc_profile=profile),
        encode(image.convert("L"), "JPEG", progressive=True),
        encode(image.convert("CMYK"), "JPEG"),
        encode(image.quantize(16), "PNG", transparency=b"\0\x80", exif=exif, icc_profile=profile),
        encode(noise("RGBA"), "PNG", **frames),
        png(64, 64, 16, 0, bytes(range(128)), chunk(b"tRNS", b"\0\1")),
        encode(image, "WEBP", exif=exif, icc_profile=profile),
        encode(noise("RGBA"), "WEBP", lossless=True),
        encode(image, "WEBP", **frames),
    ]
    return files + ([encode(image, "AVIF", exif=exif, icc_profile=profile)] if "AVIF" in FORMATS else [])


SEEDS = seeds()
place = st.integers(0, 2**16)
edit = st.tuples(st.sampled_from(["flip", "write", "cut", "drop", "double"]), place, st.binary(min_size=1, max_size=8))


def mutate(data: bytes, edits: list[tuple[str, int, bytes]], from_front: bool) -> bytes:
    """Apply edits; `from_front` aims at the first 1024 bytes, where the headers are."""
    for what, where, body in edits:
        start = where % max(1, min(len(data), 1_024) if from_front else len(data))
        end = start + len(body)
        if what == "flip":
            data = data[:start] + bytes(a ^ b for a, b in zip(data[start:end], body, strict=False)) + data[end:]
        elif what == "write":
            data = data[:start] + body + data[end:]
        elif what == "cut":
            data = data[:start]
        elif what == "drop":
            data = data[:start] + data[end:]
        else:
            data = data[:end] + data[start:]
    return data


def sealed(data: bytes) -> bytes:
    """Put right the checksums of a PNG and the length of a WebP, so that damage gets past them."""
    if data[:4] == b"RIFF":
        return data[:4] + struct.pack("<I", max(0, len(data) - 8)) + data[8:]
    if data[:4] != b"\x89PNG":
        return data
    whole, start = data[:8], 8
    while start + 12 <= len(data):
        length = int.from_bytes(data[start : start + 4])
        whole += chunk(data[start + 4 : start + 8], data[start + 8 : start + 8 + length])
        start += 12 + length
    return whole


@seed(3)
@settings(max_examples=600, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(range(len(SEEDS))), st.lists(edit, min_size=1, max_size=4), st.booleans(), st.booleans())
def test_damaged_files_are_photos_or_refusals_and_nothing_else(
    index: int, edits: list[tuple[str, int, bytes]], from_front: bool, seal: bool
) -> None:
    data = mutate(SEEDS[index], edits, from_front)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            photo = decode(sealed(data) if seal else data, LIMITS)
        except InvalidImage as error:
            assert type(error) is not InvalidImage
        else:
            assert photo.pixels.mode == "RGB"
            assert photo.pixels.tobytes()
    assert heard == []


# names


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("photo.jpg", "photo.jpg"),
        ("Schöne Lampe 2.PNG", "Schöne Lampe 2.PNG"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\lamp.jpg", "lamp.jpg"),
        ("a\0b\r\nc\x1b[31m.jpg", "ab c[31m.jpg"),
        ("invoice\u202egpj.exe", "invoicegpj.exe"),
        ("\u2066x\u2069\ufeff\ud800.png", "x.png"),
        ("x" * 10_000, "x" * 80),
        ("a\u2028 \t b", "a b"),
        ("..", None),
        ("folder/", None),
        ("\0", None),
        ("", None),
        (None, None),
    ],
)
def test_a_file_name_becomes_a_harmless_label(name: str | None, label: str | None) -> None:
    assert safe_name(name) == label
