"""Hostile metadata: no exception, no second lost, no 50 MB taken."""

import json
import struct
import subprocess
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from detector.provenance.blocks import collect
from detector.provenance.reading import FileReader
from tests.conftest import encoded, make_photo
from tests.provenance.samples import chunk, every, exif, iim, itxt, jpeg, png, segment, text_png, webp, xmp, xmp_segment
from tests.provenance.signing import Signing, created, opened, sign

READER = FileReader(prompts=True)
ROOT = Path(__file__).parents[2]
SECONDS, BYTES = 1.0, 50 * 1024 * 1024
KINDS = ["JPEG", "PNG", "WEBP", "AVIF"]
MAGIC = {"JPEG": b"\xff\xd8", "PNG": b"\x89PNG\r\n\x1a\n", "WEBP": b"RIFF\0\0\0\0WEBP", "AVIF": b"\0\0\0\x10ftypavif"}
XMP_KEY = b"XML:com.adobe.xmp"


def packed_xmp(size: int) -> bytes:
    """A chunk that inflates to `size` blanks."""
    return chunk(b"iTXt", XMP_KEY + b"\0\1\0\0\0" + zlib.compress(bytes(size)))


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 8) + kind + body


def jumbf(*children: bytes, label: bytes = b"c2pa") -> bytes:
    uuid = label.ljust(4)[:4] + bytes.fromhex("00110010800000aa00389b71")
    return box(b"jumb", box(b"jumd", uuid + b"\3" + label + b"\0") + b"".join(children))


def nested(depth: int) -> bytes:
    """Boxes in boxes, told outermost first, so that building them is linear."""
    heads = [struct.pack(">I4s", 8 * (depth - n) + 8, b"jumb") for n in range(depth)]
    return jumbf(b"".join(heads) + box(b"cbor", b""))


