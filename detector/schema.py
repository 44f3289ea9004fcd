"""What crosses the wire: verdicts, explanations, health, problems.

Shared by service and client. Knows no framework but pydantic; beyond fields it only says itself to people
(`str`, notebooks), in the wording of `words`.
"""

from base64 import b64decode
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from detector import words

Label = Literal["real", "ai_generated", "uncertain"]
Confidence = Literal["low", "medium", "high"]
Colormap = Literal["viridis", "inferno", "magma", "plasma", "turbo", "jet", "gray"]
OverlayFormat = Literal["png", "jpeg"]
Claim = Literal["generated", "partly_generated", "generative_edit", "captured", "enhanced", "none"]
EvidenceSource = Literal["c2pa", "xmp", "iptc", "exif", "png_text", "tc260", "samsung"]
Standing = Literal["trusted", "intact", "unsigned", "none"]
ClashKind = Literal["generators_differ", "camera_and_generator", "pixels_changed"]
Regime = Literal["eu_ai_act_article_50", "google_merchant_center", "gb_45438"]
LabelState = Literal["present", "missing", "contradicts_pixels"]
DecidedBy = Literal["pixels", "provenance"]
Truth = Literal["real", "ai_generated"]
Movement = Literal["quiet", "watch", "drifted", "too_few"]


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
    provenance: float | None = Field(None, description="reading the file's own claims, while the photo is scored")
    total: float


class Signature(Message):
    """What a signed manifest's check found. Intact and trusted are two things: anyone can sign, few are trusted."""

    intact: bool = Field(description="the signature holds and file and manifest are as they were signed")
    trusted: bool = Field(description="intact, and the signer's certificate leads to the configured trust list")
    signer: str | None = Field(None, description="as the certificate names it")
    time: str | None = Field(None, description="of signing, as the manifest says; ISO 8601")
    problems: tuple[str, ...] = Field((), description="C2PA status codes of what did not hold")


class Finding(Message):
    """One statement the file makes of itself. All text in it is the file's, cut short and without control marks."""

    source: EvidenceSource
    claim: Claim
    detail: str = Field(description="where it stands and what it says")
    vendor: str | None = Field(None, description="whose generator is named, such as `Google`")
    generator: str | None = Field(None, description="the model or tool named")
    device: str | None = Field(None, description="the camera named")
    digital_source_type: str | None = Field(None, description="the IPTC term, such as `trainedAlgorithmicMedia`")
    prompt: str | None = Field(None, description="only where the service is configured to report prompts")
    lacking: tuple[str, ...] = Field((), description="fields the label's own standard asks for and it lacks")
    signature: Signature | None = Field(None, description="absent: unsigned, so anyone could have written it")


class Clash(Message):
    """Two statements that can't both be right, or a signature over other pixels."""

    kind: ClashKind
    detail: str


class LabelCheck(Message):
    """Whether the machine-readable AI label that a rule speaks of is there. A fact about the file, not legal advice."""

    regime: Regime
    label: LabelState = Field(description="`contradicts_pixels`: the label is there and the pixels look real")
    expected: bool | None = Field(description="whether the verdict calls for one; null while it is uncertain")
    found: tuple[EvidenceSource, ...] = Field((), description="where the label stands")
    lacking: tuple[str, ...] = Field((), description="what the rule names and the file lacks")


class Evidence(Message):
    """What the file says of itself, beside the pixels. Nothing said means unknown, never real."""

    claim: Claim = Field(description="the weightiest claim: trusted before intact before unsigned")
    standing: Standing = Field(description="what that claim rests on")
    findings: tuple[Finding, ...] = ()
    clashes: tuple[Clash, ...] = ()
    labels: tuple[LabelCheck, ...] = ()


