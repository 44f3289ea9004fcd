"""The real service over real HTTP: what an ordinary caller gets, and what a hostile one is refused."""

import asyncio
import base64
import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from detector.artefact import load
from detector.config import Settings
from detector.image import Limits
from detector.pipeline import Detector, Rules
from detector.provenance.reading import FileReader
from detector.runtime import load_runtime
from detector.schema import BatchVerdict, Explanation, Health, Problem, Verdict
from tests import serving
from tests.conftest import encoded, make_photo, remarked
from tests.provenance.samples import jpeg as jpeg_with
from tests.provenance.samples import typed, xmp_segment
from tests.provenance.signing import Authority, created, sign


def picture(data: str) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(data)))


def assert_problem(response: httpx.Response, status: int, code: str) -> Problem:
    problem = Problem.model_validate_json(response.content)
    assert (response.status_code, problem.status, problem.code) == (status, status, code)
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-request-id"] == problem.request_id
    return problem


def batch(service: httpx.Client, *photos: bytes) -> httpx.Response:
    files = [("images", (f"{index}.jpg", photo)) for index, photo in enumerate(photos)]
    return service.post("/predict/batch", files=files)


def test_a_verdict_over_http_equals_the_pipeline_s(service: httpx.Client, model_folder: Path, jpeg: bytes) -> None:
    artefact, settings = load(model_folder), Settings()
    plan, calibration = artefact.spec.plan("accurate"), artefact.calibrations["accurate"]
    runtime = load_runtime(artefact.folder, plan, "cpu", "f32", 0)

    async def score(views: np.ndarray) -> np.ndarray:
        return runtime.score(views)

    rules = Rules(calibration.thresholds, settings.verdict.medium_confidence, settings.verdict.high_confidence)
    limits = Limits(10**7, 10**7, 4096, 64, frozenset({"JPEG"}))
    info, reader = artefact.info("accurate"), FileReader()
    detector = Detector(plan, calibration, info, rules, limits, score, read=reader.read)
    expected = asyncio.run(detector.predict(jpeg, "call-1"))
    response = service.post("/predict", files={"image": jpeg}, headers={"X-Request-ID": "call-1"})
    verdict = Verdict.model_validate_json(response.content)
    assert response.status_code == 200
    assert response.headers["x-request-id"] == "call-1"
    assert verdict.probability == pytest.approx(expected.probability, abs=1e-5)
    unstable = {"timing", "probability", "cached", "decision_id"}
    assert verdict.model_dump(exclude=unstable) == expected.model_dump(exclude=unstable)
    assert verdict.timing.total >= verdict.timing.decode >= 0


def test_a_file_that_names_a_generator_gets_evidence_on_every_route(service: httpx.Client) -> None:
    labelled = jpeg_with(xmp_segment(typed("trainedAlgorithmicMedia", photoshop_Credit="Made with Google AI")))
    verdict = Verdict.model_validate_json(service.post("/predict", files={"image": labelled}).content)
    explanation = Explanation.model_validate_json(service.post("/explain", files={"image": labelled}).content)
    (item,) = BatchVerdict.model_validate_json(batch(service, labelled).content).items
    assert verdict.evidence
    assert (verdict.evidence.claim, verdict.evidence.standing) == ("generated", "unsigned")
    assert verdict.evidence.findings[0].vendor == "Google"
    assert verdict.label != "real"
    assert item.verdict
    assert item.verdict.evidence == explanation.verdict.evidence == verdict.evidence


def test_a_trusted_claim_of_generation_decides_and_leaves_the_probability(
    service: httpx.Client, authority: Authority
) -> None:
    photo = encoded(make_photo())
    signed = sign(photo, authority.issue("Maker Inc."), [created("trainedAlgorithmicMedia")])
    verdict, plain = (
        Verdict.model_validate_json(service.post("/predict", files={"image": data}).content) for data in (signed, photo)
    )
    assert (verdict.label, verdict.decided_by, plain.decided_by) == ("ai_generated", "provenance", "pixels")
    assert verdict.reason
    assert "Maker Inc." in verdict.reason
    assert verdict.probability == pytest.approx(plain.probability, abs=1e-6)


def test_a_batch_keeps_its_order_and_one_bad_photo_harms_none(service: httpx.Client) -> None:
    photos = [encoded(make_photo(100 + index, 80, index)) for index in range(3)]
    files: list[tuple[str, Any]] = [("images", (f"{index}.jpg", photo)) for index, photo in enumerate(photos)]
    files[1:1] = [("images", ("bad.jpg", b"no photo")), ("images", (None, b"http://example.com/a.jpg"))]
    answer = BatchVerdict.model_validate_json(service.post("/predict/batch", files=files).content)
    codes = [item.error.code if item.error else None for item in answer.items]
    widths = [item.verdict.image.width if item.verdict else None for item in answer.items]
    assert codes == [None, "unsupported_type", "not_a_file", None, None]
    assert widths == [100, None, None, 101, 102]
    assert [item.name for item in answer.items] == ["0.jpg", "bad.jpg", None, "1.jpg", "2.jpg"]
    assert (answer.summary.photos, answer.summary.errors) == (5, 2)


