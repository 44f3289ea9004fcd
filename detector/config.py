"""configuration.yaml and the environment -> one frozen, strict `Settings`.

Read once, at the edge (service.py, command lines). Parts receive plain values and never see this tree.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    SecretStr,
    ValidationError,
    model_validator,
)

from detector.errors import InvalidSettings
from detector.schema import Colormap, Drift, OverlayFormat, Thresholds

PREFIX = "PPD_"
_NO_SETTINGS = {"PPD_CONFIG", "PPD_ADDRESS", "PPD_API_KEY"}  # the last two are the client's, in the same shell
Format = Literal["JPEG", "PNG", "WEBP", "AVIF"]
Rate = Annotated[str, Field(pattern=r"^[1-9]\d{0,8}/([1-9]\d{0,4} ?)?(second|minute|hour|day)s?$")]

# YAML reads a bare `off` as false.
Mode = Annotated[Literal["shadow", "split", "off"], BeforeValidator(lambda said: "off" if said is False else said)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSettings(_Section):
    tag: str = "product-photo-detector:latest"
    profile: str = "accurate"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["f32", "bf16"] = "f32"
    threads: int = Field(0, ge=0)


class ScorerSettings(_Section):
    workers: int = Field(1, ge=1)
    max_batch_size: int = Field(16, ge=2, le=256)
    batch_wait: float = Field(30.0, gt=0)


class ApiSettings(_Section):
    workers: int = Field(1, ge=1)
    decode_threads: int = Field(2, ge=1)
    max_in_flight: int = Field(32, ge=1)
    max_queued: int = Field(256, ge=0)
    retry_after: int = Field(2, ge=1)
    timeout: int = Field(60, ge=1)
    upload_grace: float = Field(10.0, gt=0)
    upload_rate: int = Field(32_768, ge=1)
    shutdown_grace: float = Field(75.0, gt=0)


class AuthSettings(_Section):
    keys_file: Path | None = None
    max_failures: int = Field(20, ge=1)


class JwtSettings(_Section):
    secret_file: Path | None = None
    key_set: str | None = None
    key_set_ttl: int = Field(300, ge=1)
    key_set_timeout: float = Field(3.0, gt=0)
    issuer: str | None = None
    audience: str | None = None
    leeway: int = Field(30, ge=0, le=300)
    scope_claim: str = "scope"

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.secret_file or self.key_set) and not (self.issuer and self.audience):
            raise ValueError("issuer and audience must be set where bearer tokens are taken")
        return self


class LimitsSettings(_Section):
    predict: Rate | None = "1200/minute"
    batch: Rate | None = "600/minute"
    explain: Rate | None = "300/minute"
    decisions: Rate | None = "600/minute"
    feedback: Rate | None = "600/minute"
    drift: Rate | None = "60/minute"
    on_redis_loss: Literal["local", "open", "closed"] = "local"
    trusted_proxies: tuple[IPvAnyNetwork, ...] = ()


class CacheSettings(_Section):
    entries: int = Field(10_000, ge=0)
    ttl: int = Field(3600, ge=1)


class DecisionsSettings(_Section):
    path: Path | None = None
    retention_days: int = Field(90, ge=1, le=3650)
    photos: Path | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.photos and not self.path:
            raise ValueError("photos are kept beside records, so path must be set too")
        return self


class DriftSettings(_Section):
    enabled: bool = True
    baseline: Path | None = None
    photos: int = Field(1000, ge=100)
    min_photos: int = Field(200, ge=50)
    windows: int = Field(2, ge=1, le=10)
    watch: float = Field(0.1, gt=0)
    drifted: float = Field(0.2, gt=0)
    alpha: float = Field(0.01, gt=0, lt=1)
    bucket: int = Field(300, ge=1)
    span: int = Field(604_800, ge=60)
    interval: float = Field(60.0, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.watch > self.drifted:
            raise ValueError("watch must not be above drifted")
        if self.span < 10 * self.windows * self.bucket:
            raise ValueError("span must hold ten buckets for every window")
        if self.span > 5000 * self.bucket:
            raise ValueError("span must hold no more than 5000 buckets")
        return self

    def read_baseline(self) -> Drift | None:
        """The report that is to be the baseline; raises InvalidSettings where the file is none."""
        try:
            return Drift.model_validate_json(self.baseline.read_bytes()) if self.baseline else None
        except (OSError, ValidationError):
            raise InvalidSettings(f"Configuration: drift.baseline: {self.baseline} is no report of /drift.") from None


class RedisSettings(_Section):
    url: SecretStr | None = None
    prefix: str = Field("ppd", pattern=r"^[A-Za-z0-9._-]+$")
    timeout: float = Field(2.0, gt=0)
    retry_interval: float = Field(2.0, gt=0)


class PhotoSettings(_Section):
    max_bytes: int = Field(10_485_760, ge=1024)
    max_pixels: int = Field(50_000_000, ge=4096)
    max_side: int = Field(16_384, ge=64)
    min_side: int = Field(64, ge=1)
    formats: tuple[Format, ...] = Field(("JPEG", "PNG", "WEBP"), min_length=1)


class BatchSettings(_Section):
    max_images: int = Field(20, ge=1, le=256)


class VerdictSettings(_Section):
    thresholds: Thresholds | None = None
    medium_confidence: float = Field(0.8, ge=0.5, le=1)
    high_confidence: float = Field(0.95, ge=0.5, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.medium_confidence > self.high_confidence:
            raise ValueError("medium_confidence must not be above high_confidence")
        return self


class ProvenanceSettings(_Section):
    enabled: bool = True
    trust_anchors: Path | None = None
    max_block: int = Field(1_048_576, ge=65_536)
    prompts: bool = False
    signed_generation: Literal["decides", "raises", "reports"] = "decides"
    signed_edit: Literal["decides", "raises", "reports"] = "raises"
    unsigned_claim: Literal["raises", "reports"] = "raises"
    signed_capture: Literal["decides", "lowers", "reports"] = "reports"

    def read_trust_anchors(self) -> str | None:
        """The PEM text; raises InvalidSettings where the file can't be read."""
        try:
            return self.trust_anchors.read_text(encoding="utf-8") if self.trust_anchors else None
        except (OSError, UnicodeDecodeError):
            raise InvalidSettings(
                f"Configuration: provenance.trust_anchors: {self.trust_anchors} can't be read."
            ) from None


