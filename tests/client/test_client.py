"""The client gives back the service's own types, and raises the service's own errors."""

import asyncio
import base64
import inspect
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from PIL import Image

from detector.client import AsyncClient, Client, MockService, Retry
from detector.errors import (
    DetectorError,
    EmptyImage,
    InternalError,
    ModelUnavailable,
    NotAFile,
    Overloaded,
    TimedOut,
    TooManyBytes,
    TooManyImages,
    TooSmall,
    by_code,
)
from detector.problems import problem_response
from detector.schema import BatchVerdict, Explanation, Health, Verdict
from tests.conftest import encoded, make_photo

ONCE = Retry(attempts=1)


@pytest.fixture
def client(service: httpx.Client) -> Iterator[Client]:
    with Client(str(service.base_url)) as made:
        yield made


def test_every_call_has_its_answer(client: Client, jpeg: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg)
    verdict = client.predict(jpeg)
    assert client.predict(path).probability == verdict.probability
    batch = client.predict_batch([path, b""])
    assert batch.items[0].name == "a.jpg"
    assert batch.items[1].error and batch.items[1].error.code == "empty_image"
    explanation = client.explain(str(path), alpha=0.25, colormap="jet", format="png")
    assert (explanation.alpha, explanation.colormap) == (0.25, "jet")
    assert client.health().status == "ok"


def test_the_asynchronous_client_answers_the_same(service: httpx.Client, client: Client, jpeg: bytes) -> None:
    async def ask() -> tuple[Verdict, BatchVerdict, Explanation, Health]:
        async with AsyncClient(str(service.base_url)) as twin:
            return (
                await twin.predict(BytesIO(jpeg)),
                await twin.predict_batch([jpeg, b""]),
                await twin.explain(jpeg, colormap="gray"),
                await twin.health(),
            )

    verdict, batch, explanation, health = asyncio.run(ask())
    assert verdict.probability == pytest.approx(client.predict(jpeg).probability, abs=1e-5)
    assert (batch.summary.photos, batch.summary.errors) == (2, 1)
    assert (explanation.colormap, health.status) == ("gray", "ok")


def test_sync_and_async_have_the_same_methods_and_arguments() -> None:
    def signatures(kind: type) -> dict[str, list[str]]:
        public = {name: value for name, value in vars(kind).items() if not name.startswith("_") and callable(value)}
        return {name: list(inspect.signature(value).parameters) for name, value in public.items()}

    assert signatures(Client) == signatures(AsyncClient)
    assert list(inspect.signature(Client).parameters) == list(inspect.signature(AsyncClient).parameters)


def test_forty_five_photos_come_back_in_order_with_their_errors(client: Client) -> None:
    photos = [encoded(make_photo(64 + index, 70, index)) for index in range(45)]
    photos[3], photos[44] = b"broken", b""
    seen: list[tuple[int, int]] = []
    batch = client.predict_batch(photos, on_progress=lambda done, total: seen.append((done, total)))
    assert [item.index for item in batch.items] == list(range(45))
    assert [item.verdict.image.width - 64 if item.verdict else None for item in batch.items] == [
        None if index in (3, 44) else index for index in range(45)
    ]
    assert {item.index: item.error.code for item in batch.items if item.error} == {
        3: "unsupported_type",
        44: "empty_image",
    }
    assert batch.summary.errors == 2
    assert seen[-1] == (45, 45) and len(seen) == 3


def test_a_refusal_is_raised_as_what_it_is(client: Client) -> None:
    with pytest.raises(EmptyImage) as refused:
        client.predict(b"", request_id="my-call")
    assert refused.value.request_id == "my-call"
    with pytest.raises(TooSmall, match="64"):
        client.explain(encoded(make_photo(32, 32)))


def test_a_pil_image_is_judged_as_its_pixels_are_turned(client: Client) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    stored = Image.open(BytesIO(encoded(make_photo(200, 100), "PNG", exif=turned)))
    verdict = client.predict(stored)
    assert (verdict.image.width, verdict.image.height) == (100, 200)
    assert client.predict(stored.convert("CMYK")).image.format == "PNG"


def answering(response: httpx.Response) -> Client:
    return Client(transport=httpx.MockTransport(lambda _: response), retry=ONCE)