def test_twenty_photos_are_a_batch_and_twenty_one_are_too_many(service: httpx.Client, jpeg: bytes) -> None:
    assert len(BatchVerdict.model_validate_json(batch(service, *[jpeg] * 20).content).items) == 20
    assert_problem(batch(service, *[jpeg] * 21), 413, "too_many_images")


@pytest.mark.parametrize("size", [(160, 120), (70, 300)])
def test_an_explanation_has_the_photo_s_shape_and_its_region_lies_inside(
    service: httpx.Client, size: tuple[int, int]
) -> None:
    response = service.post("/explain", files={"image": encoded(make_photo(*size))}, data={"format": "png"})
    explanation = Explanation.model_validate_json(response.content)
    for drawn in (explanation.overlay, explanation.heatmap):
        assert picture(drawn.data).size == (drawn.width, drawn.height) == size
        assert picture(drawn.data).format == "PNG"
    left, top, right, bottom = explanation.region.box
    assert 0 <= left < right <= size[0]
    assert 0 <= top < bottom <= size[1]


def test_an_overlay_of_alpha_0_is_the_photo(service: httpx.Client, photo: Image.Image) -> None:
    answer = service.post("/explain", files={"image": encoded(photo, "PNG")}, data={"alpha": "0", "format": "png"})
    overlay = picture(Explanation.model_validate_json(answer.content).overlay.data)
    assert np.array_equal(np.asarray(overlay.convert("RGB")), np.asarray(photo))


@pytest.mark.parametrize(
    "option",
    [{"alpha": "1.1"}, {"alpha": "nan"}, {"alpha": "x"}, {"colormap": "hot"}, {"format": "gif"}, {"opacity": "1"}],
)
def test_an_option_that_is_not_allowed_is_refused(service: httpx.Client, jpeg: bytes, option: dict[str, str]) -> None:
    assert_problem(service.post("/explain", files={"image": jpeg}, data=option), 422, "invalid_option")


def test_health_and_probes_and_the_page_answer(service: httpx.Client) -> None:
    health = Health.model_validate_json(service.get("/health").content)
    assert health.status == "ok"
    assert health.device
    for path in ("/livez", "/readyz", "/metrics", "/docs.json", "/"):
        assert service.get(path).status_code == 200, path


REFUSED_PHOTOS = {
    "empty_image": (400, b""),
    "unsupported_type": (415, b"GIF89a, or so it says"),
    "truncated_image": (400, encoded(make_photo())[:-500]),
    "too_small": (422, encoded(make_photo(63, 64))),
    "too_many_bytes": (413, encoded(make_photo()) + bytes(10_485_760)),
    "too_many_pixels": (413, encoded(Image.new("1", (8000, 7000)), "PNG")),
}


@pytest.mark.parametrize("code", REFUSED_PHOTOS)
def test_a_photo_that_can_t_be_judged_is_refused_by_code(service: httpx.Client, code: str) -> None:
    status, data = REFUSED_PHOTOS[code]
    assert_problem(service.post("/predict", files={"image": data}), status, code)


FORM = {"content-type": "multipart/form-data; boundary=b"}
PART = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nx\r\n'
LONG = PART.replace(b'"a"', b'"' + b"a" * 10_000 + b'"')
REFUSED_BODIES: dict[str, tuple[dict[str, str], bytes, int, str]] = {
    "empty": ({}, b"", 415, "unsupported_body"),
    "json": ({"content-type": "application/json"}, b'{"image": "http://x/"}', 415, "unsupported_body"),
    "pickle": ({"content-type": "application/vnd.bentoml+pickle"}, b"\x80\x04N.", 415, "unsupported_body"),
    "no boundary": ({"content-type": "multipart/form-data"}, PART, 400, "malformed_request"),
    "wrong boundary": (FORM, PART.replace(b"--b", b"--c"), 400, "malformed_request"),
    "unfinished": (FORM, PART, 400, "malformed_request"),
    "endless name": (FORM, LONG + b"--b--\r\n", 400, "malformed_request"),
    "empty form": (FORM, b"--b--\r\n", 400, "missing_field"),
    "text": (FORM, PART.replace(b'; filename="a"', b"") + b"--b--\r\n", 400, "not_a_file"),
    "twice": (FORM, PART * 2 + b"--b--\r\n", 422, "invalid_option"),
    "unknown": (FORM, PART.replace(b"image", b"photo") + b"--b--\r\n", 422, "invalid_option"),
}


