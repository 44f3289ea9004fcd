"""Errors as they cross the wire: RFC 9457 problem documents, with the headers each error asks for."""

from starlette.responses import Response

from detector.errors import DetectorError, Unauthenticated
from detector.schema import Problem

PROBLEM_TYPE = "application/problem+json"


def problem(error: DetectorError, request_id: str) -> Problem:
    """`type` is a URN, for the codes are documented in docs/api.md."""
    return Problem(
        type=f"urn:product-photo-detector:problem:{error.code}",
        title=error.title,
        status=error.status,
        detail=error.detail,
        code=error.code,
        request_id=request_id,
    )


def problem_response(error: DetectorError, request_id: str) -> Response:
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after else {}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = error.challenge
    body = problem(error, request_id).model_dump_json()
    return Response(body, error.status, headers, media_type=PROBLEM_TYPE)
