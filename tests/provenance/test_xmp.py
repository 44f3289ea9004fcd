"""XMP is found wherever it sits, read in every spelling, and expands nothing."""

import struct

import pytest
from hypothesis import given, seed
from hypothesis import strategies as st

from detector.provenance import xmp
from detector.provenance.reading import FileReader
from detector.schema import Finding
from tests.conftest import encoded, make_photo
from tests.provenance.samples import (
    TYPES,
    chunk,
    extended_xmp,
    itxt,
    jpeg,
    png,
    segment,
    typed,
    webp,
    xmp_segment,
)
from tests.provenance.samples import xmp as packet

READER = FileReader()
GENERATED = typed("trainedAlgorithmicMedia")
SCAN = encoded(make_photo(64, 64))


def only(findings: tuple[Finding, ...]) -> Finding:
    (finding,) = findings
    return finding


def read(data: bytes, prompts: bool = False) -> list[Finding]:
    return xmp.read(xmp.parse([data]), prompts)


PLACES = {
    "JPEG header": ("JPEG", jpeg(xmp_segment(GENERATED))),
    "JPEG behind megabytes": ("JPEG", jpeg(*[segment(0xEF, bytes(65_000))] * 40, xmp_segment(GENERATED))),
    "JPEG behind the picture": ("JPEG", jpeg(behind=bytes(2_000_000) + xmp_segment(GENERATED))),
    "JPEG extended": ("JPEG", jpeg(xmp_segment(packet()), extended_xmp(GENERATED))),
    "JPEG loose": ("JPEG", jpeg(behind=GENERATED)),
    "PNG before": ("PNG", png(itxt(b"XML:com.adobe.xmp", GENERATED))),
    "PNG behind": ("PNG", png(itxt(b"XML:com.adobe.xmp", GENERATED), late=True)),
    "PNG compressed": ("PNG", png(itxt(b"XML:com.adobe.xmp", GENERATED, packed=True))),
    "PNG tEXt": ("PNG", png(chunk(b"tEXt", b"XML:com.adobe.xmp\0" + GENERATED))),
    "WebP": ("WEBP", webp((b"XMP ", GENERATED))),
    "AVIF": ("AVIF", encoded(make_photo(64, 64), "AVIF", xmp=GENERATED)),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_packet_is_found(place: str) -> None:
    finding = only(READER.read(*PLACES[place]))
    assert (finding.source, finding.claim) == ("xmp", "generated")


def test_a_packet_between_two_scans_is_found() -> None:
    progressive = encoded(make_photo(96, 64), progressive=True)
    at = progressive.index(b"\xff\xc4", progressive.index(b"\xff\xda"))
    finding = only(READER.read("JPEG", progressive[:at] + xmp_segment(GENERATED) + progressive[at:]))
    assert finding.claim == "generated"


@pytest.mark.parametrize(
    ("data", "claim"),
    [
        (packet(attributes='Iptc4xmpExt:DigitalSourceType="TrainedAlgorithmicMedia"'), "generated"),
        (
            packet(f"<Iptc4xmpExt:DigitalSourceType>{TYPES}trainedAlgorithmicMedia</Iptc4xmpExt:DigitalSourceType>"),
            "generated",
        ),
        (packet(f'<Iptc4xmpExt:DigitalSourceType rdf:resource="{TYPES}trainedAlgorithmicMedia"/>'), "generated"),
        (
            packet("<Iptc4xmpExt:DigitalSourceType>trained Algorithmic Media </Iptc4xmpExt:DigitalSourceType>"),
            "generated",
        ),
        (GENERATED.decode().encode("utf-16"), "generated"),
        (typed("compositeWithTrainedAlgorithmicMedia"), "partly_generated"),
        (typed("compositeSynthetic"), "partly_generated"),
        (typed("algorithmicallyEnhanced"), "enhanced"),
        (typed("digitalCapture"), "captured"),
        (packet(attributes='photoshop:Credit="Made with Google AI"'), "generated"),
        (packet(attributes='photoshop:Credit="Edited with Google AI"'), "generative_edit"),
        (packet(attributes='xmp:CreatorTool="Adobe Firefly"'), "generated"),
        (packet(attributes='Iptc4xmpExt:AISystemUsed="Some System"'), "generated"),
    ],
)
def test_a_claim_is_read(data: bytes, claim: str) -> None:
    assert only(tuple(read(data))).claim == claim


@pytest.mark.parametrize(
    "data",
    [
        typed("algorithmicMedia"),
        typed("digitalArt"),
        packet(attributes='xmp:CreatorTool="Adobe Photoshop 26.1"'),
        packet(attributes='photoshop:Credit="Leonardo Flux, Imagen Photos"'),
        packet(attributes='photoshop:Credit="OpenAI"'),
        packet(attributes='photoshop:Source="Gemini Studios"'),
        packet(attributes='photoshop:Credit="Sora Kling"'),
        packet(
            "<dc:description><rdf:Alt><rdf:li>Gemini, a firefly by Midjourney Lane</rdf:li></rdf:Alt></dc:description>"
        ),
        b"",
        b"<x:xmpmeta",
    ],
)
def test_what_is_no_claim_yields_nothing(data: bytes) -> None:
    assert read(data) == []


def test_a_type_and_a_credit_of_another_meaning_are_two_findings() -> None:
    found = read(typed("digitalCapture", photoshop_Credit="Made with Google AI"))
    assert [(one.claim, one.vendor) for one in found] == [("captured", None), ("generated", "Google")]


def test_the_ai_fields_of_iptc_2025_name_the_generator_and_the_prompt_only_if_asked() -> None:
    data = typed(
        "trainedAlgorithmicMedia",
        Iptc4xmpExt_AISystemUsed="Gemini",
        Iptc4xmpExt_AISystemVersionUsed="3",
        Iptc4xmpExt_AIPromptInformation="a red chair",
    )
    (plain,), (asked,) = read(data), read(data, prompts=True)
    assert (plain.vendor, plain.generator, plain.prompt) == ("Google", "Gemini 3", None)
    assert asked.prompt == "a red chair"


def test_no_entity_is_expanded() -> None:
    lols = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 9))
    bomb = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY l0 "lol">{lols}]>'.encode()
    body = packet("<dc:description>&l8;</dc:description>", 'Iptc4xmpExt:DigitalSourceType="trainedAlgorithmicMedia"')
    assert xmp.parse([bomb + body[body.index(b"<x:xmpmeta") :]]) == {}


