"""MockService: an httpx transport that answers as the service would, for a caller's own tests.

    client = Client(transport=MockService(0.97))

Covers every route of the API and its checks of form; it looks at no pixels. Works for Client and AsyncClient.
"""

import struct
import zlib
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from email.parser import BytesParser
from hashlib import sha256
from uuid import uuid4

import httpx
from pydantic import ValidationError

from detector.client import wire
from detector.errors import DecisionNotFound, DetectorError, InvalidOption, MissingField, NotAFile, RouteNotFound
from detector.schema import (
    BatchItem,
    BatchSummary,
    BatchVerdict,
    Correction,
    Decision,
    Drift,
    Explanation,
    Feedback,
    Health,
    ImageFacts,
    Label,
    ModelInfo,
    Picture,
    Region,
    Thresholds,
    Timing,
    Verdict,
)

Answer = float | DetectorError  # a probability, or the refusal of one photo
SIDE = 96  # pixels of every picture here


class MockService(httpx.MockTransport):
    """Answers every photo with one probability or error, or with what a function says of its bytes.

    `requests` are those that came, oldest first, and `decisions` the records of what was answered; `script` holds
    refusals of whole requests, used up one by one before anything is answered.
    """

    def __init__(
        self,
        answer: Answer | Callable[[bytes], Answer] = 0.5,
        script: list[DetectorError] | None = None,
        thresholds: Thresholds = Thresholds(real=0.35, ai_generated=0.9),  # noqa: B008, frozen
    ) -> None:
        super().__init__(self._handle)
        self._answer = answer if callable(answer) else lambda _: answer
        self._thresholds = thresholds
        self.script = list(script or [])
        self.requests: list[httpx.Request] = []
        self.decisions: dict[str, Decision] = {}

    def _handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        request_id = request.headers.get("x-request-id", "mock")
        try:
            if self.script:
                raise self.script.pop(0)
            return self._route(request, request_id)
        except DetectorError as error:
            headers = {"Retry-After": str(error.retry_after)} if error.retry_after is not None else {}
            content = wire.as_problem(error, request_id).model_dump_json()
            return httpx.Response(error.status, headers=headers, content=content)

    def _route(self, request: httpx.Request, request_id: str) -> httpx.Response:
        route = f"{request.method} {request.url.path}"
        if route == "GET /health":
            return _json(Health(status="ok", model=_MODEL, device="mock", uptime=1.0))
        if route == "GET /drift":
            return _json(_DRIFT)
        if route == "POST /feedback":
            return _json(self._feedback(request))
        if route.startswith("GET /decisions/"):
            return _json(self._decision(request.url.path.removeprefix("/decisions/")))
        if route not in {"POST /predict", "POST /predict/batch", "POST /explain"}:
            raise RouteNotFound
        form = read_form(request)
        if route == "POST /predict/batch":
            return _json(self._batch(form, request_id))
        photos = [data for name, _, data in form if name == "image"]
        if not photos:
            raise MissingField
        verdict = self._verdict(photos[0], request_id)
        return _json(verdict if route == "POST /predict" else _explanation(verdict))

    def _verdict(self, photo: bytes, request_id: str) -> Verdict:
        answer = self._answer(photo)
        if isinstance(answer, DetectorError):
            raise answer
        label: Label = "uncertain"
        if answer < self._thresholds.real:
            label = "real"
        elif answer >= self._thresholds.ai_generated:
            label = "ai_generated"
        verdict = Verdict(
            label=label,
            probability=answer,
            confidence="low" if label == "uncertain" else "high",
            thresholds=self._thresholds,
            model=_MODEL,
            image=_facts(photo),
            timing=Timing(decode=1.0, score=2.0, total=3.0),
            request_id=request_id,
            decision_id=(name := uuid4().hex),
        )
        self.decisions[name] = Decision(id=name, time=datetime.now(UTC), verdict=verdict)
        return verdict

    def _decision(self, name: str) -> Decision:
        if name not in self.decisions:
            raise DecisionNotFound
        return self.decisions[name]

    def _feedback(self, request: httpx.Request) -> Decision:
        try:
            given = Feedback.model_validate_json(request.read())
        except ValidationError:
            raise InvalidOption from None
        decision = self._decision(given.decision_id)
        correction = Correction(label=given.label, note=given.note, time=datetime.now(UTC))
        self.decisions[given.decision_id] = decision.model_copy(update={"correction": correction})
        return self.decisions[given.decision_id]

    def _batch(self, form: list[tuple[str, str | None, bytes]], request_id: str) -> BatchVerdict:
        items = [self._item(index, name, data, request_id) for index, (_, name, data) in enumerate(form)]
        labels = [item.verdict.label if item.verdict else "errors" for item in items]
        counts = {name: labels.count(name) for name in ("real", "ai_generated", "uncertain", "errors")}
        return BatchVerdict(items=items, summary=BatchSummary(photos=len(items), **counts), request_id=request_id)

    def _item(self, index: int, name: str | None, data: bytes, request_id: str) -> BatchItem:
        try:
            if name is None:
                raise NotAFile
            return BatchItem(index=index, name=name, verdict=self._verdict(data, request_id))
        except DetectorError as error:
            return BatchItem(index=index, name=name, error=wire.as_problem(error, request_id))


def read_form(request: httpx.Request) -> list[tuple[str, str | None, bytes]]:
    """Field name, file name and content of every part of a multipart request."""
    head = f"Content-Type: {request.headers.get('content-type', '')}\r\n\r\n".encode()
    parts = BytesParser().parsebytes(head + request.read())
    found = []
    for part in parts.get_payload() if parts.is_multipart() else []:
        assert not isinstance(part, str)
        content = part.get_payload(decode=True)
        name = part.get_param("name", header="content-disposition")
        found.append((str(name), part.get_filename(), content if isinstance(content, bytes) else b""))
    return found


def grey_png(side: int = SIDE, level: int = 128) -> bytes:
    """A square picture of one grey, made without Pillow."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes([level]) * side) * side
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


_MODEL = ModelInfo(name="mock", version="0", hash="0" * 64, profile="mock")


_DRIFT = Drift(
    verdict="too_few",
    sentence="A stand-in compares nothing.",
    model=_MODEL,
    sharing="this_process",
    photos=0,
    cached=0,
    windows=0,
    windows_needed=2,
    features=(),
)


def _facts(photo: bytes) -> ImageFacts:
    return ImageFacts(
        width=SIDE, height=SIDE, format="PNG", bytes=len(photo), sha256=sha256(photo).hexdigest(), animated=False
    )


def _explanation(verdict: Verdict) -> Explanation:
    picture = Picture(media_type="image/png", width=SIDE, height=SIDE, data=b64encode(grey_png()).decode())
    third = SIDE // 3
    region = Region(name="centre", box=(third, third, 2 * third, 2 * third), share=1 / 9)
    return Explanation(verdict=verdict, overlay=picture, heatmap=picture, region=region, alpha=0.5, colormap="inferno")


def _json(answer: Verdict | BatchVerdict | Explanation | Decision | Drift | Health) -> httpx.Response:
    return httpx.Response(200, headers={"Content-Type": "application/json"}, content=answer.model_dump_json())