@pytest.mark.parametrize("kind", by_code().values(), ids=lambda kind: kind.code)
def test_every_error_comes_back_by_its_code(kind: type[DetectorError]) -> None:
    sent = problem_response(kind("So it is.", retry_after=3), "r1")
    response = httpx.Response(sent.status_code, headers=dict(sent.headers), content=sent.body)
    with pytest.raises(kind) as raised:
        answering(response).predict(b"")
    assert (raised.value.detail, raised.value.retry_after, raised.value.request_id) == ("So it is.", 3, "r1")


def test_a_stranger_s_answer_is_an_internal_error() -> None:
    for response in (httpx.Response(502, text="<html>"), httpx.Response(200, text="<html>"), httpx.Response(200)):
        with pytest.raises(InternalError):
            answering(response).predict(b"")


def failing(error: Exception) -> httpx.MockTransport:
    def fail(request: httpx.Request) -> httpx.Response:
        raise error

    return httpx.MockTransport(fail)


def test_silence_is_model_unavailable() -> None:
    with pytest.raises(ModelUnavailable, match="does not answer"):
        Client(transport=failing(httpx.ConnectError("nobody"))).health()


def test_a_slow_answer_is_timed_out_and_not_asked_again() -> None:
    slept: list[float] = []
    with pytest.raises(TimedOut, match="60 seconds"):
        Client(transport=failing(httpx.ReadTimeout("slow")), sleep=slept.append).predict(b"x")
    assert slept == []


def test_the_deadline_cuts_a_slow_attempt_and_says_so() -> None:
    limits: list[dict[str, float]] = []

    def slow(request: httpx.Request) -> httpx.Response:
        limits.append(request.extensions["timeout"])
        raise httpx.ReadTimeout("slow")

    with pytest.raises(TimedOut, match="longer than 5 seconds"):
        Client(transport=httpx.MockTransport(slow), retry=Retry(deadline=5), clock=lambda: 0.0).predict(b"x")
    assert limits[0]["read"] == 5


def test_what_may_pass_is_tried_again_with_one_request_id() -> None:
    service, slept = MockService(0.97, script=[Overloaded(retry_after=3), ModelUnavailable()]), list[float]()
    client = Client(transport=service, sleep=slept.append, random=lambda: 1.0, ids=lambda: "one")
    assert client.predict(b"photo").label == "ai_generated"
    assert slept == [3.5, 1.0]
    assert [request.headers["x-request-id"] for request in service.requests] == ["one"] * 3


def test_what_cannot_pass_is_asked_once() -> None:
    service = MockService(TooSmall())
    with pytest.raises(TooSmall):
        Client(transport=service, sleep=lambda _: pytest.fail("slept")).predict(b"photo")
    assert len(service.requests) == 1


def test_the_deadline_ends_the_attempts() -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    service = MockService(script=[Overloaded(retry_after=20)] * 9)
    client = Client(transport=service, retry=Retry(deadline=50), clock=lambda: now[0], sleep=sleep, random=lambda: 0.0)
    with pytest.raises(Overloaded):
        client.predict(b"photo")
    assert (len(service.requests), now[0]) == (3, 40.75)


def test_the_key_goes_to_the_service_alone_and_is_never_printed() -> None:
    service = MockService()
    client = Client("http://service", "s3cret", transport=service)
    with pytest.raises(NotAFile, match=r"shop\.example answered 404"):
        client.predict("https://shop.example/a.jpg")
    client.health()
    elsewhere, here = service.requests
    assert "x-api-key" not in elsewhere.headers
    assert here.headers["x-api-key"] == "s3cret"
    assert "s3cret" not in f"{client!r} {client._connection!r}"


def test_arguments_win_over_the_environment() -> None:
    environ = {"PPD_ADDRESS": "http://there:1/", "PPD_API_KEY": "old"}
    service = MockService()
    client = Client(environ=environ, transport=service)
    client.health()
    client.with_key("new").health()
    assert [str(request.url) for request in service.requests] == ["http://there:1/health"] * 2
    assert [request.headers["x-api-key"] for request in service.requests] == ["old", "new"]
    assert Client("http://here", environ=environ).address == "http://here"
    assert Client(environ={}).address == "http://localhost:3000"


def serving_photo(data: bytes, status: int = 200) -> httpx.MockTransport:
    """A shop that serves one photo, after a redirect, beside the service."""
    service = MockService(0.1)

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.host != "shop.example":
            return service.handle_request(request)
        if request.url.path == "/old":
            return httpx.Response(302, headers={"Location": "https://shop.example/cup%201.jpg"})
        return httpx.Response(status, content=data)

    return httpx.MockTransport(handle)


