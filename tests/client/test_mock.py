"""The stand-in answers as the real service does."""

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.client import Client, MockService
from detector.client.mock import grey_png, read_form
from detector.errors import MissingField, NotAFile, RouteNotFound, TooSmall
from tests.conftest import encoded, make_photo


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4))
def test_a_form_is_read_byte_for_byte(contents: list[bytes]) -> None:
    files = [("images", (f"{index}.jpg", data)) for index, data in enumerate(contents)]
    request = httpx.Request("POST", "http://mock/predict/batch", files=files)
    assert read_form(request) == [("images", f"{index}.jpg", data) for index, data in enumerate(contents)]


def test_a_photo_decides_its_own_answer() -> None:
    answers = {b"a": 0.1, b"b": TooSmall("Tiny."), b"c": 0.95, b"d": 0.5}
    batch = Client(transport=MockService(lambda photo: answers[photo])).predict_batch(list(answers))
    assert [item.verdict.label if item.verdict else item.error.code if item.error else "" for item in batch.items] == [
        "real",
        "too_small",
        "ai_generated",
        "uncertain",
    ]


def test_it_answers_with_the_fields_of_the_real_service(service: httpx.Client) -> None:
    photo = encoded(make_photo())
    with Client(str(service.base_url)) as real, Client(transport=MockService()) as mock:
        for ask in (Client.predict, Client.explain):
            assert ask(mock, photo).model_dump().keys() == ask(real, photo).model_dump().keys()
        assert mock.health().model_dump().keys() == real.health().model_dump().keys()


@pytest.mark.parametrize(
    ("path", "kind"), [("/nowhere", RouteNotFound), ("/predict", MissingField), ("/explain", MissingField)]
)
def test_it_refuses_what_the_service_refuses(path: str, kind: type[Exception]) -> None:
    with httpx.Client(transport=MockService(), base_url="http://mock") as http:
        answer = http.post(path)
    assert answer.json()["code"] == kind.code  # type: ignore[attr-defined]


def test_text_in_a_batch_is_that_item_s_error() -> None:
    with httpx.Client(transport=MockService(), base_url="http://mock") as http:
        answer = http.post("/predict/batch", files=[("images", (None, b"http://x/"))])
    assert answer.json()["items"][0]["error"]["code"] == NotAFile.code


def test_its_pictures_are_pictures() -> None:
    from io import BytesIO

    from PIL import Image

    assert Image.open(BytesIO(grey_png(10, 7))).getcolors() == [(100, 7)]
