"""One real service watched through its metrics, log and traces while it answers good and bad requests."""

import json
import re
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from detector import keyring
from tests import serving
from tests.conftest import encoded, make_photo, remarked
from tests.redis_server import RedisServer
from tests.test_gate import wait_for_metric
from tests.test_rules import queries, read

TRACE = "0af7651916cd43dd8448eb211c80319c"
WRONG = "ppd_000000000000_" + "w" * 43
PATH = "a-path-nobody-made"
SPAN = tuple[str, str, str]  # service, name, trace


class Collector(ThreadingHTTPServer):
    """An OTLP collector that keeps what it is sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[SPAN] = []


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        sent = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
        for group in sent.resource_spans:
            names = {one.key: one.value.string_value for one in group.resource.attributes}
            for span in (span for scope in group.scope_spans for span in scope.spans):
                self.server.spans.append((names["service.name"], span.name, span.trace_id.hex()))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def collecting() -> Iterator[Collector]:
    with Collector() as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        yield collector
        collector.shutdown()


@dataclass
class Seen:
    """What was answered, and what the service told of it."""

    key: str
    answers: dict[str, httpx.Response] = field(default_factory=dict)
    metrics: str = ""
    log: str = ""
    spans: list[SPAN] = field(default_factory=list)

    def lines(self, id: str | None = None) -> list[dict[str, Any]]:
        """The log as JSON; of one request, those that bear its id."""
        made = [json.loads(line) for line in self.log.splitlines()]
        return [line for line in made if id is None or line.get("request_id") == id or id in line.get("requests", ())]

    def value(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        samples = re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", self.metrics, re.MULTILINE)
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(float(number) for told, number in samples if all(one in told for one in wanted))


def send(http: httpx.Client, key: str) -> dict[str, httpx.Response]:
    jpeg, headers = encoded(make_photo(), quality=90), {"X-API-Key": key}
    many = [("images", (f"{n}.jpg", data)) for n, data in enumerate((jpeg, encoded(make_photo(seed=1)), b"no photo"))]
    traced = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}

    def post(path: str, id: str, **more: Any) -> httpx.Response:
        return http.post(path, **{"headers": headers | {"X-Request-ID": id}, "files": {"image": jpeg}} | more)

    answers = {
        "first": post("/predict", "first", headers=headers | traced | {"X-Request-ID": "first"}),
        "again": post("/predict", "again"),
        "batch": post("/predict/batch", "batch", files=many),
        "dear": post("/predict/batch", "dear", files=many),
        "explain": post("/explain", "explain"),
        "broken": post("/predict", "broken", files={"image": b"no photo"}),
        "wrong": post(f"/predict?api_key={WRONG}", "wrong", headers={"X-API-Key": WRONG, "X-Request-ID": "wrong"}),
        "nowhere": post(f"/{PATH}?key={key}", "nowhere"),
        "health": http.get("/health", headers={"X-Request-ID": "health"}),
    }
    with ThreadPoolExecutor(4) as callers:
        asked = {
            f"at-once-{n}": callers.submit(post, "/predict", f"at-once-{n}", files={"image": remarked(jpeg, n)})
            for n in range(4)
        }
        return answers | {name: one.result() for name, one in asked.items()}


@pytest.fixture(scope="module")
def seen(bento_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """A service of its own, with a store of its own: BentoML keeps its metrics there."""
    folder = tmp_path_factory.mktemp("observed")
    shutil.copytree(bento_home, folder / "home", ignore=shutil.ignore_patterns("prometheus_multiproc_dir"))
    key, kept = keyring.mint("desk", ["predict", "batch", "explain", "feedback"], keyring.now())
    keyring.write(folder / "keys.json", {kept.id: kept})
    redis = RedisServer(folder)
    redis.start()
    try:
        with collecting() as collector:
            settings = {
                "PPD_AUTH__KEYS_FILE": str(folder / "keys.json"),
                "PPD_LIMITS__BATCH": "4/minute",
                "PPD_REDIS__URL": redis.url,
                "PPD_DECISIONS__PATH": str(folder / "decisions.db"),
                "PPD_DECISIONS__PHOTOS": str(folder / "photos"),
                "PPD_DRIFT__INTERVAL": "1",
                "PPD_LOG__LEVEL": "DEBUG",
                "PPD_TRACING__ENDPOINT": f"http://127.0.0.1:{collector.server_port}/v1/traces",
                "PPD_TRACING__SAMPLE_RATE": "0",  # only what the caller asks for
                "OTEL_BSP_SCHEDULE_DELAY": "100",
            }
            with serving.serving(folder / "home", folder / "log", **settings) as http:
                answers = send(http, key)
                wait_for_metric(http, "ppd_decisions_total", 9.0)  # written beside the answers
                judged = answers["first"].json()
                said = {"decision_id": judged["decision_id"], "label": "real"}
                headers = {"X-API-Key": key, "X-Request-ID": "feedback"}
                answers["feedback"] = http.post("/feedback", json=said, headers=headers)
                labels = f'{{actual="real",predicted="{judged["label"]}"}}'
                wait_for_metric(http, f"ppd_labelled_decisions{labels}", 1.0)
                wait_for_metric(http, "ppd_drift_score", 0.0)
                told = http.get("/metrics").text
            yield Seen(key, answers, told, (folder / "log").read_text(), collector.spans)
    finally:
        redis.stop()


def test_verdicts_are_counted_by_photo_with_remembered_ones_apart(seen: Seen) -> None:
    assert seen.value("ppd_predictions_total", cached="false") == 1 + 1 + 1 + 4
    assert seen.value("ppd_predictions_total", cached="true") == 2
    assert seen.value("ppd_probability_count") == 7


def test_the_scorer_s_batches_are_in_the_api_s_metrics(seen: Seen) -> None:
    assert seen.value("ppd_batch_size_sum") == 7  # a photo each, however they were put together
    assert 1 <= seen.value("ppd_batch_size_count") <= 7
    assert seen.value("ppd_model_info", device="cpu", profile="accurate", version="test") == 1
    assert seen.value("ppd_model_load_seconds") > 0


def test_every_stage_is_timed_a_photo_at_a_time(seen: Seen) -> None:
    stages = ("decode", "provenance", "queue", "network", "explain")
    counts = {stage: seen.value("ppd_stage_seconds_count", stage=stage) for stage in stages}
    assert counts == {"decode": 7, "provenance": 7, "queue": 7, "network": 7, "explain": 1}


def test_refusals_are_counted_before_and_after_the_form_is_read(seen: Seen) -> None:
    assert seen.answers["dear"].status_code == 429
    assert seen.value("ppd_refusals_total", code="rate_limited") == 1
    assert seen.value("ppd_refusals_total", code="unauthenticated") == 1
    assert seen.value("ppd_photos_refused_total", code="unsupported_type") == 2
    assert seen.value("ppd_errors_total", route="/predict/batch", code="rate_limited") == 1
    assert seen.value("ppd_errors_total", route="/predict", code="unsupported_type") == 1


def test_the_cache_tells_its_backends_apart(seen: Seen) -> None:
    assert seen.value("ppd_cache_total", backend="memory", result="hit") == 2
    assert seen.value("ppd_cache_total", backend="redis", result="miss") >= 6
    assert seen.value("ppd_redis_up", prefix="ppd") == 1


def test_what_a_caller_invents_makes_no_series(seen: Seen) -> None:
    assert PATH not in seen.metrics
    assert "bentoml" not in seen.metrics
    assert seen.value("ppd_errors_total", route="other", code="not_found") == 1
    assert not any(word in seen.metrics for word in (seen.key, WRONG, "desk", "127.0.0.1"))


def test_every_series_a_rule_or_panel_reads_is_there(seen: Seen) -> None:
    asked = set().union(*(read(expression) for expression in queries().values()))
    candidate = {name for name in asked if name.startswith("ppd_rollout_")}  # of a service that has one
    missing = {name for name in asked - candidate if not re.search(rf"^{name}[ {{]", seen.metrics, re.MULTILINE)}
    assert missing == set()


def test_every_request_has_one_line(seen: Seen) -> None:
    told = [line["request_id"] for line in seen.lines() if line["event"] == "request"]
    assert sorted(told) == sorted(seen.answers)


def test_a_line_tells_who_asked_what_and_what_came_of_it(seen: Seen) -> None:
    (line,) = (line for line in seen.lines("first") if line["event"] == "request")
    told = {name: line[name] for name in ("caller", "route", "status", "cache", "model", "profile", "trace_id")}
    assert told == {
        "caller": "key:desk",
        "route": "/predict",
        "status": 200,
        "cache": "miss",
        "model": "product-photo-detector:test",
        "profile": "accurate",
        "trace_id": TRACE,
    }
    assert line["label"] == seen.answers["first"].json()["label"]
    assert line["total_ms"] >= line["network_ms"] > 0
    (again,) = seen.lines("again")
    assert (again["cache"], "network_ms" in again) == ("hit", False)


def test_a_refused_request_s_line_tells_the_code(seen: Seen) -> None:
    codes = {line["request_id"]: line.get("code") for line in seen.lines() if line["event"] == "request"}
    told = {name: codes[name] for name in ("wrong", "dear", "broken", "nowhere", "first")}
    expected = {
        "wrong": "unauthenticated",
        "dear": "rate_limited",
        "broken": "unsupported_type",
        "nowhere": "not_found",
    }
    assert told == expected | {"first": None}


@pytest.mark.parametrize("id", ["first", "at-once-0", "at-once-3", "explain"])
def test_the_scorer_s_line_bears_the_request_s_id(seen: Seen, id: str) -> None:
    assert [line["event"] for line in seen.lines(id)] == ["scored", "request"]


def test_the_id_is_in_the_answer_and_in_the_problem_s_body(seen: Seen) -> None:
    assert {name: answer.headers["x-request-id"] for name, answer in seen.answers.items()} == {
        name: name for name in seen.answers
    }
    assert seen.answers["broken"].json()["request_id"] == "broken"


def test_no_line_holds_a_key_a_path_or_a_file_s_name(seen: Seen) -> None:
    assert not any(word in seen.log for word in (seen.key, seen.key[-43:], WRONG, PATH, "0.jpg", "no photo", "JFIF"))


def test_a_trace_goes_on_from_the_caller_s_through_both_processes(seen: Seen) -> None:
    assert {trace for _, _, trace in seen.spans} == {TRACE}
    by_service = {service: {name for s, name, _ in seen.spans if s == service} for service, _, _ in seen.spans}
    assert by_service.keys() == {"product_photo_detector", "scorer"}
    assert {"decode", "provenance", "queue", "network"} <= by_service["product_photo_detector"]