def test_no_file_is_read_for_an_external_entity(tmp_path: pytest.TempPathFactory) -> None:
    outside = f'<!DOCTYPE x [<!ENTITY f SYSTEM "file://{__file__}">]>'.encode()
    body = packet("<dc:description>&f;</dc:description>")
    assert xmp.parse([outside + body[body.index(b"<x:xmpmeta") :]]) == {}


def test_what_stood_before_a_break_counts() -> None:
    assert only(tuple(read(GENERATED[: GENERATED.index(b"</rdf:Description")]))).claim == "generated"


def test_elements_are_counted_over_all_packets() -> None:
    filler = packet("<dc:a>x</dc:a>" * xmp.MAX_ELEMENTS)
    assert xmp.read(xmp.parse([filler, GENERATED]), False) == []
    assert only(tuple(xmp.read(xmp.parse([GENERATED, filler]), False))).claim == "generated"


@seed(9)
@given(st.binary(max_size=300), st.integers(0, len(GENERATED)))
def test_any_damage_to_a_packet_is_survived(junk: bytes, at: int) -> None:
    xmp.read(xmp.parse([GENERATED[:at] + junk + GENERATED[at:]]), True)


def test_a_chunk_that_claims_a_gigabyte_is_cut_at_the_file_s_end() -> None:
    claimed = b"RIFF\0\0\0\0WEBPXMP " + struct.pack("<I", 1 << 30) + GENERATED
    assert only(READER.read("WEBP", claimed)).claim == "generated"