class Verdict(Message):
    """One photo's answer."""

    label: Label
    probability: float = Field(ge=0, le=1, description="calibrated probability that the photo is AI-generated")
    confidence: Confidence
    thresholds: Thresholds
    model: ModelInfo
    image: ImageFacts
    timing: Timing = Field(description="milliseconds")
    evidence: Evidence | None = Field(None, description="what the file says of itself; null where that is not read")
    decided_by: DecidedBy = Field(
        "pixels", description="`provenance`: the label is not what the probability alone gives"
    )
    reason: str | None = Field(None, description="why, where provenance decided")
    request_id: str
    decision_id: str | None = Field(None, description="names this decision; its record, where the service keeps them")
    cached: bool = Field(False, description="true: this photo had been judged before by this model; nothing ran now")

    def __str__(self) -> str:
        return words.line(self.label, self.probability, self.confidence)

    def _repr_html_(self) -> str:
        limits = self.thresholds
        return words.card(self.label, self.probability, self.confidence, limits.real, limits.ai_generated)


class Feedback(Message):
    """What a person says the photo is, against or for a verdict."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    decision_id: str = Field(max_length=64, description="of the verdict")
    label: Truth
    note: str | None = Field(None, max_length=1000, description="why, in the person's own words")


class Correction(Message):
    """Feedback as it is kept beside the decision."""

    label: Truth
    note: str | None = None
    caller: str | None = Field(None, description="who sent it; null where the service asks nobody")
    time: datetime = Field(description="when, UTC")


class Decision(Message):
    """The record of one verdict. It holds neither the photo nor its file name."""

    id: str
    time: datetime = Field(description="of the verdict, UTC")
    caller: str | None = Field(
        None, description="whose request it was, such as `key:desk`; null where the service asks nobody"
    )
    verdict: Verdict = Field(description="as it was answered")
    correction: Correction | None = Field(None, description="the last feedback of a person, if there was any")

    def __str__(self) -> str:
        said = f"; a person says {self.correction.label}" if self.correction else ""
        return f"{self.verdict}{said}"


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


class OnTrial(Message):
    """A candidate model tried beside the current one."""

    model: ModelInfo
    mode: Literal["shadow", "split"] = Field(description="compared and never answering, or answering some callers")
    answering: bool = Field(description="whether it can be asked now; what it fails in, the current model answers")


class Health(Message):
    status: Literal["ok", "unavailable"]
    model: ModelInfo | None
    device: str | None
    candidate: OnTrial | None = Field(None, description="null where no candidate is tried")
    uptime: float = Field(description="seconds since this process began to serve")


class DriftFeature(Message):
    """One quantity of the photos seen lately, beside what it was when the model was made."""

    feature: str = Field(description="`probability`, `label`, or a fact of the photo such as `sharpness`")
    verdict: Movement
    photos: int = Field(description="in the newest window that have this quantity")
    sentence: str = Field(description="what moved, how far, how sure; for people")
    psi: float | None = Field(None, description="population stability index, less what chance alone would give")
    jensen_shannon: float | None = Field(None, description="Jensen-Shannon distance in base 2, 0..1")
    kolmogorov_smirnov: float | None = Field(None, description="largest difference of the cumulated shares, 0..1")
    p_value: float | None = Field(None, description="how often chance alone moves it this far, in this one test")
    design_effect: float | None = Field(
        None, description="1: photos are independent; 5: five resemble each other as one"
    )
    bins: tuple[str, ...] = Field(description="labels, or `from..to`")
    baseline: tuple[float, ...] = Field(description="share of each bin when the model was made")
    live: tuple[float, ...] = Field(description="share of each bin in the newest window; empty without photos")


class Drift(Message):
    """Whether today's photos and verdicts are like those the model was judged on."""

    verdict: Movement = Field(description="the worst of the features'")
    sentence: str
    model: ModelInfo
    sharing: Literal["all_processes", "this_process"] = Field(
        description="whose photos are counted: of every process (through Redis), or of the one that answers"
    )
    photos: int = Field(description="in the newest window, without remembered verdicts")
    cached: int = Field(description="remembered verdicts meanwhile; they count in no comparison")
    windows: int = Field(description="full windows at hand; a verdict needs `windows_needed` that agree")
    windows_needed: int
    since: datetime | None = Field(None, description="begin of the newest window, UTC; null where nothing was seen")
    features: tuple[DriftFeature, ...]

    def __str__(self) -> str:
        moved = [one.sentence for one in self.features if one.verdict in ("watch", "drifted")]
        return "\n".join([self.sentence, *moved])
