"""The gate of the real service, over real HTTP and a real Redis: keys, tokens, budgets, cache, loss and shutdown."""

import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import jwt
import psutil
import pytest

from detector import keyring, keys
from detector.keyring import Scope
from detector.schema import Verdict
from tests import serving
from tests.conftest import encoded, make_photo, remarked
from tests.redis_server import RedisServer
from tests.test_service import assert_problem, batch

ORIGIN = "https://desk.example"
SECRET = "a shared secret of more than 32 bytes"


@dataclass(frozen=True)
class Guarded:
    """A running service that asks for keys, and what a test needs to get in."""

    http: httpx.Client
    key_file: Path
    redis: RedisServer
    log: Path

    def key(self, name: str, *scopes: Scope) -> dict[str, str]:
        """The header of a new key; the service reads the file again within a second."""
        text, kept = keyring.mint(name, scopes or ("predict", "batch", "explain"), keyring.now())
        keyring.write(self.key_file, keyring.read(self.key_file) | {kept.id: kept})
        header = {"X-API-Key": text}
        self._wait_until_known(header)
        return header

    def _wait_until_known(self, header: dict[str, str]) -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if self.http.post("/explain", files={"other": b""}, headers=header).status_code not in (401, 429):
                return
            time.sleep(0.1)
        raise AssertionError("the key file was not read again")


@pytest.fixture(scope="module")
def guarded(bento_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    keyring.write(folder / "keys.json", {})
    (folder / "secret").write_text(SECRET + "\n")
    redis = RedisServer(folder)
    redis.start()
    settings = {
        "AUTH__KEYS_FILE": str(folder / "keys.json"),
        "AUTH__MAX_FAILURES": "200",
        "JWT__SECRET_FILE": str(folder / "secret"),
        "JWT__ISSUER": "https://id.example",
        "JWT__AUDIENCE": "photos",
        "LIMITS__PREDICT": "10000/minute",
        "LIMITS__BATCH": "6/minute",
        "REDIS__URL": redis.url,
        "REDIS__RETRY_INTERVAL": "0.2",
        "API__UPLOAD_GRACE": "0.5",
        "CORS__ALLOW_ORIGINS": f"[{ORIGIN}]",
    }
    log = folder / "serve.log"
    environment = {f"PPD_{name}": value for name, value in settings.items()}
    with serving.serving(bento_home, log, **environment) as http:
        yield Guarded(http, folder / "keys.json", redis, log)
    redis.stop()


def token(**claims: object) -> dict[str, str]:
    plain = {"iss": "https://id.example", "aud": "photos", "sub": "alice", "exp": time.time() + 60}
    return {"Authorization": "Bearer " + jwt.encode(plain | claims, SECRET, "HS256")}


def test_a_stranger_is_told_how_to_ask_and_a_browser_can_read_it(guarded: Guarded, jpeg: bytes) -> None:
    answer = guarded.http.post("/predict", files={"image": jpeg}, headers={"Origin": ORIGIN})
    assert_problem(answer, 401, "unauthenticated")
    assert "Bearer" in answer.headers["www-authenticate"]
    assert answer.headers["access-control-allow-origin"] == ORIGIN


def test_probes_pages_and_preflight_ask_nobody(guarded: Guarded) -> None:
    for path in ("/livez", "/readyz", "/metrics", "/health", "/docs.json", "/"):
        assert guarded.http.get(path).status_code == 200, path
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}
    assert guarded.http.options("/predict", headers=asked).status_code == 200


def test_a_key_opens_what_its_scopes_name_until_it_is_revoked(guarded: Guarded, jpeg: bytes) -> None:
    header = guarded.key("till", "predict", "explain")
    assert guarded.http.post("/predict", files={"image": jpeg}, headers=header).status_code == 200
    refused = guarded.http.post("/predict/batch", files={"images": jpeg}, headers=header)
    assert "`batch`" in assert_problem(refused, 403, "forbidden").detail
    keys.main([str(guarded.key_file), "revoke", header["X-API-Key"].split("_")[1]])
    time.sleep(1.1)  # the setting's interval: the one thing waited for here
    answer = guarded.http.post("/predict", files={"image": jpeg}, headers=header)
    assert "revoked" in assert_problem(answer, 401, "unauthenticated").detail


def test_a_token_opens_what_its_claims_name(guarded: Guarded, jpeg: bytes) -> None:
    header = token(scope="predict profile")
    assert guarded.http.post("/predict", files={"image": jpeg}, headers=header).status_code == 200
    assert_problem(guarded.http.post("/explain", files={"image": jpeg}, headers=header), 403, "forbidden")
    late = guarded.http.post("/predict", files={"image": jpeg}, headers=token(scope="predict", exp=1))
    assert "expired" in assert_problem(late, 401, "unauthenticated").detail


