"""Every row of the table of original files comes out right; skipped where the files are not at hand."""

import re

import pytest

from detector.provenance.judge import judge
from detector.provenance.reading import FileReader
from detector.schema import Finding
from tests.provenance.conftest import originals, table

ROWS = table()
READER = FileReader()  # no trust list, so that nothing here hangs on which roots a machine has
VENDORS = (
    (r"gemini|imagen-4|google", "Google"),
    (r"flux", "Black Forest Labs"),
    (r"gpt-image|dall-e", "OpenAI"),
    (r"firefly", "Adobe"),
    (r"titan", "Amazon"),
    (r"midjourney", "Midjourney"),
    (r"cogview|z\.ai", "Zhipu"),
)
DEVICES = {
    "d991e0ffd9": "SAMSUNG SCH-I405",
    "7995ae1191": "NIKON D3000",
    "7ab388e7ea": "Apple iPhone 17",
    "24a1149eac": "Apple iPhone 17",
    "d657ba6daf": "Google Pixel 10 Pro",
}
needs_originals = pytest.mark.skipif(not ROWS, reason="the original files are not on this machine")


def read(row: dict[str, str]) -> tuple[Finding, ...]:
    folder = originals()
    assert folder
    data = (folder / row["file"]).read_bytes()
    return READER.read("JPEG" if data.startswith(b"\xff\xd8") else "PNG", data)


def sources(carries: str, notes: str) -> set[str]:
    """What the readers must find for the words of the table's second column."""
    found = {"c2pa"} if "c2pa" in carries else set()
    if "xmp" in carries or carries == "iptc" or "c2pa+iptc (C2PA Google Generative AI; credit" in notes:
        found.add("xmp")
    if "credit" in carries or carries == "iptc" or "credit" in notes:
        found.add("iptc")
    if carries in ("a1111", "comfyui") or "png text" in carries:
        found.add("png_text")
    if "tc260" in carries or "TC260" in notes:
        found.add("tc260")
    elif "exif" in carries:
        found.add("exif")
    return found


@needs_originals
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["file"][:10])
def test_a_row_is_read_for_what_it_carries(row: dict[str, str]) -> None:
    carries = row["carries"]
    findings = read(row)
    evidence = judge(findings)
    expected = "captured" if not row["generator"] else "partly_generated" if "composite" in carries else "generated"
    assert evidence.claim == expected
    assert evidence.standing == ("intact" if "c2pa" in carries else "unsigned")
    wanted = sources(carries, row["notes"])
    if "Edited with Google AI" in row["evidence"]:
        wanted.discard("iptc")  # this one's credit stands in XMP alone
    assert wanted <= {finding.source for finding in findings}
    assert not evidence.clashes


@needs_originals
@pytest.mark.parametrize("row", [row for row in ROWS if row["generator"]], ids=lambda row: row["file"][:10])
def test_a_generator_s_vendor_is_named_where_the_file_names_it(row: dict[str, str]) -> None:
    vendors = {finding.vendor for finding in read(row) if finding.vendor}
    wanted = {vendor for pattern, vendor in VENDORS if re.search(pattern, row["generator"])}
    says_nothing = {"a1111", "comfyui", "iptc"}  # their records name a file or a program, not a vendor
    if row["carries"] in says_nothing or "mflux" in row["evidence"]:
        assert vendors <= wanted | {"Alibaba", "Stability AI"}
    else:
        assert vendors == wanted


@needs_originals
@pytest.mark.parametrize("row", [row for row in ROWS if not row["generator"]], ids=lambda row: row["file"][:10])
def test_a_camera_is_named(row: dict[str, str]) -> None:
    findings = {finding.source: finding for finding in read(row)}
    assert findings["exif"].device == DEVICES[row["file"][:10]]
    if "c2pa" in row["carries"]:
        assert findings["c2pa"].device == "Pixel Camera"


@needs_originals
@pytest.mark.parametrize("row", [row for row in ROWS if "c2pa" in row["carries"]], ids=lambda row: row["file"][:10])
def test_a_signature_holds_is_dated_and_not_trusted_without_a_list(row: dict[str, str]) -> None:
    signature = next(finding.signature for finding in read(row) if finding.source == "c2pa")
    assert signature
    assert signature.intact
    assert not signature.trusted
    assert "signingCredential.untrusted" in signature.problems
    assert re.match(r"202[456]-\d\d-\d\dT", signature.time or "")


@needs_originals
@pytest.mark.parametrize("row", [row for row in ROWS if "c2pa" in row["carries"]], ids=lambda row: row["file"][:10])
def test_one_changed_byte_of_the_picture_breaks_the_signature(row: dict[str, str]) -> None:
    folder = originals()
    assert folder
    data = bytearray((folder / row["file"]).read_bytes())
    data[-1000] ^= 1  # behind every manifest
    findings = READER.read("JPEG" if data.startswith(b"\xff\xd8") else "PNG", bytes(data))
    signature = next(finding.signature for finding in findings if finding.source == "c2pa")
    assert signature
    assert not signature.intact
    assert [clash.kind for clash in judge(findings).clashes] == ["pixels_changed"]
