"""The document tells what is served: fields, answers and every error code."""

from collections.abc import Iterator
from typing import Any

import pytest

from detector.config import ExplainSettings
from detector.errors import InvalidImage, InvalidRequest, Refused, Unavailable, by_code
from detector.openapi import document

DECISIONS = {"decision_not_found", "decisions_off", "decisions_unavailable"}
DOCUMENT = document(20, ExplainSettings().model_dump())


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        yield from (value for key, value in node.items() if key == "$ref")
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from references(child)


def test_every_reference_leads_somewhere() -> None:
    found = set(references(DOCUMENT))
    assert found
    for reference in found:
        node = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


@pytest.mark.parametrize(
    ("route", "fields"),
    [("/predict", {"image"}), ("/predict/batch", {"images"}), ("/explain", {"image", "alpha", "colormap", "format"})],
)
def test_the_fields_are_those_the_route_takes(route: str, fields: set[str]) -> None:
    form = DOCUMENT["paths"][route]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(form["properties"]) == fields
    assert not form["additionalProperties"]


@pytest.mark.parametrize(
    ("route", "absent"),
    [("/predict", {"too_many_images"}), ("/explain", {"too_many_images"}), ("/predict/batch", set())],
)
def test_every_code_a_route_can_answer_is_listed(route: str, absent: set[str]) -> None:
    absent_kinds = InvalidImage if route == "/predict/batch" else ()  # there a photo's error stands in its item
    kinds = (Refused, InvalidRequest, InvalidImage, Unavailable)
    possible = {code: kind for code, kind in by_code().items() if not issubclass(kind, absent_kinds)}
    expected = {code for code, kind in possible.items() if issubclass(kind, kinds)} | {"internal_error"}
    listed = {
        code
        for answer in DOCUMENT["paths"][route]["post"]["responses"].values()
        for code in answer["content"].get("application/problem+json", {}).get("examples", {})
    }
    assert listed == expected - absent - {"not_found", "method_not_allowed", "drift_off"} - DECISIONS


@pytest.mark.parametrize(("route", "method"), [("/decisions/{id}", "get"), ("/feedback", "post")])
def test_a_decision_s_refusals_are_listed(route: str, method: str) -> None:
    listed = {
        code
        for answer in DOCUMENT["paths"][route][method]["responses"].values()
        for code in answer["content"].get("application/problem+json", {}).get("examples", {})
    }
    assert listed >= DECISIONS | {"unauthenticated", "rate_limited"}
    assert ("invalid_option" in listed) == (method == "post")
