"""Client: the service's answers as the service's own types, its refusals as the service's own errors.

Needs httpx and pydantic alone. Retries, deadlines and an asynchronous twin are not covered yet.
"""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from pydantic import ValidationError

from detector.errors import DetectorError, InternalError, ModelUnavailable, by_code
from detector.schema import BatchVerdict, Colormap, Explanation, Health, OverlayFormat, Problem, Verdict

_STRANGER = "The answer is not one of this service; something between answered instead."
Source = Path | str | bytes  # a path, or the file's bytes


class Client:
    """A connection to one service; use it as a context manager or call `close`.

    Every method raises the DetectorError that the service answered with, found by its code, or ModelUnavailable
    where there was no answer at all.
    """

    def __init__(
        self,
        address: str = "http://localhost:3000",
        timeout: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = httpx.Client(base_url=address, timeout=timeout, transport=transport)

    def predict(self, photo: Source) -> Verdict:
        """Judge one photo."""
        return Verdict.model_validate(self._post("/predict", [("image", _part(photo))]))

    def predict_batch(self, photos: list[Source]) -> BatchVerdict:
        """Judge up to 20 photos in one request; each has its own verdict or error."""
        return BatchVerdict.model_validate(self._post("/predict/batch", [("images", _part(one)) for one in photos]))

    def explain(
        self,
        photo: Source,
        alpha: float | None = None,
        colormap: Colormap | None = None,
        format: OverlayFormat | None = None,
    ) -> Explanation:
        """Judge one photo and show where its evidence lies; an option left out is the service's to choose."""
        options = {"alpha": alpha, "colormap": colormap, "format": format}
        fields = {name: str(value) for name, value in options.items() if value is not None}
        return Explanation.model_validate(self._post("/explain", [("image", _part(photo))], fields))

    def health(self) -> Health:
        """State of the service; one whose model does not answer says so here and raises nothing."""
        return Health.model_validate(self._send("GET", "/health", allowed=(200, 503)))

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _post(self, route: str, files: list[tuple[str, Any]], fields: dict[str, str] | None = None) -> Any:
        return self._send("POST", route, files=files, data=fields)

    def _send(self, method: str, route: str, allowed: tuple[int, ...] = (200,), **body: Any) -> Any:
        try:
            response = self._http.request(method, route, **body)
        except httpx.TransportError:
            raise ModelUnavailable(f"The service at {self._http.base_url} does not answer.") from None
        if response.status_code not in allowed:
            raise read_problem(response.content, response.headers.get("retry-after"))
        try:
            return response.json()
        except ValueError:
            raise InternalError(_STRANGER) from None


def read_problem(body: bytes, retry_after: str | None) -> DetectorError:
    """The error that a problem document stands for; an answer that is none is an InternalError."""
    seconds = int(retry_after) if retry_after and retry_after.isdecimal() else None
    try:
        problem = Problem.model_validate_json(body)
    except ValidationError:
        return InternalError(_STRANGER)
    return by_code().get(problem.code, InternalError)(problem.detail, retry_after=seconds)


def _part(photo: Source) -> tuple[str, bytes]:
    if isinstance(photo, bytes):
        return "photo", photo
    path = Path(photo)
    return path.name, path.read_bytes()
