"""Requests as values, and answers read back into the service's types and errors; no input or output here."""

from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from detector.client.retry import read_retry_after
from detector.client.sources import Upload
from detector.errors import (
    DetectorError,
    Forbidden,
    InternalError,
    MalformedRequest,
    ModelUnavailable,
    RateLimited,
    RouteNotFound,
    TimedOut,
    Unauthenticated,
    by_code,
)
from detector.schema import Colormap, OverlayFormat, Problem, Truth, Verdict

STRANGER = "The answer is not one of this service; something between answered instead."
M = TypeVar("M", bound=BaseModel)

# What a status means where the code is missing or newer than this client.
_BY_STATUS: dict[int, type[DetectorError]] = {
    401: Unauthenticated,
    403: Forbidden,
    404: RouteNotFound,
    429: RateLimited,
    503: ModelUnavailable,
    504: TimedOut,
}


@dataclass(frozen=True)
class Request:
    """One call of the service; `allowed` are the statuses that carry an answer and no problem."""

    method: str
    route: str
    uploads: tuple[tuple[str, Upload], ...] = ()
    fields: dict[str, str] = field(default_factory=dict)
    json: dict[str, str | None] | None = None
    allowed: tuple[int, ...] = (200,)


@dataclass(frozen=True)
class Reply:
    """What came back, of the service or of something between."""

    status: int
    body: bytes
    retry_after: str | None = None
    request_id: str | None = None


def predict(upload: Upload) -> Request:
    return Request("POST", "/predict", (("image", upload),))


def predict_batch(uploads: list[Upload]) -> Request:
    return Request("POST", "/predict/batch", tuple(("images", upload) for upload in uploads))


def explain(upload: Upload, alpha: float | None, colormap: Colormap | None, format: OverlayFormat | None) -> Request:
    options = {"alpha": alpha, "colormap": colormap, "format": format}
    fields = {name: str(value) for name, value in options.items() if value is not None}
    return Request("POST", "/explain", (("image", upload),), fields)


def health() -> Request:
    return Request("GET", "/health", allowed=(200, 503))


def drift() -> Request:
    return Request("GET", "/drift")


def decision(id: str) -> Request:
    return Request("GET", f"/decisions/{quote(id, safe='')}")


def feedback(id: str, label: Truth, note: str | None) -> Request:
    return Request("POST", "/feedback", json={"decision_id": id, "label": str(label), "note": note})


def read_answer(model: type[M], reply: Reply) -> M:
    """The answer as its type; what is none is an InternalError, for it can't have come from this service."""
    try:
        return model.model_validate_json(reply.body)
    except ValidationError:
        raise named(InternalError(STRANGER), reply.request_id) from None


def read_problem(reply: Reply) -> DetectorError:
    """The error that a refusal stands for: by its code, or by its status where the code is unknown here."""
    seconds = read_retry_after(reply.retry_after)
    try:
        problem = Problem.model_validate_json(reply.body)
    except ValidationError:
        return named(_by_status(reply.status)(STRANGER, retry_after=seconds), reply.request_id)
    kind = by_code().get(problem.code)
    detail = problem.detail if kind else f"{problem.detail} ({problem.code})"
    error = (kind or _by_status(reply.status))(detail, retry_after=seconds)
    return named(error, problem.request_id)


def _by_status(status: int) -> type[DetectorError]:
    return _BY_STATUS.get(status, MalformedRequest if 400 <= status < 500 else InternalError)


def named(error: DetectorError, request_id: str | None) -> DetectorError:
    """The error with the request's id, by which the service's log knows it."""
    error.request_id = request_id
    return error


def as_problem(error: DetectorError, request_id: str) -> Problem:
    """An error as a batch item carries it."""
    return Problem(
        type=f"urn:product-photo-detector:problem:{error.code}",
        title=error.title,
        status=error.status,
        detail=error.detail,
        code=error.code,
        request_id=error.request_id or request_id,
    )


def check_about(verdict: Verdict, upload: Upload) -> None:
    """Raise InternalError for a verdict on other bytes than were sent, such as a proxy's stale answer."""
    if verdict.image.sha256 != upload.sha256:
        raise named(InternalError("The answer is about another photo than was sent."), verdict.request_id)


def refuses_everything(error: DetectorError) -> bool:
    """Whether the next request would meet this too, whatever its photos: no key, no budget, no service."""
    return error.status in {401, 403, 404, 429, 503}