class ExplainSettings(_Section):
    max_side: int = Field(512, ge=64, le=4096)
    alpha: float = Field(0.5, ge=0, le=1)
    colormap: Colormap = "inferno"
    format: OverlayFormat = "jpeg"


class CorsSettings(_Section):
    allow_origins: tuple[str, ...] = ()


class RolloutSettings(_Section):
    candidate: str | None = None
    profile: str | None = None
    mode: Mode = "shadow"
    split_share: float = Field(0.1, ge=0, le=1)
    shadow_share: float = Field(1.0, ge=0, le=1)
    shadow_backlog: int = Field(16, ge=1, le=1000)
    timeout: float = Field(10.0, gt=0)

    @property
    def tried(self) -> str | None:
        """The candidate, where one is on trial."""
        return None if self.mode == "off" else self.candidate


class LogSettings(_Section):
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["auto", "json", "text"] = "auto"


class TracingSettings(_Section):
    endpoint: str | None = Field(None, pattern=r"^https?://")
    sample_rate: float = Field(1.0, ge=0, le=1)


class Settings(_Section):
    """The whole tree; every default here equals configuration.yaml's (a test)."""

    model: ModelSettings = ModelSettings()
    scorer: ScorerSettings = ScorerSettings()
    api: ApiSettings = ApiSettings()
    photo: PhotoSettings = PhotoSettings()
    batch: BatchSettings = BatchSettings()
    verdict: VerdictSettings = VerdictSettings()
    provenance: ProvenanceSettings = ProvenanceSettings()
    explain: ExplainSettings = ExplainSettings()
    cors: CorsSettings = CorsSettings()
    auth: AuthSettings = AuthSettings()
    jwt: JwtSettings = JwtSettings()
    limits: LimitsSettings = LimitsSettings()
    cache: CacheSettings = CacheSettings()
    decisions: DecisionsSettings = DecisionsSettings()
    drift: DriftSettings = DriftSettings()
    redis: RedisSettings = RedisSettings()
    rollout: RolloutSettings = RolloutSettings()
    log: LogSettings = LogSettings()
    tracing: TracingSettings = TracingSettings()


def load_settings(path: Path | None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read `path` (None: defaults alone), lay the environment over it, check everything.

    Raises InvalidSettings with one line that names the setting.
    """
    tree = _read(path) if path else {}
    for name, text in environ.items():
        if name.startswith(PREFIX) and name not in _NO_SETTINGS:
            _overlay(tree, name, text)
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise InvalidSettings(_sentence(error)) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError:
        raise InvalidSettings(f"The configuration file {path} can't be read.") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise InvalidSettings(f"The configuration file {path} is not valid YAML.") from None
    if not isinstance(tree, dict | None):
        raise InvalidSettings(f"The configuration file {path} must hold sections, such as `photo:`.")
    return {section: dict(body) if isinstance(body, dict) else body for section, body in (tree or {}).items()}


def _overlay(tree: dict[str, Any], name: str, text: str) -> None:
    """Lay one environment variable over the tree; its value is read as YAML (numbers, lists, null)."""
    section, divider, setting = name.removeprefix(PREFIX).lower().partition("__")
    if not divider or section not in Settings.model_fields:
        raise InvalidSettings(f"The environment variable {name} names no setting; write {PREFIX}<SECTION>__<NAME>.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise InvalidSettings(f"The environment variable {name} has no readable value.") from None
    body = tree.setdefault(section, {})
    if isinstance(body, dict):
        body[setting] = value


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"Configuration: {name} is not a known setting."
    return f"Configuration: {name}: {first['msg']}."
