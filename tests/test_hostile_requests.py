"""Hostile uploads and requests against the real service: none is a 5xx, hangs, or leaves memory behind.

What is judged here is calm alone; the right refusal of ordinary mistakes is tests/test_service.py's.
"""

import json
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import httpx
import psutil
import pytest
from PIL import Image

from detector import keyring
from tests import serving
from tests.conftest import encoded, make_photo

MOST_SECONDS = 10.0
MOST_GROWTH = 100 * 1024 * 1024  # bytes
FORM = b"Content-Type: multipart/form-data; boundary=b\r\n"
PHOTO = encoded(make_photo())
PNG = encoded(make_photo(), "PNG")
WEBP = encoded(make_photo(), "WEBP")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def jpeg_of_size(width: int, height: int) -> bytes:
    """A photo whose header claims another size."""
    at = next(place for place in range(len(PHOTO)) if PHOTO[place : place + 2] in (b"\xff\xc0", b"\xff\xc2"))
    return PHOTO[: at + 5] + struct.pack(">HH", height, width) + PHOTO[at + 9 :]


def animation(frames: int) -> bytes:
    pictures = [Image.new("RGB", (64, 64), (index % 256, 0, 0)) for index in range(frames)]
    out = BytesIO()
    pictures[0].save(out, "WEBP", save_all=True, append_images=pictures[1:], duration=1)
    return out.getvalue()


def exif(size: int) -> bytes:
    """A photo with an EXIF block that leads in circles."""
    loop = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, 0x8769, 4, 1, 8, 8) + bytes(size)
    return PHOTO[:2] + b"\xff\xe1" + struct.pack(">H", len(loop) + 2) + loop + PHOTO[2:]


