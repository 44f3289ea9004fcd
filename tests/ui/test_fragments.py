"""The page's HTML says what the service said, and nothing from outside becomes markup."""

import pytest

from detector.client import Client, MockService
from detector.client.wire import as_problem
from detector.errors import Overloaded
from detector.schema import Health, ImageFacts, ModelInfo, Verdict
from gradio_app import fragments
from gradio_app.records import record

HOSTILE = "<img src=x onerror=alert(1)>"
ESCAPED = "&lt;img src=x onerror=alert(1)&gt;"


def verdict(probability: float) -> Verdict:
    return Client(transport=MockService(probability)).predict(b"photo", request_id="r1")


@pytest.mark.parametrize(
    ("probability", "headline", "meaning"),
    [
        (0.97, "Likely AI-generated", "at or above 90 %"),
        (0.1, "Likely a photograph", "below 35 %"),
        (0.6, "Uncertain", "between 35 % and 90 %"),
        (1.0, "over 99.9 %", "at or above 90 %"),
        (0.0, "under 0.1 %", "below 35 %"),
    ],
)
def test_a_verdict_says_what_it_means_at_its_thresholds(probability: float, headline: str, meaning: str) -> None:
    answer = verdict(probability)
    html = fragments.verdict(answer, "mug.jpg")
    assert headline in html and meaning in html and "mug.jpg" in html
    assert f'data-copy="{answer.decision_id}"' in html


def test_a_server_that_names_no_decision_is_quoted_by_its_request() -> None:
    assert 'data-copy="r1"' in fragments.verdict(verdict(0.5).model_copy(update={"decision_id": None}), "mug.jpg")


def test_names_and_answers_are_never_markup() -> None:
    answer = verdict(0.5)
    strange = answer.model_copy(
        update={
            "model": ModelInfo(name=HOSTILE, version=HOSTILE, hash=HOSTILE, profile=HOSTILE),
            "image": ImageFacts(width=9, height=9, format=HOSTILE, bytes=1, sha256=HOSTILE, animated=True),
            "request_id": HOSTILE,
            "decision_id": HOSTILE,
        }
    )
    refusal = as_problem(Overloaded(HOSTILE), HOSTILE)
    explanation = Client(transport=MockService()).explain(b"photo")
    pages = [
        fragments.verdict(strange, HOSTILE),
        fragments.facts(strange),
        fragments.problem(refusal, HOSTILE),
        fragments.banner(refusal, HOSTILE),
        fragments.health(refusal, HOSTILE, HOSTILE),
        fragments.banner(Health(status="ok", model=strange.model, device=HOSTILE, uptime=1), HOSTILE),
        fragments.health(Health(status="ok", model=strange.model, device=HOSTILE, uptime=1), HOSTILE, HOSTILE),
        fragments.history([record(HOSTILE, strange, None), record(HOSTILE, refusal, None)]),
        fragments.tree({HOSTILE: [HOSTILE]}),
        fragments.figure(explanation.model_copy(update={"verdict": strange}), HOSTILE),
    ]
    for page in pages:
        assert HOSTILE not in page
        assert ESCAPED in page


def test_data_of_any_shape_is_shown_and_cut() -> None:
    deep = {"a": {"b": {"c": {"d": {"e": "below"}}}}}
    assert fragments.tree({"made_by": "Camera", "signed": True, "when": None, "tools": ["x", "y"], "none": []}) == (
        "<dl><dt>Made by</dt><dd>Camera</dd><dt>Signed</dt><dd>yes</dd><dt>When</dt><dd>not known</dd>"
        "<dt>Tools</dt><dd><ul><li>x</li><li>y</li></ul></dd><dt>None</dt><dd>none</dd></dl>"
    )
    assert fragments.tree(deep).count("<dl>") == 4
    assert len(fragments.tree("x" * 10_000)) == 501


def test_a_field_of_a_newer_verdict_is_shown_as_it_comes() -> None:
    class Newer(Verdict):
        weather: dict[str, str]

    newer = Newer(**verdict(0.5).model_dump(), weather={"sky": "no clouds"})
    assert "<dt>Sky</dt><dd>no clouds</dd>" in fragments.facts(newer)


def test_the_banner_says_when_the_model_is_away() -> None:
    assert "its model does not" in fragments.banner(
        Health(status="unavailable", model=None, device=None, uptime=1), "a"
    )
    assert "Trying again" in fragments.banner(as_problem(Overloaded(), ""), "a")