def test_a_web_address_is_fetched_here_and_its_bytes_are_sent() -> None:
    verdict = Client(transport=serving_photo(b"bytes of a photo")).predict("https://shop.example/old")
    assert verdict.image.sha256 == Client(transport=MockService()).predict(b"bytes of a photo").image.sha256


@pytest.mark.parametrize(
    ("data", "status", "kind"), [(b"x" * 101, 200, TooManyBytes), (b"", 200, EmptyImage), (b"no", 403, NotAFile)]
)
def test_a_download_that_is_no_photo_is_refused(data: bytes, status: int, kind: type[DetectorError]) -> None:
    shop = serving_photo(data, status)
    with pytest.raises(kind, match=r"shop\.example"):
        Client(transport=shop, max_download=100).predict("https://shop.example/a.jpg")

    async def ask() -> None:
        async with AsyncClient(transport=shop, max_download=100) as client:
            await client.predict("https://shop.example/a.jpg")

    with pytest.raises(kind, match=r"shop\.example"):
        asyncio.run(ask())


def test_an_answer_about_other_bytes_is_refused() -> None:
    stale = Client(transport=MockService()).predict(b"an older photo").model_dump_json()
    with pytest.raises(InternalError, match="another photo"):
        answering(httpx.Response(200, text=stale)).predict(b"this photo")


def test_a_batch_takes_a_missing_file_as_that_photo_s_error(tmp_path: Path) -> None:
    batch = Client(transport=MockService(0.97)).predict_batch([b"a", tmp_path / "gone.jpg", b"c"])
    item = batch.items[1]
    assert (item.name, item.error and item.error.code) == ("gone.jpg", "not_a_file")
    assert item.error and item.error.detail == "The file can't be read: No such file or directory."
    with pytest.raises(FileNotFoundError):
        Client(transport=MockService()).predict(tmp_path / "gone.jpg")


def test_a_request_too_large_is_halved_until_it_fits() -> None:
    service = MockService(0.1)

    def three_at_most(request: httpx.Request) -> httpx.Response:
        if request.read().count(b'name="images"') > 3:
            service.script = [TooManyImages()]
        return service.handle_request(request)

    batch = Client(transport=httpx.MockTransport(three_at_most)).predict_batch([bytes([n]) for n in range(10)])
    assert batch.summary.real == 10
    assert [item.index for item in batch.items] == list(range(10))


def test_a_refusal_that_meets_every_request_ends_the_batch() -> None:
    service = MockService(script=[ModelUnavailable("Gone.")] * 9)
    batch = Client(transport=service, retry=ONCE).predict_batch([b"a"] * 100, concurrency=1)
    assert len(service.requests) == 1
    assert {item.error.detail for item in batch.items if item.error} == {"Gone."}
    assert batch.summary.errors == 100


def test_no_photos_are_an_empty_batch() -> None:
    assert Client(transport=MockService()).predict_batch([]).summary.photos == 0


def test_async_batches_never_exceed_their_concurrency() -> None:
    service, full, inside, most = MockService(0.1), asyncio.Barrier(3), 0, 0

    async def handle(request: httpx.Request) -> httpx.Response:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await full.wait()  # all of the twelve come in threes, or the client is too timid
        inside -= 1
        return service.handle_request(request)

    async def ask() -> BatchVerdict:
        async with asyncio.timeout(60), AsyncClient(transport=httpx.MockTransport(handle)) as client:
            return await client.predict_batch([bytes([n]) for n in range(60)], size=5, concurrency=3)

    assert asyncio.run(ask()).summary.real == 60
    assert most == 3


def test_answers_say_themselves_to_people_and_notebooks() -> None:
    client = Client(transport=MockService(0.97))
    verdict, explanation = client.predict(b"a"), client.explain(b"a")
    assert str(verdict) == "Likely AI-generated: 97.0 % probability of AI, high confidence"
    assert "90 %" in verdict._repr_html_()
    assert f'src="data:image/png;base64,{explanation.overlay.data}"' in explanation._repr_html_()
    assert explanation.overlay.data not in repr(explanation)
    assert explanation.overlay.decode() == base64.b64decode(explanation.overlay.data)
    hostile = client.predict_batch([named("<script>.jpg")])
    assert "<script>" not in hostile._repr_html_() and "&lt;script&gt;" in hostile._repr_html_()


def named(name: str) -> BytesIO:
    file = BytesIO(b"photo")
    file.name = name
    return file
