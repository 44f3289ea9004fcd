"""What the page does when a person acts, without a browser."""

from pathlib import Path

import pytest

from detector.client import Client, MockService, Retry
from detector.errors import DetectorError, ModelUnavailable, Overloaded, TooSmall
from gradio_app.desk import NOTHING, Desk, pictures, rows
from tests.conftest import encoded, make_photo


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "mug.jpg"
    file.write_bytes(encoded(make_photo()))
    return str(file)


def desk(service: MockService) -> Desk:
    return Desk(Client(api_key="own", transport=service, retry=Retry(attempts=1)))


def test_a_session_s_key_replaces_the_page_s(path: str) -> None:
    service = MockService()
    desk(service).look(path, "jet", "typed")
    desk(service).look(path, "jet", "")
    assert [request.headers["x-api-key"] for request in service.requests] == ["typed", "own"]


def test_one_photo_has_verdict_heat_map_facts_and_record(path: str) -> None:
    seen = desk(MockService(0.97)).look(path, "inferno", "")
    assert "Likely AI-generated" in seen.card and 'class="heat"' in seen.figure and "SHA-256" in seen.facts
    assert seen.record and (seen.record.name, seen.record.kind, seen.waiting) == ("mug.jpg", "ai_generated", False)


def test_a_photo_removed_in_the_meantime_is_asked_for_again(path: str) -> None:
    Path(path).unlink()
    assert "choose it again" in desk(MockService()).look(path, "jet", "").card


def test_no_photo_shows_nothing() -> None:
    assert desk(MockService()).look(None, "jet", "") == NOTHING


@pytest.mark.parametrize(
    ("error", "waits"), [(TooSmall("Tiny."), False), (Overloaded("Busy."), True), (ModelUnavailable("Away."), True)]
)
def test_a_refusal_is_shown_in_the_service_s_words_and_asked_again_if_it_may_pass(
    error: DetectorError, waits: bool, path: str
) -> None:
    seen = desk(MockService(script=[error])).look(path, "jet", "")
    assert error.detail in seen.card and seen.waiting is waits and seen.figure == ""
    assert ("asks again by itself" in seen.card) is waits


def test_many_photos_keep_their_order_and_errors(path: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"broken")
    service = MockService(lambda photo: TooSmall("Tiny.") if photo == b"broken" else 0.1)
    seen: list[tuple[int, int]] = []
    judged = desk(service).judge([path, str(broken), path], "", lambda done, total: seen.append((done, total)))
    assert rows(judged) == [
        [1, "mug.jpg", "Likely a photograph", 10.0, "high", ""],
        [2, "broken.jpg", "Not judged", None, "", "Tiny."],
        [3, "mug.jpg", "Likely a photograph", 10.0, "high", ""],
    ]
    assert [caption for _, caption in pictures(judged)] == [
        "1. Likely a photograph, 10.0 % AI",
        "2. Not judged",
        "3. Likely a photograph, 10.0 % AI",
    ]
    assert seen == [(3, 3)]


def test_drift_is_told_in_the_service_s_words_or_with_its_refusal() -> None:
    assert desk(MockService()).drift("") == "A stand-in compares nothing."
    assert desk(MockService(script=[Overloaded("Busy.")])).drift("") == "Busy."
