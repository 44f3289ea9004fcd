"""A candidate beside the current model in the real service: two scorer processes, of which one may die."""

import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from detector.artefact import load
from detector.schema import Decision, Health, Verdict
from tests import serving
from tests.candidates import make_candidate, store_all, tag
from tests.conftest import encoded, make_photo, remarked
from tests.test_service import batch, start


@dataclass(frozen=True)
class Store:
    """A Bento store with the current model, which is `latest`, and a candidate; and a folder not stored yet."""

    home: Path
    current: str
    candidate: str
    next: Path


@pytest.fixture(scope="module")
def store(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("rollout")
    candidate = make_candidate(folder / "candidate", 5)
    make_candidate(folder / "next", 6)
    store_all(folder / "home", folder / "candidate", model_folder)
    return Store(folder / "home", tag(load(model_folder).manifest), candidate, folder / "next")


@dataclass(frozen=True)
class Running:
    http: httpx.Client
    process: serving.Process
    log: Path

    def judge(self, photo: bytes, address: str = "192.0.2.1") -> Verdict:
        answer = self.http.post("/predict", files={"image": photo}, headers={"X-Forwarded-For": address})
        assert answer.status_code == 200, answer.text
        return Verdict.model_validate_json(answer.content)

    def health(self) -> Health:
        return Health.model_validate_json(self.http.get("/health").content)

    def candidate_answers(self) -> bool:
        candidate = self.health().candidate
        return candidate is not None and candidate.answering

    def count(self, sample: str) -> float:
        found = re.search(rf"^{re.escape(sample)} (\S+)$", self.http.get("/metrics").text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def worker(self, name: str) -> psutil.Process:
        return next(one for one in psutil.Process(self.process.pid).children() if name in one.cmdline())


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 180
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def shadowed(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """In shadow, in what BentoML takes for a container."""
    log = tmp_path_factory.mktemp("shadow") / "log"
    settings = {
        "PPD_ROLLOUT__CANDIDATE": store.candidate,
        "PPD_ROLLOUT__TIMEOUT": "300",
        "BENTOML_CONTAINERIZED": "true",
    }
    with serving.launched(store.home, log, **settings) as (http, process):
        running = Running(http, process, log)
        eventually(running.candidate_answers)
        yield running


def test_the_current_model_answers_and_the_shadow_is_counted(shadowed: Running, store: Store) -> None:
    photos = [encoded(make_photo(seed=seed)) for seed in range(4)]
    assert batch(shadowed.http, *photos[1:]).status_code == 200
    verdict = shadowed.judge(photos[0])
    shown = shadowed.http.post("/explain", files={"image": photos[0]})
    assert tag_of(verdict) == store.current
    assert shown.json()["verdict"]["model"] == verdict.model.model_dump()
    eventually(lambda: shadowed.count('ppd_rollout_shadow_total{result="compared"}') == 5)
    assert shadowed.count("ppd_rollout_probability_shift_count") == 5
    assert shadowed.count('ppd_rollout_seconds_count{model="candidate"}') == 5
    assert "shadow of" in shadowed.log.read_text()


def tag_of(verdict: Verdict) -> str:
    return f"product-photo-detector:{verdict.model.hash[:12]}"


def test_health_names_the_candidate(shadowed: Running, store: Store) -> None:
    candidate = shadowed.health().candidate
    assert candidate
    assert (candidate.model.version, candidate.mode, candidate.answering) == ("candidate-5", "shadow", True)


def test_a_killed_candidate_takes_nothing_with_it_and_comes_back(shadowed: Running, jpeg: bytes) -> None:
    worker = shadowed.worker("candidate_scorer")
    worker.kill()
    for number in range(20):
        assert shadowed.judge(remarked(jpeg, number)).cached is False
        assert shadowed.http.get("/readyz").status_code == 200
    eventually(shadowed.candidate_answers)
    compared = 'ppd_rollout_shadow_total{result="compared"}'
    before, numbers = shadowed.count(compared), iter(range(100, 10_000))

    def compares_again() -> bool:
        shadowed.judge(remarked(jpeg, next(numbers)))
        return shadowed.count(compared) > before

    eventually(compares_again)


def test_a_model_stored_later_does_not_reach_one_process_alone(shadowed: Running, store: Store, jpeg: bytes) -> None:
    """`latest` is another model now; a scorer started in a lost one's place must still be the old one."""
    before = shadowed.judge(remarked(jpeg, 20_000))
    store_all(store.home, store.next)
    shadowed.worker("scorer").kill()
    eventually(lambda: shadowed.http.post("/predict", files={"image": remarked(jpeg, 20_001)}).status_code == 200)
    after = shadowed.judge(remarked(jpeg, 20_002))
    assert (after.model, after.probability) == (before.model, pytest.approx(before.probability, abs=1e-6))


def test_what_is_being_compared_does_not_hold_up_the_end(shadowed: Running, jpeg: bytes) -> None:
    worker = shadowed.worker("candidate_scorer")
    worker.send_signal(signal.SIGSTOP)
    try:
        for number in range(3):
            shadowed.judge(remarked(jpeg, 30_000 + number))
        assert shadowed.http.get("/readyz").status_code == 200
        shadowed.process.send_signal(signal.SIGTERM)
        eventually(lambda: not alive(shadowed.process))
    finally:
        worker.send_signal(signal.SIGCONT)


def alive(process: serving.Process) -> set[str]:
    """The HTTP processes that still run."""
    found = set()
    for one in psutil.Process(process.pid).children():
        with suppress(psutil.NoSuchProcess):  # it ended while it was asked
            found |= {"service"} if "product_photo_detector" in one.cmdline() else set()
    return found


@pytest.fixture(scope="module")
def divided(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("split")
    settings = {
        "PPD_MODEL__TAG": store.current,
        "PPD_ROLLOUT__CANDIDATE": store.candidate,
        "PPD_ROLLOUT__MODE": "split",
        "PPD_ROLLOUT__SPLIT_SHARE": "0.5",
        "PPD_LIMITS__TRUSTED_PROXIES": "[127.0.0.0/8]",
        "PPD_DECISIONS__PATH": str(folder / "decisions.sqlite"),
    }
    with serving.launched(store.home, folder / "log", **settings) as (http, process):
        running = Running(http, process, folder / "log")
        eventually(running.candidate_answers)
        yield running


ADDRESSES = [f"192.0.2.{number}" for number in range(30)]


def test_each_caller_has_one_model_and_callers_differ(divided: Running, store: Store, jpeg: bytes) -> None:
    first, again = ({one: divided.judge(jpeg, one).model.hash for one in ADDRESSES} for _ in range(2))
    assert first == again
    models = list(first.values())
    assert {f"product-photo-detector:{model[:12]}" for model in models} == {store.current, store.candidate}
    assert 5 < models.count(models[0]) < 25


def test_a_record_tells_which_model_decided(divided: Running, jpeg: bytes) -> None:
    for address in ADDRESSES[:6]:
        verdict = divided.judge(jpeg, address)
        decision = Decision.model_validate_json(divided.http.get(f"/decisions/{verdict.decision_id}").content)
        assert decision.verdict.model == verdict.model


def test_verdicts_of_two_models_are_remembered_apart(divided: Running, jpeg: bytes) -> None:
    seen = {}
    for address in ADDRESSES:
        verdict = divided.judge(jpeg, address)
        assert seen.setdefault(verdict.model.hash, verdict.probability) == verdict.probability
    assert len(set(seen.values())) == 2


def test_the_candidate_s_callers_are_answered_while_it_is_gone(divided: Running, store: Store, jpeg: bytes) -> None:
    chosen = next(one for one in ADDRESSES if tag_of(divided.judge(jpeg, one)) == store.candidate)
    divided.worker("candidate_scorer").send_signal(signal.SIGSTOP)
    try:
        verdict = divided.judge(remarked(jpeg, 1), chosen)
    finally:
        divided.worker("candidate_scorer").send_signal(signal.SIGCONT)
    assert tag_of(verdict) == store.current
    assert divided.count("ppd_rollout_fallbacks_total") >= 1
    assert "the candidate model fails (TimeoutError)" in divided.log.read_text()


def test_a_candidate_that_is_not_stored_stops_the_start(store: Store) -> None:
    status, said = start(store.home, PPD_ROLLOUT__CANDIDATE="nothing:1")
    assert status != 0
    assert "There is no model nothing:1 in the Bento store" in said
    assert "Traceback" not in said


def test_a_tampered_candidate_stops_the_start(store: Store, tmp_path: Path) -> None:
    shutil.copytree(store.home, tmp_path / "bento")
    folder = tmp_path / "bento" / "models" / store.candidate.replace(":", "/")
    (folder / "calibration.json").write_text("{}")
    settings = {"PPD_MODEL__TAG": store.current, "PPD_ROLLOUT__CANDIDATE": store.candidate}
    status, said = start(tmp_path / "bento", **settings)
    assert status != 0
    assert f"Candidate {store.candidate}: The model's calibration.json is not the file it was" in said
    assert "Traceback" not in said