GREY = chunk(b"IDAT", zlib.compress(bytes(12_352)))  # 64 x 64
LARGEST = encoded(Image.new("RGB", (7000, 7000), "grey"), "PNG")
ZEROS = zlib.compress(bytes(200_000_000), 9)  # 200 MB in 200 KB
FILES: dict[str, bytes] = {
    "one byte": b"\xff",
    "zeros": bytes(100_000),
    "JPEG marker alone": b"\xff\xd8\xff",
    "JPEG cut in its header": PHOTO[:150],
    "JPEG cut in the middle": PHOTO[: len(PHOTO) // 2],
    "JPEG with its data flipped": PHOTO[:700] + bytes(byte ^ 0xFF for byte in PHOTO[700:]),
    "JPEG of 65535 x 65535": jpeg_of_size(65_535, 65_535),
    "JPEG of 0 x 0": jpeg_of_size(0, 0),
    "JPEG of 7000 x 7000 without the data": jpeg_of_size(7000, 7000),
    "JPEG with 60000 empty comments": PHOTO[:2] + b"\xff\xfe\0\x02" * 60_000 + PHOTO[2:],
    "JPEG with endless fill": PHOTO[:2] + b"\xff" * 1_000_000 + PHOTO[2:],
    "JPEG with EXIF in circles": exif(4000),
    "JPEG within JPEG": PHOTO[:20] + PHOTO + PHOTO[20:],
    "JPEG before HTML": PHOTO + b"<script>alert(1)</script>" * 1000,
    "JPEG before ZIP": PHOTO + b"PK\x03\x04" + bytes(10_000),
    "PNG signature alone": PNG[:8],
    "PNG cut": PNG[: len(PNG) // 2],
    "PNG of 4 billion pixels": png(65_535, 65_535, chunk(b"IDAT", zlib.compress(b""))),
    "PNG of 2^31 x 1": png(0x7FFFFFFF, 1, chunk(b"IDAT", zlib.compress(b""))),
    "PNG of 0 x 0": png(0, 0, chunk(b"IDAT", zlib.compress(b""))),
    "PNG bomb of pixels": png(7000, 7000, chunk(b"IDAT", ZEROS)),
    "PNG bomb of text": png(64, 64, chunk(b"zTXt", b"Comment\0\0" + ZEROS), GREY),
    "PNG bomb of a profile": png(64, 64, chunk(b"iCCP", b"p\0\0" + ZEROS), GREY),
    "PNG of unknown depth": png(64, 64, GREY, depth=7, colour=9),
    "PNG with a wrong checksum": PNG[:29] + b"\0\0\0\0" + PNG[33:],
    "PNG chunk of 4 GB": PNG[:8] + struct.pack(">I", 0xFFFFFFFF) + b"IDAT" + bytes(1000),
    "PNG with 20000 texts": png(64, 64, *[chunk(b"tEXt", b"k\0v")] * 20_000, GREY),
    "PNG with garbage pixels": png(64, 64, chunk(b"IDAT", b"garbage" * 100)),
    "WebP head alone": WEBP[:12],
    "WebP cut": WEBP[: len(WEBP) // 2],
    "WebP of wrong length": WEBP[:4] + b"\xff\xff\xff\xff" + WEBP[8:],
    "WebP of garbage": WEBP[:20] + b"\xaa" * 5000,
    "WebP of 500 frames": animation(500),
    "GIF": encoded(Image.new("P", (64, 64)), "GIF"),
    "BMP of 2 billion pixels": b"BM" + bytes(16) + struct.pack("<IiiHHI", 40, 46_000, 46_000, 1, 24, 0) + bytes(100),
    "TIFF in circles": b"II*\0\x08\0\0\0" + struct.pack("<H", 0) + struct.pack("<I", 8) + bytes(1000),
    "AVIF head alone": b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miaf" + bytes(1000),
    "SVG that asks for a file": b'<!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;</svg>',
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\nwhile { } loop\n",
    "PDF": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
    "ZIP": b"PK\x05\x06" + bytes(18),
    "pickle": b"\x80\x04\x95\x1a\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
    "ten megabytes of JPEG heads": b"\xff\xd8\xff\xe0" * 2_500_000,
}  # fmt: skip


def part(headers: bytes, data: bytes = b"x") -> bytes:
    return b"--b\r\n" + headers + b"\r\n\r\n" + data + b"\r\n"


def post(body: bytes, *headers: bytes, path: bytes = b"/predict", form: bytes = FORM) -> bytes:
    lines = b"".join(header + b"\r\n" for header in headers)
    return b"POST %s HTTP/1.1\r\nHost: a\r\n%s%sContent-Length: %d\r\n\r\n%s" % (path, form, lines, len(body), body)


def get(path: bytes, *headers: bytes, method: bytes = b"GET") -> bytes:
    return b"%s %s HTTP/1.1\r\nHost: a\r\n%s\r\n" % (method, path, b"".join(header + b"\r\n" for header in headers))


def chunked(*pieces: bytes, path: bytes = b"/predict") -> bytes:
    return b"POST %s HTTP/1.1\r\nHost: a\r\n%sTransfer-Encoding: chunked\r\n\r\n" % (path, FORM) + b"".join(pieces)


IMAGE = b'Content-Disposition: form-data; name="image"; filename="a.jpg"'
WHOLE = part(IMAGE, PHOTO) + b"--b--\r\n"
GARBAGE_TOKEN = b"Authorization: Bearer " + b".".join([b"e30"] * 3)
NONE_TOKEN = b"Authorization: Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0."
DEEP = b"[" * 30_000
REQUESTS: dict[str, bytes] = {
    "no HTTP": b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(200) + b"\r\n\r\n",
    "HTTP of no version": b"GET /health HTTP/9.9\r\nHost: a\r\n\r\n",
    "no Host": b"GET /health HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "endless path": get(b"/" + b"a" * 60_000),
    "endless query": get(b"/health?" + b"a=1&" * 10_000),
    "path out of the folder": get(b"/../../../etc/passwd"),
    "encoded path out of the folder": get(b"/%2e%2e/%2e%2e/etc/passwd"),
    "backslashes": get(b"/..\\..\\windows"),
    "path with a zero": get(b"/health%00.json"),
    "path of broken UTF-8": get(b"/%ff%fe%c0%af"),
    "path with a line break": get(b"/predict%0d%0aX-Evil:1"),
    "two slashes": get(b"//predict"),
    "absolute address": get(b"http://evil.example/health"),
    "decision out of the folder": get(b"/decisions/..%2f..%2fetc"),
    "decision of SQL": get(b"/decisions/'%20OR%201=1--"),
    "endless decision": get(b"/decisions/" + b"a" * 30_000),
    "CONNECT": get(b"evil.example:443", method=b"CONNECT"),
    "TRACE": get(b"/predict", method=b"TRACE"),
    "made-up method": get(b"/predict", method=b"BREW"),
    "lower-case method": get(b"/predict", method=b"post"),
    "HEAD of a form": get(b"/predict", method=b"HEAD"),
    "500 headers": get(b"/health", *[b"X-%d: 1" % index for index in range(500)]),
    "header of 60 KB": get(b"/health", b"X-A: " + b"a" * 60_000),
    "header without a name": get(b"/health", b": x"),
    "header that is folded": get(b"/health", b"X-A: 1", b" 2"),
    "header of control marks": get(b"/health", b"X-A: \x01\x02\x7f"),
    "request id of a script": get(b"/health", b"X-Request-ID: <script>" + b"a" * 1000),
    "two request ids": get(b"/health", b"X-Request-ID: a", b"X-Request-ID: b"),
    "forged addresses": get(b"/health", *[b"X-Forwarded-For: 10.0.0.1, x, ::1%eth0, " + b"1," * 5000] * 2),
    "upgrade to a socket": get(b"/predict", b"Connection: Upgrade", b"Upgrade: websocket",
                               b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="),
    "upgrade to HTTP/2": get(b"/predict", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c",
                             b"HTTP2-Settings: AAAA"),
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "ranges": get(b"/docs.json", b"Range: bytes=" + b"0-1," * 1000),
    "broken expectation": post(WHOLE, b"Expect: 200-maybe"),
    "gzip body": post(zlib.compress(WHOLE), b"Content-Encoding: gzip"),
    "negative length": b"POST /predict HTTP/1.1\r\nHost: a\r\n" + FORM + b"Content-Length: -1\r\n\r\n" + WHOLE,
    "length of no number": b"POST /predict HTTP/1.1\r\nHost: a\r\n" + FORM + b"Content-Length: 1e3\r\n\r\n" + WHOLE,
    "length beyond all": b"POST /predict HTTP/1.1\r\nHost: a\r\n" + FORM + b"Content-Length: %s\r\n\r\n" % (b"9" * 40),
    "length of 1 TB": b"POST /predict HTTP/1.1\r\nHost: a\r\n" + FORM + b"Content-Length: 1099511627776\r\n\r\n",
    "two lengths": post(WHOLE, b"Content-Length: 3"),
    "length and chunks": post(b"5\r\nhello\r\n0\r\n\r\n", b"Transfer-Encoding: chunked"),
    "chunks of no size": chunked(b"zz\r\nhello\r\n0\r\n\r\n"),
    "chunk of negative size": chunked(b"-5\r\nhello\r\n0\r\n\r\n"),
    "chunk of 2^72": chunked(b"ffffffffffffffffff\r\nhello"),
    "chunks with endless notes": chunked(b"5;" + b"a" * 60_000 + b"\r\nhello\r\n0\r\n\r\n"),
    "chunks with trailers": chunked(b"5\r\nhello\r\n0\r\nHost: evil\r\nContent-Length: 9\r\n\r\n"),
    "chunks of one byte": chunked(*[b"1\r\n-\r\n"] * 5000, b"0\r\n\r\n"),
    "two transfer encodings": post(b"0\r\n\r\n", b"Transfer-Encoding: chunked, identity"),
    "smuggled request": post(WHOLE + get(b"/metrics"), b"Transfer-Encoding:\x0bchunked"),
    "part without headers": post(part(b"") + b"--b--\r\n"),
    "part without a name": post(part(b"Content-Disposition: form-data") + b"--b--\r\n"),
    "part of no disposition": post(part(b"Content-Type: image/jpeg") + b"--b--\r\n"),
    "part of control marks": post(part(b"\x00\x01\x02: \xff\xfe") + b"--b--\r\n"),
    "part with 1000 headers": post(part(IMAGE + b"\r\nX: y" * 1000) + b"--b--\r\n"),
    "part name of broken UTF-8": post(part(b'Content-Disposition: form-data; name="\xff\xc0\xaf"') + b"--b--\r\n"),
    "part that is base64": post(part(IMAGE + b"\r\nContent-Transfer-Encoding: base64", b"/9j/") + b"--b--\r\n"),
    "part of parts": post(part(IMAGE + b"\r\nContent-Type: multipart/mixed; boundary=b", WHOLE) + b"--b--\r\n"),
    "5000 parts": post(part(IMAGE) * 5000 + b"--b--\r\n"),
    "5000 photos in a batch": post(part(IMAGE.replace(b'"image"', b'"images"')) * 5000 + b"--b--\r\n",
                                   path=b"/predict/batch"),
    "boundaries alone": post(b"--b\r\n" * 10_000 + b"--b--\r\n"),
    "line breaks alone": post(b"\r\n" * 30_000),
    "almost a boundary": post(part(IMAGE, b"\r\n--" * 50_000) + b"--b--\r\n"),
    "boundary of 5000": post(WHOLE, form=b"Content-Type: multipart/form-data; boundary=" + b"b" * 5000 + b"\r\n"),
    "boundary of nothing": post(WHOLE, form=b"Content-Type: multipart/form-data; boundary=\r\n"),
    "boundary of broken UTF-8": post(WHOLE, form=b"Content-Type: multipart/form-data; boundary=\xff\xfe\r\n"),
    "charset that is none": post(WHOLE, form=b"Content-Type: multipart/form-data; boundary=b; charset=evil\r\n"),
    "two content types": post(WHOLE, b"Content-Type: application/json"),
    "file name of 50 KB": post(part(IMAGE.replace(b"a.jpg", b"a" * 50_000), PHOTO) + b"--b--\r\n"),
    "file name out of the folder": post(part(IMAGE.replace(b"a.jpg", b"../../etc/cron.d/a"), PHOTO) + b"--b--\r\n"),
    "file name of a shell": post(part(IMAGE.replace(b"a.jpg", b"$(reboot);`id`|a.jpg"), PHOTO) + b"--b--\r\n"),
    "address in place of a file": post(part(b'Content-Disposition: form-data; name="image"', b"file:///etc/passwd")
                                       + b"--b--\r\n"),
    "alpha of 50 KB": post(part(IMAGE, PHOTO) + part(b'Content-Disposition: form-data; name="alpha"', b"9" * 50_000)
                           + b"--b--\r\n", path=b"/explain"),
    "alpha of infinity": post(part(IMAGE, PHOTO) + part(b'Content-Disposition: form-data; name="alpha"', b"inf")
                              + b"--b--\r\n", path=b"/explain"),
    "deep JSON": post(DEEP, form=b"Content-Type: application/json\r\n"),
    "deep JSON as feedback": post(DEEP, path=b"/feedback", form=b"Content-Type: application/json\r\n"),
    "half a surrogate as feedback": post(b'{"decision_id": "0", "label": "real", "note": "\\ud800"}', path=b"/feedback",
                                         form=b"Content-Type: application/json\r\n"),
    "10000 fields as feedback": post(b"label=real&" * 5000, path=b"/feedback",
                                     form=b"Content-Type: application/x-www-form-urlencoded\r\n"),
    "BentoML's pickle": post(b"\x80\x04N.", b"Payload-Container: NdarrayContainer", b"Payload-Meta: {}",
                             form=b"Content-Type: application/vnd.bentoml+pickle\r\n"),
    "BentoML's batch": post(b"\x80\x04N.", b"Args-Number: 9999999", form=b"Content-Type: multipart/form-data\r\n"),
    "token of garbage": post(WHOLE, GARBAGE_TOKEN),
    "token without a signature": post(WHOLE, NONE_TOKEN),
    "token of 50 KB": post(WHOLE, b"Authorization: Bearer " + b"a" * 50_000),
    "token of control marks": post(WHOLE, b"Authorization: Bearer \xff\xfe\x80"),
    "authorization of nothing": post(WHOLE, b"Authorization:"),
    "authorization of another kind": post(WHOLE, b"Authorization: Basic YTpi"),
    "two authorizations": post(WHOLE, NONE_TOKEN, GARBAGE_TOKEN),
    "key of 50 KB": post(WHOLE, b"X-API-Key: " + b"a" * 50_000),
    "key of broken UTF-8": post(WHOLE, b"X-API-Key: ppd_\xff\xfe_\x80"),
    "five keys": post(WHOLE, *[b"X-API-Key: ppd_a_b"] * 5),
    "one hundred requests at once": get(b"/health") * 100,
}  # fmt: skip


class Target:
    """A service, and the memory of all its processes."""

    def __init__(self, http: httpx.Client, root: psutil.Process, key: str) -> None:
        self.http, self.key = http, key
        self.address = (str(http.base_url.host), http.base_url.port or 80)
        self._root = root

    def memory(self) -> int:
        """Resident bytes of every process."""
        family = [self._root, *self._root.children(recursive=True)]
        return sum(one.memory_info().rss for one in family)

    def tell(self, request: bytes) -> bytes:
        """The answer to raw bytes, sent by a caller who then waits; empty where the service hangs up."""
        with socket.create_connection(self.address, MOST_SECONDS) as caller:
            try:
                caller.sendall(request)
                caller.settimeout(MOST_SECONDS)
                answer = caller.recv(65_536)
                caller.settimeout(0.2)
                while more := caller.recv(65_536):
                    answer += more
            except TimeoutError:
                if "answer" not in locals():
                    raise
            except (ConnectionResetError, BrokenPipeError):
                return b""
        return answer


@pytest.fixture(scope="module", params=["open", "guarded"])
def target(
    request: pytest.FixtureRequest, bento_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Target]:
    """A service where nobody is asked, and one where everybody is; both keep records."""
    folder = tmp_path_factory.mktemp("hostile")
    unlimited = {f"PPD_LIMITS__{route}": "null" for route in ("PREDICT", "BATCH", "EXPLAIN", "DECISIONS")}
    settings = {"PPD_DECISIONS__PATH": str(folder / "d.sqlite"), "PPD_API__UPLOAD_GRACE": "1.0", **unlimited}
    text, kept = keyring.mint("desk", ["predict", "batch", "explain"], keyring.now())
    if request.param == "guarded":
        keyring.write(folder / "keys.json", {kept.id: kept})
        (folder / "secret").write_text("s" * 40)
        settings |= {"PPD_AUTH__KEYS_FILE": str(folder / "keys.json"), "PPD_JWT__SECRET_FILE": str(folder / "secret")}
        settings |= {"PPD_JWT__ISSUER": "i", "PPD_JWT__AUDIENCE": "a", "PPD_AUTH__MAX_FAILURES": "100000"}
    with serving.launched(bento_home, folder / "log", **settings) as (http, process):
        made = Target(http, psutil.Process(process.pid), text)
        for photo in (PHOTO, LARGEST):  # what the first photos need is no growth
            for path in ("/predict", "/explain"):
                answer = http.post(path, files={"image": photo}, headers={"X-API-Key": text})
                assert answer.status_code == 200
        yield made


def test_hostile_files_are_refused_or_judged_in_time_and_leave_no_memory(target: Target) -> None:
    before, wrong = target.memory(), {}
    for name, data in FILES.items():
        for path in ("/predict", "/explain"):
            began = time.monotonic()
            answer = target.http.post(path, files={"image": ("a.jpg", data)}, headers={"X-API-Key": target.key})
            took = time.monotonic() - began
            if answer.status_code >= 500 or took > MOST_SECONDS:
                wrong[f"{name} at {path}"] = (answer.status_code, round(took, 1), answer.text[:200])
    assert wrong == {}
    assert target.memory() - before < MOST_GROWTH


def test_hostile_requests_are_refused_or_answered_in_time_and_leave_no_memory(target: Target) -> None:
    before, wrong = target.memory(), {}
    for name, request in REQUESTS.items():
        began = time.monotonic()
        try:
            answer = target.tell(request)
        except TimeoutError:
            answer = b"nothing"
        took = time.monotonic() - began
        refused = answer.startswith((b"HTTP/1.1 1", b"HTTP/1.1 2", b"HTTP/1.1 3", b"HTTP/1.1 4")) or not answer
        if not refused or took > MOST_SECONDS or b"Traceback" in answer:
            wrong[name] = (round(took, 1), answer[:300])
    assert wrong == {}
    assert target.memory() - before < MOST_GROWTH
    assert json.loads(target.http.get("/health").content)["status"] == "ok"


def test_there_are_enough_of_them() -> None:
    assert len(FILES) + len(REQUESTS) >= 60
