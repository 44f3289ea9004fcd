"""What crosses the wire: verdicts, explanations, health, problems.

Shared by service and client. Knows no framework but pydantic; beyond fields it only says itself to people
(`str`, notebooks), in the wording of `words`.
"""

from base64 import b64decode
from html import escape
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from detector import words

Label = Literal["real", "ai_generated", "uncertain"]
Confidence = Literal["low", "medium", "high"]
Colormap = Literal["viridis", "inferno", "magma", "plasma", "turbo", "jet", "gray"]
OverlayFormat = Literal["png", "jpeg"]


class Message(BaseModel):
    """Base of all: immutable; a client takes fields it doesn't know from a newer server without complaint."""

    model_config = ConfigDict(frozen=True)


class Thresholds(Message):
    """Probabilities at which the label changes: below `real` real, from `ai_generated` on AI, between uncertain."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    real: float = Field(ge=0, le=1)
    ai_generated: float = Field(ge=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.real > self.ai_generated:
            raise ValueError("`real` must not be above `ai_generated`")
        return self


class ModelInfo(Message):
    name: str
    version: str
    hash: str = Field(description="SHA-256 over the hashes of every file of the model folder")
    profile: str = Field(description="which of the model's experts were asked")


class ImageFacts(Message):
    width: int = Field(description="pixels, after turning the photo upright")
    height: int = Field(description="pixels, after turning the photo upright")
    format: str
    bytes: int
    sha256: str = Field(description="of the bytes as uploaded")
    animated: bool = Field(description="true: the file holds several frames and the first was judged")


class Timing(Message):
    """Milliseconds by stage; `score` includes the wait for a batch."""

    decode: float
    score: float
    explain: float | None = None
    total: float


class Verdict(Message):
    """One photo's answer."""

    label: Label
    probability: float = Field(ge=0, le=1, description="calibrated probability that the photo is AI-generated")
    confidence: Confidence
    thresholds: Thresholds
    model: ModelInfo
    image: ImageFacts
    timing: Timing = Field(description="milliseconds")
    request_id: str

    def __str__(self) -> str:
        return words.line(self.label, self.probability, self.confidence)

    def _repr_html_(self) -> str:
        limits = self.thresholds
        return words.card(self.label, self.probability, self.confidence, limits.real, limits.ai_generated)


class Problem(Message):
    """RFC 9457 problem document, with a stable `code`."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


class BatchItem(Message):
    """One photo of a batch: exactly one of `verdict` and `error` is set."""

    index: int = Field(description="position in the request, from 0")
    name: str | None = Field(None, description="the upload's own file name, made harmless; a label only")
    verdict: Verdict | None = None
    error: Problem | None = None

    def __str__(self) -> str:
        return f"{self.name or self.index}: {self.verdict or self.error}"


class BatchSummary(Message):
    photos: int
    real: int
    ai_generated: int
    uncertain: int
    errors: int


class BatchVerdict(Message):
    items: list[BatchItem]
    summary: BatchSummary
    request_id: str

    def __str__(self) -> str:
        return "\n".join(str(item) for item in self.items)

    def _repr_html_(self) -> str:
        rows = [[str(one.index), one.name or "", str(one.verdict or one.error)] for one in self.items]
        return words.table(["#", "photo", "verdict"], rows)


class Picture(Message):
    media_type: str
    width: int
    height: int
    data: str = Field(description="the encoded picture, base64")

    def __repr__(self) -> str:
        return f"Picture({self.media_type}, {self.width} x {self.height})"

    __str__ = __repr__

    def decode(self) -> bytes:
        """The picture's file: PNG or JPEG, as `media_type` says."""
        return b64decode(self.data)

    def save(self, path: str | Path) -> None:
        Path(path).write_bytes(self.decode())

    def _repr_html_(self) -> str:
        source = escape(f"data:{self.media_type};base64,{self.data}")
        return f'<img alt="" width="{self.width}" height="{self.height}" src="{source}">'


class Region(Message):
    """The ninth of the photo that speaks most for the label."""

    name: str = Field(description="for example `upper left` or `centre`")
    box: tuple[int, int, int, int] = Field(description="left, top, right, bottom in pixels of the upright photo")
    share: float = Field(ge=0, le=1, description="its share of all the evidence in the label's direction")


class Explanation(Message):
    """A verdict with where in the photo its evidence lies."""

    verdict: Verdict
    overlay: Picture = Field(description="the photo under the heat map")
    heatmap: Picture = Field(description="grey PNG: 0 speaks for real, 255 for AI-generated, 128 for neither")
    region: Region
    alpha: float
    colormap: Colormap

    def __str__(self) -> str:
        return f"{self.verdict}; {self.region.share:.0%} of the evidence lies {self.region.name}"

    def _repr_html_(self) -> str:
        return f"{self.verdict._repr_html_()}{self.overlay._repr_html_()}"


class Health(Message):
    status: Literal["ok", "unavailable"]
    model: ModelInfo | None
    device: str | None
    uptime: float = Field(description="seconds since this process began to serve")