def test_a_batch_costs_its_photos(guarded: Guarded) -> None:
    photos = [encoded(make_photo(seed=seed)) for seed in range(4)]
    guarded.http.headers = httpx.Headers(guarded.key("counter"))
    first, second = batch(guarded.http, *photos), batch(guarded.http, *photos)
    guarded.http.headers = httpx.Headers()
    assert (first.status_code, first.headers["ratelimit-remaining"]) == (200, "2")
    assert_problem(second, 429, "rate_limited")
    assert 1 <= int(second.headers["retry-after"]) <= 60


def test_a_photo_seen_before_is_a_hit_with_an_id_of_its_own(guarded: Guarded, jpeg: bytes) -> None:
    header, photo = guarded.key("again"), remarked(jpeg, 77)
    answers = [
        guarded.http.post("/predict", files={"image": photo}, headers=header | {"X-Request-ID": f"call-{turn}"})
        for turn in range(2)
    ]
    assert [answer.headers["x-cache"] for answer in answers] == ["miss", "hit"]
    first, second = (Verdict.model_validate_json(answer.content) for answer in answers)
    assert (second.request_id, second.cached, second.probability) == ("call-1", True, first.probability)


def test_an_address_that_a_stranger_claims_does_not_count(guarded: Guarded, jpeg: bytes) -> None:
    """Otherwise each wrong key would come from an address of its own; uvicorn alone would believe it."""
    statuses = Counter[int]()
    for turn in range(210):
        claimed = {"X-Forwarded-For": f"203.0.113.{turn}", "X-API-Key": "ppd_wrong"}
        statuses[guarded.http.post("/predict", headers=claimed).status_code] += 1
    assert statuses[429] >= 10
    assert set(statuses) == {401, 429}


def test_a_body_that_dribbles_is_answered_408(guarded: Guarded) -> None:
    key = guarded.key("snail")["X-API-Key"]
    address = (guarded.http.base_url.host, guarded.http.base_url.port or 80)
    with socket.create_connection(address, 10) as caller:
        caller.sendall(f"POST /predict HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\nContent-Length: 9999\r\n".encode())
        caller.sendall(b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n")
        answer = b"".join(iter(lambda: caller.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"slow_upload" in answer


def test_redis_dies_and_comes_back_under_load_without_one_failed_request(guarded: Guarded, jpeg: bytes) -> None:
    header, ended = guarded.key("load"), threading.Event()

    def call(caller: int) -> Counter[int]:
        statuses, turn = Counter[int](), 0
        while not ended.is_set():
            turn += 1
            photo = remarked(jpeg, caller * 1_000_000 + turn)
            statuses[guarded.http.post("/predict", files={"image": photo}, headers=header).status_code] += 1
        return statuses

    with ThreadPoolExecutor(4) as callers:
        running = [callers.submit(call, caller) for caller in range(4)]
        try:
            guarded.redis.stop()
            wait_for_metric(guarded.http, "ppd_redis_up", 0.0)
            guarded.redis.start()
            wait_for_metric(guarded.http, "ppd_redis_up", 1.0)
        finally:
            ended.set()
        statuses = sum((future.result() for future in running), Counter[int]())
    assert set(statuses) == {200}
    said = guarded.log.read_text()
    assert said.count("Redis is gone") == said.count("Redis answers again") == 1
    assert SECRET not in said
    assert header["X-API-Key"] not in said


def wait_for_metric(http: httpx.Client, name: str, value: float) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = re.search(rf"^{name}(?:{{.*}})? (\S+)$", http.get("/metrics").text, re.MULTILINE)
        if found and float(found[1]) == value:
            return
        time.sleep(0.05)
    raise AssertionError(f"{name} is not {value}")


def test_a_killed_worker_is_replaced_and_sigterm_finishes_what_is_in_flight(bento_home: Path, tmp_path: Path) -> None:
    large = encoded(make_photo(4000, 3000), quality=95)
    with serving.launched(bento_home, tmp_path / "log") as (http, process):
        worker = next(
            one for one in psutil.Process(process.pid).children() if "product_photo_detector" in one.cmdline()
        )
        worker.kill()
        serving.wait_until_ready(http, process, tmp_path / "log")
        with ThreadPoolExecutor(6) as callers:
            asked = [callers.submit(http.post, "/predict", files={"image": remarked(large, n)}) for n in range(6)]
            wait_for_metric(http, "ppd_in_flight", 6.0)
            process.send_signal(signal.SIGTERM)
            assert {one.result().status_code for one in asked} == {200}
        assert process.wait(60) == 0
