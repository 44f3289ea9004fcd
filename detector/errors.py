"""Every error this product can answer with: a stable `code`, an HTTP `status`, one sentence a caller can act on.

DetectorError
├── Refused                   who asks may not, or not so often
│   ├── Unauthenticated       401 unauthenticated
│   ├── Forbidden             403 forbidden
│   └── RateLimited           429 rate_limited
├── InvalidRequest            the request is not what the endpoint reads
│   ├── MissingField          400 missing_field
│   ├── NotAFile              400 not_a_file
│   ├── MalformedRequest      400 malformed_request
│   ├── InvalidOption         422 invalid_option
│   ├── TooManyImages         413 too_many_images
│   ├── BodyTooLarge          413 body_too_large
│   ├── UnsupportedBody       415 unsupported_body
│   ├── SlowUpload            408 slow_upload
│   ├── RouteNotFound         404 not_found
│   ├── DecisionNotFound      404 decision_not_found
│   ├── DecisionsOff          404 decisions_off
│   ├── DriftOff              404 drift_off
│   └── MethodNotAllowed      405 method_not_allowed
├── InvalidImage              the photo can't be read as one
│   ├── EmptyImage            400 empty_image
│   ├── TruncatedImage        400 truncated_image
│   ├── CorruptImage          400 corrupt_image
│   ├── UnsupportedType       415 unsupported_type
│   ├── TooManyBytes          413 too_many_bytes
│   ├── TooManyPixels         413 too_many_pixels
│   └── TooSmall              422 too_small
├── Unavailable               nothing wrong with the request; try again
│   ├── Overloaded            503 overloaded
│   ├── ModelUnavailable      503 model_unavailable
│   ├── IdentityUnavailable   503 identity_unavailable
│   ├── BudgetUnavailable     503 budget_unavailable
│   ├── DecisionsUnavailable  503 decisions_unavailable
│   └── TimedOut              504 timed_out
├── Unfetched                 a scan can't have the photo from where it is said to be
│   ├── PhotoNotFound         404 photo_not_found
│   ├── AddressRefused        403 address_refused
│   └── SourceUnavailable     503 source_unavailable
├── InternalError             500 internal_error
├── InvalidScan               start-up: a scan can't begin, or go on, as it was asked to
├── InvalidSettings           start-up: configuration.yaml or the environment
└── InvalidArtefact           start-up: the model folder is missing, incomplete or altered

Knows nothing of HTTP frameworks; `detector.asgi` writes these as RFC 9457 problem documents and the client
raises the same classes again, found by `code`.
"""

from typing import ClassVar


class DetectorError(Exception):
    """Base of all; `detail` is one sentence in our own words, safe to show to a stranger."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Something went wrong on our side"
    request_id: str | None = None  # set by the client: names the request in the service's log

    def __init__(self, detail: str = "", *, retry_after: int | None = None) -> None:
        self.detail = detail or f"{self.title}."
        self.retry_after = retry_after  # seconds
        super().__init__(self.detail)


class Refused(DetectorError):
    code, status, title = "forbidden", 403, "The request is not allowed"


class Unauthenticated(Refused):
    """`challenge` becomes the answer's WWW-Authenticate header (RFC 9110)."""

    code, status, title = "unauthenticated", 401, "The request does not say who asks"

    def __init__(self, detail: str = "", *, retry_after: int | None = None, challenge: str = "") -> None:
        super().__init__(detail, retry_after=retry_after)
        self.challenge = challenge


class Forbidden(Refused):
    code, status, title = "forbidden", 403, "The caller may not do this"


class RateLimited(Refused):
    code, status, title = "rate_limited", 429, "The caller's budget is spent"


class InvalidRequest(DetectorError):
    code, status, title = "malformed_request", 400, "The request can't be read"


class MissingField(InvalidRequest):
    code, status, title = "missing_field", 400, "A required form field is missing"


class NotAFile(InvalidRequest):
    code, status, title = "not_a_file", 400, "A form field holds text where a file is due"


class MalformedRequest(InvalidRequest):
    code, status, title = "malformed_request", 400, "The request body is not well-formed"


class InvalidOption(InvalidRequest):
    code, status, title = "invalid_option", 422, "An option has a value that is not allowed"


