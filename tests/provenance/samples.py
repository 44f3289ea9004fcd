"""Small files of every container, with every kind of metadata; made here, or signed here.

Run as a module it writes them out for the fuzzer: the containers in its order, and a folder.
"""

import json
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.conftest import encoded, make_photo
from tests.provenance import signing

TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
A1111 = "a chair\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Model: sd_xl_base_1.0"
COMFY = {"3": {"class_type": "KSampler", "inputs": {"seed": 1}}, "4": {"class_type": "L", "inputs": {"ckpt_name": "m"}}}
TC260 = {
    "AIGC": {"Label": "1", "ContentProducer": "00119111010500000000", "ProduceID": "20260101", "ReservedCode1": "9f"}
}
XMP_PREFIX = b"http://ns.adobe.com/xap/1.0/\0"


def xmp(inner: str = "", attributes: str = "", namespaces: str = "") -> bytes:
    """A packet; inner elements and attributes stand in one rdf:Description."""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:dc="http://purl.org/dc/elements/1.1/" '
        'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" '
        'xmlns:dcterms="http://purl.org/dc/terms/" xmlns:TC260="http://www.tc260.org.cn/ns/AIGC/1.0/" '
        f"{namespaces} {attributes}>{inner}</rdf:Description></rdf:RDF></x:xmpmeta>"
        '<?xpacket end="w"?>'
    ).encode()


def typed(term: str, **more: str) -> bytes:
    """A packet with a digital source type in full and further attributes (`photoshop_Credit`)."""
    attributes = {"Iptc4xmpExt:DigitalSourceType": TYPES + term}
    attributes |= {name.replace("_", ":"): value for name, value in more.items()}
    return xmp(attributes=" ".join(f'{name}="{value}"' for name, value in attributes.items()))


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def jpeg(*segments: bytes, behind: bytes = b"", photo: Image.Image | None = None) -> bytes:
    """A JPEG with segments right behind its first marker, and bytes behind its end."""
    plain = encoded(photo or make_photo(96, 64))
    return plain[:2] + b"".join(segments) + plain[2:] + behind


def xmp_segment(packet: bytes) -> bytes:
    return segment(0xE1, XMP_PREFIX + packet)


def extended_xmp(packet: bytes, parts: int = 2) -> bytes:
    """Extension segments in the wrong order, as the specification allows."""
    size = -(-len(packet) // parts)
    heads = [(at, packet[at : at + size]) for at in range(0, len(packet), size)]
    prefix = b"http://ns.adobe.com/xmp/extension/\0" + b"0123456789ABCDEF" * 2
    made = [segment(0xE1, prefix + struct.pack(">II", len(packet), at) + part) for at, part in heads]
    return b"".join(reversed(made))


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*chunks: bytes, late: bool = False) -> bytes:
    """A PNG with chunks before its picture, or behind it."""
    plain = encoded(make_photo(96, 64), "PNG")
    at = len(plain) - 12 if late else 33
    return plain[:at] + b"".join(chunks) + plain[at:]


def text_png(**texts: str) -> bytes:
    info = PngInfo()
    for key, text in texts.items():
        info.add_text(key.replace("_", "-") if key == "sd_metadata" else key, text)
    return encoded(make_photo(96, 64), "PNG", pnginfo=info)


def itxt(key: bytes, text: bytes, packed: bool = False) -> bytes:
    body = zlib.compress(text) if packed else text
    return chunk(b"iTXt", key + b"\0" + bytes([packed, 0]) + b"\0\0" + body)


def webp(*chunks: tuple[bytes, bytes]) -> bytes:
    """An extended WebP with chunks at its end."""
    plain = encoded(make_photo(96, 64), "WEBP", exif=exif({0x010F: "x"}))
    body = plain[8:]
    for kind, data in chunks:
        body += kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def exif(tags: dict[int, Any], inner: dict[int, Any] | None = None) -> bytes:
    """Exif with its prefix; inner tags stand in the Exif IFD."""
    made = Image.Exif()
    made.update(tags)
    if inner:
        made.get_ifd(0x8769).update(inner)
    return made.tobytes()


CAMERA = ({0x010F: "NIKON CORPORATION", 0x0110: "NIKON D3000"}, {0x829A: 0.01, 0x829D: 5.6, 0x8827: 200, 0x920A: 35.0})


def exif_jpeg(tags: dict[int, Any], inner: dict[int, Any] | None = None) -> bytes:
    return jpeg(segment(0xE1, exif(tags, inner)))


def iim(*fields: tuple[int, bytes]) -> bytes:
    """A run of image resources with one IIM resource of record 2."""
    records = b"".join(b"\x1c\x02" + bytes([number]) + struct.pack(">H", len(text)) + text for number, text in fields)
    return b"8BIM\x04\x04\0\0" + struct.pack(">I", len(records)) + records + b"\0" * (len(records) % 2)


def comfy_png() -> bytes:
    return text_png(prompt=json.dumps(COMFY), workflow=json.dumps({"nodes": [], "links": [], "last_node_id": 4}))


def every() -> dict[str, tuple[str, bytes]]:
    """name -> (container, file), to start a search for hostile ones from."""
    authority = signing.Authority("Seeds")
    maker = authority.issue("Maker")
    actions = [signing.created("trainedAlgorithmicMedia", softwareAgent="gpt-image")]
    plain = {kind: encoded(make_photo(32, 32), kind) for kind in ("JPEG", "PNG", "WEBP", "AVIF")}
    signed = {f"signed-{kind}": (kind, signing.sign(data, maker, actions, kind)) for kind, data in plain.items()}
    parent = signed["signed-JPEG"][1]
    edited = signing.sign(parent, maker, [signing.opened()], parent=parent)
    packet = typed("trainedAlgorithmicMedia", photoshop_Credit="Made with Google AI")
    tc260 = json.dumps(TC260)
    return signed | {
        "edited": ("JPEG", edited),
        "xmp": ("JPEG", jpeg(xmp_segment(packet), behind=xmp_segment(packet))),
        "extended": ("JPEG", jpeg(extended_xmp(packet))),
        "iptc": ("JPEG", jpeg(segment(0xED, b"Photoshop 3.0\0" + iim((110, b"AI Generated"))))),
        "camera": ("JPEG", exif_jpeg(*CAMERA)),
        "comment": ("JPEG", exif_jpeg({}, {0x9286: b"UNICODE\0" + A1111.encode("utf-16-be")})),
        "tc260": ("JPEG", exif_jpeg({0x010E: tc260})),
        "samsung": ("JPEG", jpeg(behind=b'PhotoEditor_Re_Edit_Data{"genAIType":3}SEFT')),
        "a1111": ("PNG", text_png(parameters=A1111)),
        "comfy": ("PNG", comfy_png()),
        "packed": ("PNG", png(itxt(b"XML:com.adobe.xmp", packet, packed=True), late=True)),
        "aigc": ("PNG", text_png(AIGC=tc260)),
        "webp": ("WEBP", webp((b"XMP ", packet))),
        "avif": ("AVIF", encoded(make_photo(32, 32), "AVIF", xmp=packet, exif=exif(*CAMERA))),
    }


if __name__ == "__main__":
    *kinds, folder = sys.argv[1:]
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, (kind, data) in every().items():
        (Path(folder) / name).write_bytes(bytes([kinds.index(kind)]) + data)