CBOR = jumbf(box(b"cbor", b"\x81" * 300_000 + b"\0"), label=b"c2pa.claim")
HOSTILE: dict[str, tuple[str, Callable[[], bytes]]] = {
    "a gigabyte of XMP claimed": (
        "PNG",
        lambda: png() + struct.pack(">I", 1 << 30) + b"iTXt" + XMP_KEY + b"\0\0\0\0\0x",
    ),
    "a gigabyte of WebP XMP claimed": ("WEBP", lambda: webp()[:-8] + b"XMP " + struct.pack("<I", (1 << 30) + 1)),
    "a gigabyte of extended XMP claimed": (
        "JPEG",
        lambda: jpeg(
            segment(
                0xE1, b"http://ns.adobe.com/xmp/extension/\0" + b"A" * 32 + struct.pack(">II", 1 << 30, 1 << 29) + b"<"
            )
        ),
    ),
    "300 MB of XMP packed": ("PNG", lambda: png(packed_xmp(300 << 20))),
    "3,000 packed texts": (
        "PNG",
        lambda: png(*[itxt(b"k%d" % n, bytes(900_000), packed=True) for n in range(300)] * 10),
    ),
    "a million elements": ("PNG", lambda: png(itxt(XMP_KEY, xmp("<dc:a/>" * 140_000)))),
    "depth in XMP": ("PNG", lambda: png(itxt(XMP_KEY, xmp("<dc:a>" * 160_000)))),
    "attributes": (
        "PNG",
        lambda: png(itxt(XMP_KEY, xmp(attributes=" ".join(f'dc:a{n}="1"' for n in range(60_000))))),
    ),
    "character references": (
        "PNG",
        lambda: png(itxt(XMP_KEY, xmp(f"<dc:description>{'&#65;' * 190_000}</dc:description>"))),
    ),
    "packets behind packets": ("JPEG", lambda: jpeg(behind=xmp_segment(xmp()) * 14_000)),
    "beginnings of packets": ("JPEG", lambda: jpeg(behind=b"<x:xmpmeta " * 900_000)),
    "a credit of many words": (
        "JPEG",
        lambda: jpeg(xmp_segment(xmp(attributes=f'photoshop:Credit="{"made with " * 6_000}"'))),
    ),
    "blank lines": ("PNG", lambda: text_png(parameters="\n" * 500_000 + "Steps: 1, CFG")),
    "lists in JSON": ("PNG", lambda: text_png(prompt='{"a":' + "[" * 1_000_000)),
    "objects in JSON": ("PNG", lambda: text_png(prompt=json.dumps({str(n): {} for n in range(80_000)}))),
    "a label without an end": ("PNG", lambda: text_png(AIGC='{"Label"' * 100_000)),
    "empty chunks": ("PNG", lambda: png(*[chunk(b"aaaa", b"")] * 800_000)),
    "fill bytes": ("JPEG", lambda: b"\xff\xd8" + b"\xff" * 10_000_000),
    "empty segments": ("JPEG", lambda: b"\xff\xd8" + segment(0xE1, b"") * 2_000_000),
    "empty RIFF chunks": ("WEBP", lambda: MAGIC["WEBP"] + b"XMP \0\0\0\0" * 1_200_000),
    "empty boxes": ("AVIF", lambda: b"\0\0\0\x08free" * 1_200_000),
    "one EXIF value 512 times": (
        "PNG",
        lambda: png(
            chunk(
                b"eXIf", b"II*\0\x08\0\0\0\xff\xff" + struct.pack("<HHII", 0x9286, 7, 900_000, 0) * 512 + bytes(900_000)
            )
        ),
    ),
    "image resources": (
        "JPEG",
        lambda: jpeg(*[segment(0xED, b"Photoshop 3.0\0" + b"8BIM\4\5" + bytes(6)) for _ in range(900)]),
    ),
    "datasets": ("JPEG", lambda: jpeg(*[segment(0xED, b"Photoshop 3.0\0" + iim(*[(110, b"")] * 12_000))] * 15)),
    "boxes in boxes": ("PNG", lambda: png(chunk(b"caBX", nested(100_000)))),
    "many boxes": ("PNG", lambda: png(chunk(b"caBX", jumbf(jumbf(*[box(b"free", b"")] * 110_000))))),
    "many manifests": (
        "PNG",
        lambda: png(chunk(b"caBX", jumbf(*[jumbf(label=b"urn:c2pa:%d" % n) for n in range(9_000)]))),
    ),
    "depth in CBOR": ("PNG", lambda: png(chunk(b"caBX", jumbf(jumbf(CBOR, label=b"urn:c2pa:x"))))),
    "a CBOR length": (
        "PNG",
        lambda: png(chunk(b"caBX", jumbf(jumbf(jumbf(box(b"cbor", b"\x9b" + b"\x7f" * 8), label=b"c2pa.claim"))))),
    ),
    "a box length": ("PNG", lambda: png(chunk(b"caBX", struct.pack(">I4sQ", 1, b"jumb", 1 << 62)))),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_costs_neither_a_second_nor_50_mb(name: str) -> None:
    kind, make = HOSTILE[name]
    data = make()
    started = time.perf_counter()
    READER.read(kind, data)
    assert time.perf_counter() - started < SECONDS
    tracemalloc.start()
    try:
        READER.read(kind, data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < BYTES


def test_native_memory_stays_in_bounds_too(tmp_path: Path) -> None:
    """What the manifest reader takes is seen by the system alone, so a process of its own reads the files."""
    for number, name in enumerate(HOSTILE):
        kind, make = HOSTILE[name]
        (tmp_path / f"{number:03}.{kind}").write_bytes(make())
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from detector.provenance.reading import FileReader\n"
        "reader, peak = FileReader(), lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    data = path.read_bytes(); before = peak(); reader.read(path.suffix[1:], data)\n"
        "    print(path.stem, peak() - before)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    lines = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    ).stdout.splitlines()
    grown = {int(stem): int(kilobytes) for stem, kilobytes in (line.split() for line in lines)}
    assert len(grown) == len(HOSTILE)
    assert max(grown.values()) * 1024 < BYTES


def test_a_long_chain_of_signed_manifests_is_read_in_time(maker: Signing, reader: FileReader) -> None:
    photo = encoded(make_photo(64, 64))
    signed = sign(photo, maker, [created("digitalCapture")])
    for _ in range(60):
        signed = sign(signed, maker, [opened()], parent=signed)
    started = time.perf_counter()
    (finding,) = reader.read("JPEG", signed)
    assert time.perf_counter() - started < SECONDS
    assert finding.claim == "none"  # farther back than is followed


@pytest.fixture(scope="module")
def samples() -> list[tuple[str, bytes]]:
    return list(every().values())


patient = settings(
    deadline=timedelta(seconds=SECONDS), max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@seed(9)
@patient
@given(st.sampled_from(KINDS), st.binary(max_size=2_000))
def test_any_bytes_are_read(kind: str, junk: bytes) -> None:
    READER.read(kind, MAGIC[kind] + junk)
    READER.read(kind, junk)


@seed(9)
@patient
@given(st.data())
def test_any_damage_to_any_sample_is_survived(samples: list[tuple[str, bytes]], data: st.DataObject) -> None:
    kind, sample = data.draw(st.sampled_from(samples))
    start = data.draw(st.integers(0, len(sample)))
    length = data.draw(st.integers(0, 200))
    READER.read(kind, sample[:start] + data.draw(st.binary(max_size=64)) + sample[start + length :])


@seed(9)
@patient
@given(st.data())
def test_any_beginning_of_any_sample_is_read(samples: list[tuple[str, bytes]], data: st.DataObject) -> None:
    kind, sample = data.draw(st.sampled_from(samples))
    READER.read(kind, sample[: data.draw(st.integers(0, len(sample)))])


@seed(9)
@patient
@given(st.dictionaries(st.integers(0x0100, 0xFFFF), st.text(max_size=50), max_size=8))
def test_any_exif_text_is_read(tags: dict[int, str]) -> None:
    allowed = {tag: text for tag, text in tags.items() if tag in (0x010E, 0x010F, 0x0110, 0x0131, 0x013B)}
    READER.read("JPEG", jpeg(segment(0xE1, exif(allowed))))


@pytest.mark.parametrize("kind", KINDS)
def test_a_photo_without_metadata_says_nothing(kind: str) -> None:
    assert READER.read(kind, encoded(make_photo(96, 64), kind)) == ()


def test_blocks_over_the_limit_are_dropped_and_named() -> None:
    found = collect("PNG", png(itxt(XMP_KEY, xmp() * 300)), 65_536)
    assert (found.xmp, found.dropped) == ([], {"xmp"})
