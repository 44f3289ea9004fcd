"""What crosses the wire: verdicts, explanations, health, problems.

Shared by service and client. Knows no framework but pydantic, and computes nothing.
"""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

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
    cached: bool = Field(False, description="true: this photo had been judged before by this model; nothing ran now")


class Problem(Message):
    """RFC 9457 problem document, with a stable `code`."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str


class BatchItem(Message):
    """One photo of a batch: exactly one of `verdict` and `error` is set."""

    index: int = Field(description="position in the request, from 0")
    name: str | None = Field(None, description="the upload's own file name, made harmless; a label only")
    verdict: Verdict | None = None
    error: Problem | None = None


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


class Picture(Message):
    media_type: str
    width: int
    height: int
    data: str = Field(description="the encoded picture, base64")


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


class Health(Message):
    status: Literal["ok", "unavailable"]
    model: ModelInfo | None
    device: str | None
    uptime: float = Field(description="seconds since this process began to serve")
