"""detector.watch and GET /drift: verdicts are counted, gauges told, and a fault costs no answer."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import pytest

from detector import keyring, metrics
from detector.client import AsyncClient, Client, MockService
from detector.drift import Rules, read_baseline
from detector.errors import Forbidden
from detector.schema import Drift, ModelInfo, Thresholds, Verdict
from detector.watch import Watch
from detector.windows import Windows
from tests import serving
from tests.conftest import BASELINE, encoded, make_photo, remarked
from tests.redis_server import RedisServer
from tests.test_decisions import VERDICT
from tests.test_gate import wait_for_metric
from tests.test_service import assert_problem

HELD = read_baseline(BASELINE, "fast", Thresholds(real=0.3, ai_generated=0.9))
RULES = Rules(photos=100, min_photos=50, windows=1)
MODEL = ModelInfo(name="m", version="1", hash="0", profile="fast")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def watching(work: Callable[[Watch, Clock], Awaitable[None]], interval: float = 1000.0) -> None:
    async def scenario() -> None:
        clock = Clock()
        watch = Watch(HELD, Windows("s", 10, 3600, clock=clock), RULES, MODEL, interval)
        try:
            await work(watch, clock)
        finally:
            await watch.close()

    asyncio.run(scenario())


def see(watch: Watch, clock: Clock, photos: int, width: float) -> None:
    for turn in range(photos):
        verdict = VERDICT.model_copy(update={"probability": 0.2 + 0.8 * (turn % 4) / 3 * 0.9})
        watch.see(verdict, {"width": width})
        clock.now += 1


def gauge(feature: str) -> float:
    return metrics.DRIFT_ALARM.labels(feature)._value.get()  # type: ignore[no-any-return]


def test_a_look_tells_the_gauges() -> None:
    async def work(watch: Watch, clock: Clock) -> None:
        see(watch, clock, 120, 300)
        await watch.look()
        assert gauge("width") == 0
        see(watch, clock, 120, 150)
        await watch.look()
        assert gauge("width") == 1
        assert metrics.DRIFT_SCORE.labels("width", "kolmogorov_smirnov")._value.get() == pytest.approx(1, abs=0.05)

    watching(work)


def test_rounds_begin_with_the_first_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(watch: Watch, clock: Clock) -> None:
        see(watch, clock, 3, 300)
        told = asyncio.Event()
        monkeypatch.setattr(metrics.DRIFT_PHOTOS, "set", lambda photos: told.set() if photos == 3 else None)
        async with asyncio.timeout(10):
            await told.wait()

    watching(work, interval=0.01)


def test_remembered_verdicts_are_counted_apart() -> None:
    async def work(watch: Watch, clock: Clock) -> None:
        see(watch, clock, 4, 300)
        for _ in range(9):
            watch.see(VERDICT.model_copy(update={"cached": True}), {})
        found = await watch.report()
        assert (found.photos, found.cached) == (4, 9)

    watching(work)


def test_a_fault_is_told_once_and_costs_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError

    async def work(watch: Watch, clock: Clock) -> None:
        monkeypatch.setattr(Windows, "add", broken)
        see(watch, clock, 5, 300)

    with caplog.at_level(logging.ERROR):
        watching(work)
    assert len(caplog.records) == 1


@pytest.fixture(scope="module")
def watched(bento_home: Path, tmp_path_factory: pytest.TempPathFactory, redis_folder: Path) -> Iterator[httpx.Client]:
    """Two HTTP processes, one Redis, keys, and windows small enough for a test."""
    folder, server = tmp_path_factory.mktemp("watched"), RedisServer(redis_folder)
    server.start()
    held = {}
    keys = {}
    for name, scopes in (("eye", ["drift"]), ("desk", ["predict", "batch"])):
        keys[name], key = keyring.mint(name, scopes, keyring.now())  # type: ignore[arg-type]
        held[key.id] = key
    keyring.write(folder / "keys.json", held)
    settings = {
        "PPD_AUTH__KEYS_FILE": str(folder / "keys.json"),
        "PPD_API__WORKERS": "2",
        "PPD_REDIS__URL": server.url,
        "PPD_DRIFT__BUCKET": "1",
        "PPD_DRIFT__SPAN": "600",
        "PPD_DRIFT__INTERVAL": "0.2",
        "PPD_DRIFT__PHOTOS": "100",
        "PPD_DRIFT__MIN_PHOTOS": "60",
        "PPD_DRIFT__WINDOWS": "1",
    }
    try:
        with serving.serving(bento_home, folder / "log", **settings) as http:
            http.headers["eye"], http.headers["desk"] = keys["eye"], keys["desk"]
            yield http
    finally:
        server.stop()


def client(watched: httpx.Client, name: str) -> Client:
    return Client(str(watched.base_url), api_key=watched.headers[name])


def test_the_report_needs_its_own_scope(watched: httpx.Client) -> None:
    with client(watched, "desk") as desk, pytest.raises(Forbidden):
        desk.drift()
    assert_problem(watched.get("/drift"), 401, "unauthenticated")


def test_photos_of_every_process_and_route_are_judged_and_told(watched: httpx.Client) -> None:
    """All are half as wide as the baseline's."""
    photos = [remarked(encoded(make_photo()), number) for number in range(61)]
    with client(watched, "desk") as desk, client(watched, "eye") as eye:
        desk.predict(photos[0])
        for start in range(1, 61, 12):
            desk.predict_batch(photos[start : start + 12], size=4)
        desk.predict(photos[0])
        found = settled(eye, photos=61, cached=1)
    assert (found.photos, found.cached, found.sharing) == (61, 1, "all_processes")
    (width,) = (one for one in found.features if one.feature == "width")
    assert width.live[0] == 1.0 and width.kolmogorov_smirnov == 1.0
    assert width.verdict == "drifted"
    wait_for_metric(watched, 'ppd_drift_alarm{feature="width"}', 1.0)
    assert 'ppd_drift_score{feature="width",test="psi"}' in watched.get("/metrics").text


def settled(eye: Client, photos: int, cached: int) -> Drift:
    """Processes tell what they counted a moment later."""
    deadline = time.monotonic() + 20
    while (found := eye.drift()) and (found.photos, found.cached) != (photos, cached) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def test_a_service_that_does_not_watch_says_so(bento_home: Path, tmp_path: Path, jpeg: bytes) -> None:
    with serving.serving(bento_home, tmp_path / "log", PPD_DRIFT__ENABLED="false") as http:
        verdict = Verdict.model_validate_json(http.post("/predict", files={"image": jpeg}).content)
        assert verdict.probability >= 0
        assert_problem(http.get("/drift"), 404, "drift_off")


def test_the_stand_in_and_the_asynchronous_client_report_too() -> None:
    async def ask() -> Drift:
        async with AsyncClient(transport=MockService()) as twin:
            return await twin.drift()

    assert asyncio.run(ask()) == Client(transport=MockService()).drift()
