"""Answers of newer servers, and of things between, are still the right kind of error."""

import pytest

from detector.client.wire import STRANGER, Reply, read_problem
from detector.errors import InternalError, MalformedRequest, ModelUnavailable, RouteNotFound, TimedOut
from detector.schema import Verdict


def problem(code: str, status: int) -> Reply:
    body = f'{{"type":"t","title":"T","status":{status},"detail":"So.","code":"{code}","request_id":"r"}}'
    return Reply(status, body.encode())


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, MalformedRequest), (404, RouteNotFound), (418, MalformedRequest), (500, InternalError), (504, TimedOut)],
)
def test_an_unknown_code_is_read_by_its_status(status: int, kind: type[Exception]) -> None:
    error = read_problem(problem("brand_new", status))
    assert type(error) is kind
    assert (error.detail, error.request_id) == ("So. (brand_new)", "r")


@pytest.mark.parametrize(("status", "code"), [(401, "unauthenticated"), (403, "forbidden"), (429, "rate_limited")])
def test_a_proxy_s_refusal_of_the_caller_has_the_service_s_code(status: int, code: str) -> None:
    error = read_problem(Reply(status, b"<html>", "9", "from-header"))
    assert error.code == code
    assert (error.detail, error.retry_after, error.request_id) == (STRANGER, 9, "from-header")


def test_a_proxy_s_503_may_be_tried_again() -> None:
    assert isinstance(read_problem(Reply(503, b"<html>", "1")), ModelUnavailable)


def test_a_verdict_of_a_server_that_reads_no_provenance_is_read() -> None:
    body = {
        "label": "real",
        "probability": 0.1,
        "confidence": "medium",
        "thresholds": {"real": 0.3, "ai_generated": 0.9},
        "model": {"name": "m", "version": "1", "hash": "0", "profile": "fast"},
        "image": {"width": 64, "height": 64, "format": "PNG", "bytes": 9, "sha256": "0", "animated": False},
        "timing": {"decode": 1, "score": 1, "total": 2},
        "request_id": "r",
    }
    verdict = Verdict.model_validate(body)
    assert (verdict.evidence, verdict.decided_by) == (None, "pixels")
