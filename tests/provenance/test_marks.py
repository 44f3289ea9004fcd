"""EXIF, IPTC, PNG texts, TC260 and Samsung's record: each program by the shape of what it writes."""

import html
import json
import struct
import zlib

import pytest

from detector.provenance.reading import FileReader
from detector.schema import Finding
from tests.provenance.samples import (
    A1111,
    CAMERA,
    COMFY,
    TC260,
    chunk,
    comfy_png,
    exif,
    exif_jpeg,
    iim,
    jpeg,
    png,
    segment,
    text_png,
    webp,
    xmp,
    xmp_segment,
)

READER, ASKING = FileReader(), FileReader(prompts=True)
NOVELAI = json.dumps({"prompt": "a chair", "steps": 28, "sampler": "k_euler", "uc": "blurry"})


def only(findings: tuple[Finding, ...]) -> Finding:
    (finding,) = findings
    return finding


@pytest.mark.parametrize(
    ("data", "detail", "generator"),
    [
        (text_png(parameters=A1111), "A1111: parameters", "A1111, sd_xl_base_1.0"),
        (text_png(prompt=json.dumps(COMFY)), "ComfyUI: prompt", "ComfyUI, m"),
        (comfy_png(), "ComfyUI: prompt", "ComfyUI, m"),
        (text_png(invokeai_metadata='{"positive_prompt": "a chair"}'), "InvokeAI: invokeai_metadata", "InvokeAI"),
        (text_png(sd_metadata="{}"), "InvokeAI: sd-metadata", "InvokeAI"),
        (text_png(Dream='"a chair" -s 50 -S 1'), "InvokeAI: Dream", "InvokeAI"),
        (text_png(fooocus_scheme="fooocus", parameters="{}"), "Fooocus: fooocus_scheme", "Fooocus"),
        (text_png(parameters='{"sui_image_params": {"model": "m"}}'), "SwarmUI: parameters", "SwarmUI, m"),
        (text_png(Comment=NOVELAI), "NovelAI: Comment", "NovelAI"),
        (text_png(Software="NovelAI"), "NovelAI: Software", "NovelAI"),
        (text_png(Source="Luma AI"), "Luma AI: Source", "Luma AI"),
        (
            text_png(Description="chair --v 7 Job ID: fbe07e45-a133-41c8-ab87-1c29e714412e"),
            "Midjourney: Description",
            "Midjourney",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_program_is_told_by_its_text(data: bytes, detail: str, generator: str) -> None:
    finding = only(READER.read("PNG", data))
    assert (finding.source, finding.claim) == ("png_text", "generated")
    assert (finding.detail, finding.generator, finding.prompt) == (detail, generator, None)


@pytest.mark.parametrize(
    "data",
    [
        text_png(prompt="paint me a chair"),
        text_png(prompt=json.dumps({"a": {"b": 1}})),
        text_png(workflow=json.dumps({"nodes": 3})),
        text_png(parameters="Steps: take the second door"),
        text_png(Comment=json.dumps({"steps": 3})),
        text_png(Description="a firefly beside Gemini, flux and imagen"),
        text_png(Title="Midjourney", Author="Leonardo"),
        text_png(Software="Adobe Photoshop"),
    ],
)
def test_a_word_or_a_key_alone_is_no_evidence(data: bytes) -> None:
    assert READER.read("PNG", data) == ()


@pytest.mark.parametrize(
    ("data", "prompt"),
    [
        (text_png(parameters=A1111), "a chair"),
        (text_png(Comment=NOVELAI), "a chair"),
        (text_png(invokeai_metadata='{"positive_prompt": "a chair"}'), "a chair"),
    ],
)
def test_a_prompt_is_reported_only_where_configured(data: bytes, prompt: str) -> None:
    assert only(ASKING.read("PNG", data)).prompt == prompt
    assert only(READER.read("PNG", data)).prompt is None


@pytest.mark.parametrize("charset", ["UNICODE big", "UNICODE little", "ASCII", "none"])
def test_settings_are_read_from_an_exif_comment(charset: str) -> None:
    comment = {
        "UNICODE big": b"UNICODE\0" + A1111.encode("utf-16-be"),
        "UNICODE little": b"UNICODE\0" + A1111.encode("utf-16-le"),
        "ASCII": b"ASCII\0\0\0" + A1111.encode(),
        "none": A1111.encode(),
    }[charset]
    finding = only(READER.read("JPEG", exif_jpeg({}, {0x9286: comment})))
    assert (finding.source, finding.generator) == ("exif", "A1111, sd_xl_base_1.0")


def test_settings_are_read_from_a_jpeg_comment() -> None:
    assert only(READER.read("JPEG", jpeg(segment(0xFE, A1111.encode())))).generator == "A1111, sd_xl_base_1.0"


def test_a_workflow_in_exif_is_read_and_taken_for_no_camera() -> None:
    made = exif({0x010F: "workflow:" + json.dumps({"nodes": [], "links": []}), 0x0110: "prompt:" + json.dumps(COMFY)})
    assert only(READER.read("WEBP", webp((b"EXIF", made)))).generator == "ComfyUI"


@pytest.mark.parametrize(
    ("tags", "vendor"),
    [
        ({0x010E: "Signature: " + "Ab1+" * 20, 0x013B: "fbe07e45-a133-41c8-ab87-1c29e714412e"}, "xAI"),
        ({0x010F: "Ideogram AI"}, "Ideogram"),
        ({0x0131: "NovelAI"}, "NovelAI"),
        ({0x0131: "Midjourney"}, "Midjourney"),
    ],
)
def test_a_generator_is_told_by_its_exif_mark(tags: dict[int, str], vendor: str) -> None:
    finding = only(READER.read("JPEG", exif_jpeg(tags)))
    assert (finding.source, finding.claim, finding.vendor) == ("exif", "generated", vendor)


@pytest.mark.parametrize(
    "tags",
    [{0x010E: "Signature: short"}, {0x010E: "a photo by Midjourney fans"}, {0x013B: "Leonardo"}, {0x0131: "GIMP 3.0"}],
)
def test_an_ordinary_exif_text_is_no_mark(tags: dict[int, str]) -> None:
    assert READER.read("JPEG", exif_jpeg(tags)) == ()


def test_a_camera_that_tells_of_its_exposure_claims_a_capture() -> None:
    finding = only(READER.read("JPEG", exif_jpeg(*CAMERA)))
    assert (finding.claim, finding.device) == ("captured", "NIKON D3000")


def test_a_make_alone_claims_nothing() -> None:
    finding = only(READER.read("JPEG", exif_jpeg({0x010F: "Canon", 0x0110: "EOS R5"})))
    assert (finding.claim, finding.device) == ("none", "Canon EOS R5")


def test_another_maker_s_note_ends_the_claim() -> None:
    tags, inner = CAMERA
    finding = only(READER.read("JPEG", exif_jpeg(tags, inner | {0x927C: b"Apple iOS\0\0\1MM"})))
    assert finding.claim == "none"
    assert "maker note of apple" in finding.detail


@pytest.mark.parametrize(
    ("field", "claim"),
    [
        ((110, b"Made with Google AI"), "generated"),
        ((110, b"AI Generated"), "generated"),
        ((110, b"Edited with Google AI"), "generative_edit"),
        ((115, b"Luma AI"), "generated"),
        ((65, b"Adobe Firefly"), "generated"),
    ],
)
@pytest.mark.parametrize("container", ["JPEG", "PNG"])
def test_a_credit_is_read_from_iptc(container: str, field: tuple[int, bytes], claim: str) -> None:
    resource = iim((120, b"a caption"), field)
    profile = b"\niptc\n%8d\n%s\n" % (len(resource), resource.hex().encode())
    data = {
        "JPEG": jpeg(segment(0xED, b"Photoshop 3.0\0" + resource)),
        "PNG": png(chunk(b"zTXt", b"Raw profile type iptc\0\0" + zlib.compress(profile))),
    }[container]
    finding = only(READER.read(container, data))
    assert (finding.source, finding.claim) == ("iptc", claim)


def test_a_caption_with_the_same_words_is_no_credit() -> None:
    resource = iim((120, b"Made with Google AI"), (110, b"Photo: A. I. Generated, courtesy of Gemini Studios"))
    assert READER.read("JPEG", jpeg(segment(0xED, b"Photoshop 3.0\0" + resource))) == ()


LABEL = json.dumps(TC260)
INNER = json.dumps(TC260["AIGC"])
TC260_FILES = {
    "PNG text": ("PNG", text_png(AIGC=LABEL)),
    "PNG text, bare": ("PNG", text_png(AIGC=INNER)),
    "EXIF comment": ("JPEG", exif_jpeg({}, {0x9286: b"ASCII\0\0\0" + LABEL.encode()})),
    "EXIF description": ("JPEG", exif_jpeg({0x010E: LABEL})),
    "XMP element": ("JPEG", jpeg(xmp_segment(xmp(f"<TC260:AIGC>{html.escape(INNER)}</TC260:AIGC>")))),
    "XMP attribute": ("JPEG", jpeg(xmp_segment(xmp(attributes=f'TC260:AIGC="{html.escape(INNER)}"')))),
    "XMP, escaped twice": (
        "JPEG",
        jpeg(xmp_segment(xmp(f"<TC260:AIGC>{html.escape(html.escape(INNER))}</TC260:AIGC>"))),
    ),
}


@pytest.mark.parametrize("place", TC260_FILES)
def test_china_s_label_is_read(place: str) -> None:
    finding = only(READER.read(*TC260_FILES[place]))
    assert (finding.source, finding.claim, finding.lacking) == ("tc260", "generated", ())
    assert finding.generator == "producer 00119111010500000000"


@pytest.mark.parametrize(("label", "words"), [("1", "1: generated"), ("2", "2: possibly"), ("3", "3: suspected")])
def test_the_label_s_strength_is_told(label: str, words: str) -> None:
    finding = only(READER.read("PNG", text_png(AIGC=json.dumps({"AIGC": {"Label": label}}))))
    assert words in finding.detail
    assert finding.lacking == ("ContentProducer", "ProduceID")


@pytest.mark.parametrize("text", ['{"AIGC": {"Label": "7"}}', '{"AIGC": {}}', "AIGC", '{"Label": "1"', '"Label"}'])
def test_what_is_no_label_yields_nothing(text: str) -> None:
    assert READER.read("PNG", text_png(AIGC=text)) == ()


@pytest.mark.parametrize(
    ("kind", "edited"), [(b'"genAIType":3', True), (b'"genAIType" : "5"', True), (b'"genAIType":0', False)]
)
def test_samsung_s_record_tells_of_a_generative_edit(kind: bytes, edited: bool) -> None:
    findings = READER.read("JPEG", jpeg(behind=b"PhotoEditor_Re_Edit_Data{" + kind + b"}SEFT"))
    assert [finding.claim for finding in findings] == ["generative_edit"] * edited


def test_shown_text_is_one_short_line_without_hidden_marks() -> None:
    name = "Adobe Firefly\u202e\x07\n" + "x" * 5_000
    finding = only(READER.read("JPEG", exif_jpeg({0x0131: name})))
    assert finding.generator
    assert len(finding.generator) <= 160
    assert finding.generator.isprintable()


def test_a_directory_that_points_at_itself_ends() -> None:
    entries = struct.pack("<HHHII", 1, 0x8769, 4, 1, 8)
    assert READER.read("JPEG", jpeg(segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0" + entries))) == ()