@pytest.mark.parametrize("name", REFUSED_BODIES)
def test_a_body_that_is_no_form_of_the_route_is_refused_by_code(service: httpx.Client, name: str) -> None:
    headers, body, status, code = REFUSED_BODIES[name]
    assert_problem(service.post("/predict", content=body, headers=headers), status, code)


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_over_the_limit_is_refused_while_it_streams(service: httpx.Client, announced: bool) -> None:
    def flood() -> Iterator[bytes]:
        yield PART
        for _ in range(12):
            yield bytes(1 << 20)

    body = bytes(12 << 20) if announced else flood()
    assert_problem(service.post("/predict", content=body, headers=FORM), 413, "body_too_large")


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "a\u202egpj.exe", "x" * 2_000, "a%00b", "\r\nX-Evil: 1"], ids=range(5)
)
def test_a_strange_file_name_is_only_a_label(service: httpx.Client, jpeg: bytes, name: str) -> None:
    response = service.post("/predict/batch", files={"images": (name, jpeg)})
    item = BatchVerdict.model_validate_json(response.content).items[0]
    assert item.verdict
    assert item.name is None or (len(item.name) <= 255 and item.name.isprintable() and "/" not in item.name)


def test_an_address_is_never_fetched(service: httpx.Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/a.jpg"
        assert_problem(service.post("/predict", files={"image": (None, address)}), 400, "not_a_file")
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("PUT", "/predict", 405, "method_not_allowed"),
        ("GET", "/predict", 405, "method_not_allowed"),
        ("OPTIONS", "/predict", 405, "method_not_allowed"),
        ("GET", "/nothing", 404, "not_found"),
    ],
)
def test_what_is_not_there_is_a_problem_too(
    service: httpx.Client, method: str, path: str, status: int, code: str
) -> None:
    answer = service.request(method, path)
    assert_problem(answer, status, code)
    assert answer.headers.get("allow") == ("POST" if status == 405 else None)


@pytest.mark.parametrize("given", ["a b", "x" * 65, "<script>", ""])
def test_a_request_id_that_could_do_harm_is_replaced(service: httpx.Client, given: str) -> None:
    taken = service.get("/health", headers={"X-Request-ID": given}).headers["x-request-id"]
    assert taken != given
    assert taken.isalnum()


def test_a_caller_who_hangs_up_harms_nobody(service: httpx.Client, jpeg: bytes) -> None:
    with socket.create_connection((service.base_url.host, service.base_url.port or 80)) as caller:
        caller.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\n")
        caller.sendall(b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + PART)
    assert service.post("/predict", files={"image": jpeg}).status_code == 200


def test_four_hundred_requests_by_sixteen_callers_are_all_answered(service: httpx.Client, jpeg: bytes) -> None:
    """BentoML's own client behind `depends` would close its session every 100 requests, under those in flight."""

    def judged(number: int) -> tuple[int, str]:
        answer = service.post("/predict", files={"image": remarked(jpeg, number)})
        return answer.status_code, answer.headers["x-cache"]

    with ThreadPoolExecutor(16) as callers:
        assert set(callers.map(judged, range(400))) == {(200, "miss")}


def start(home: Path, **settings: str) -> tuple[int, str]:
    """Exit status and what was said by a service that should not start."""
    done = subprocess.run(
        serving.command(serving.free_port()),
        cwd=serving.ROOT, env=serving.environment(home, **settings), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"PPD_PHOTO__MAX_BITES": "1"}, "photo.max_bites is not a known setting"),
        ({"PPD_MODEL__PROFILE": "best"}, "The model has no profile best; it has accurate, fast."),
        ({"PPD_MODEL__TAG": "nothing:latest"}, "There is no model nothing:latest in the Bento store"),
    ],
)
def test_a_service_that_can_t_start_says_why_in_one_line(
    bento_home: Path, settings: dict[str, str], sentence: str
) -> None:
    status, said = start(bento_home, **settings)
    assert status != 0
    assert sentence in said
    assert "Traceback" not in said


def test_a_tampered_model_stops_the_start(bento_home: Path, tmp_path: Path) -> None:
    shutil.copytree(bento_home, tmp_path / "bento")
    next((tmp_path / "bento").rglob("calibration.json")).write_text("{}")
    status, said = start(tmp_path / "bento")
    assert status != 0
    assert "calibration.json" in said
    assert "Traceback" not in said


def test_the_environment_sets_limits_and_origins(bento_home: Path, tmp_path: Path, jpeg: bytes) -> None:
    origin = "https://desk.example"
    settings = {"PPD_BATCH__MAX_IMAGES": "1", "PPD_CORS__ALLOW_ORIGINS": f"[{origin}]"}
    with serving.serving(bento_home, tmp_path / "log", **settings) as service:
        assert batch(service, jpeg).status_code == 200
        service.headers["Origin"] = origin
        refused = batch(service, jpeg, jpeg)
        assert_problem(refused, 413, "too_many_images")
        assert refused.headers["access-control-allow-origin"] == origin
        unknown = service.get("/nothing")
        assert unknown.headers["access-control-allow-origin"] == origin