class TooManyImages(InvalidRequest):
    code, status, title = "too_many_images", 413, "Too many photos in one request"


class BodyTooLarge(InvalidRequest):
    code, status, title = "body_too_large", 413, "The request body is too large"


class UnsupportedBody(InvalidRequest):
    code, status, title = "unsupported_body", 415, "The request body is of a type the route does not read"


class SlowUpload(InvalidRequest):
    code, status, title = "slow_upload", 408, "The request body came too slowly"


class RouteNotFound(InvalidRequest):
    code, status, title = "not_found", 404, "There is no such route"


class DecisionNotFound(InvalidRequest):
    """Also where the record is another caller's: an id must not tell that it exists."""

    code, status, title = "decision_not_found", 404, "There is no such decision record"


class DecisionsOff(InvalidRequest):
    code, status, title = "decisions_off", 404, "This service keeps no decision records"


class DriftOff(InvalidRequest):
    code, status, title = "drift_off", 404, "This service does not watch for drift"


class MethodNotAllowed(InvalidRequest):
    code, status, title = "method_not_allowed", 405, "The route does not take this method"


class InvalidImage(DetectorError):
    code, status, title = "corrupt_image", 400, "The photo can't be read"


class EmptyImage(InvalidImage):
    code, status, title = "empty_image", 400, "The file is empty"


class TruncatedImage(InvalidImage):
    code, status, title = "truncated_image", 400, "The photo ends too early"


class CorruptImage(InvalidImage):
    code, status, title = "corrupt_image", 400, "The photo's data is damaged"


class UnsupportedType(InvalidImage):
    code, status, title = "unsupported_type", 415, "The file is not a photo of a supported type"


class TooManyBytes(InvalidImage):
    code, status, title = "too_many_bytes", 413, "The photo's file is too large"


class TooManyPixels(InvalidImage):
    code, status, title = "too_many_pixels", 413, "The photo has too many pixels"


class TooSmall(InvalidImage):
    code, status, title = "too_small", 422, "The photo is too small to judge"


class Unavailable(DetectorError):
    code, status, title = "overloaded", 503, "The service can't answer right now"


class Overloaded(Unavailable):
    code, status, title = "overloaded", 503, "The service is busy"


class ModelUnavailable(Unavailable):
    code, status, title = "model_unavailable", 503, "The model can't be reached"


class IdentityUnavailable(Unavailable):
    code, status, title = "identity_unavailable", 503, "The keys that check bearer tokens can't be read"


class BudgetUnavailable(Unavailable):
    code, status, title = "budget_unavailable", 503, "The callers' budgets can't be read"


class DecisionsUnavailable(Unavailable):
    code, status, title = "decisions_unavailable", 503, "The decision records can't be reached"


class TimedOut(Unavailable):
    code, status, title = "timed_out", 504, "The answer took too long"


class Unfetched(DetectorError):
    code, status, title = "source_unavailable", 503, "The photo can't be fetched"


class PhotoNotFound(Unfetched):
    code, status, title = "photo_not_found", 404, "There is no photo at this address"


class AddressRefused(Unfetched):
    code, status, title = "address_refused", 403, "Photos are not fetched from this address"


class SourceUnavailable(Unfetched):
    """What may pass: worth another try, now or when the scan is run again."""

    code, status, title = "source_unavailable", 503, "The photo's source does not answer"


class InternalError(DetectorError):
    code, status, title = "internal_error", 500, "Something went wrong on our side"


class InvalidScan(DetectorError):
    code, status, title = "invalid_scan", 500, "The scan can't be run like this"


class InvalidSettings(DetectorError):
    code, status, title = "invalid_settings", 500, "The configuration is not valid"


class InvalidArtefact(DetectorError):
    code, status, title = "invalid_artefact", 500, "The model folder is not valid"


def by_code() -> dict[str, type[DetectorError]]:
    """Every concrete error by its code; a client raises what the server answered."""
    found: dict[str, type[DetectorError]] = {}
    pending = list(DetectorError.__subclasses__())
    while pending:
        kind = pending.pop()
        children = kind.__subclasses__()
        pending.extend(children)
        if not children:
            found[kind.code] = kind
    return found
