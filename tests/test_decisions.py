"""Every verdict can be looked up by who asked for it, and a broken store costs no answer."""

import asyncio
import logging
import math
import os
import shutil
import sqlite3
import stat
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from detector import keyring, metrics
from detector.decisions import Decisions, prepare, read_labelled
from detector.errors import DecisionsUnavailable, InvalidSettings
from detector.schema import BatchVerdict, Correction, Decision, Explanation, Verdict
from tests import serving
from tests.conftest import encoded, make_photo
from tests.test_service import assert_problem, batch

T = TypeVar("T")
DAY = 86_400.0
NOW = 1_800_000_000.0
VERDICT = Verdict.model_validate(
    {
        "label": "uncertain",
        "probability": 0.5,
        "confidence": "low",
        "thresholds": {"real": 0.3, "ai_generated": 0.9},
        "model": {"name": "m", "version": "1", "hash": "0", "profile": "fast"},
        "image": {"width": 64, "height": 64, "format": "PNG", "bytes": 9, "sha256": "ab", "animated": False},
        "timing": {"decode": 1, "score": 1, "total": 2},
        "request_id": "r",
    }
)
CORRECTION = Correction(label="real", note="mine", caller="key:desk", time=datetime.fromtimestamp(NOW, UTC))


def made(name: str, at: float = NOW, caller: str | None = "key:desk") -> Decision:
    verdict = VERDICT.model_copy(update={"decision_id": name})
    return Decision(id=name, time=datetime.fromtimestamp(at, UTC), caller=caller, verdict=verdict)


def using(path: Path, work: Callable[[Decisions], Awaitable[T]], **options: Any) -> T:
    async def scenario() -> T:
        store = Decisions(path, 30 * DAY, **{"clock": lambda: NOW} | options)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(scenario())


def counted(result: str) -> float:
    return metrics.DECISIONS.labels(result)._value.get()  # type: ignore[no-any-return]


def test_a_record_is_found_as_it_was_kept(tmp_path: Path) -> None:
    async def work(store: Decisions) -> tuple[Decision | None, Decision | None]:
        store.keep(made("a"))
        return await store.find("a"), await store.find("b")

    assert using(tmp_path / "d.sqlite", work) == (made("a"), None)


def test_the_last_correction_stands_beside_the_record_and_survives_a_restart(tmp_path: Path) -> None:
    async def correct(store: Decisions) -> Decision | None:
        store.keep(made("a"))
        await store.correct("a", CORRECTION.model_copy(update={"label": "ai_generated"}))
        return await store.correct("a", CORRECTION)

    path = tmp_path / "d.sqlite"
    corrected = using(path, correct)
    assert corrected == made("a").model_copy(update={"correction": CORRECTION})
    assert using(path, lambda store: store.find("a")) == corrected
    assert using(path, lambda store: store.correct("b", CORRECTION)) is None


def test_what_is_older_than_the_retention_is_neither_shown_nor_kept(tmp_path: Path) -> None:
    async def keep(store: Decisions) -> tuple[Decision | None, Decision | None]:
        store.keep(made("old", NOW - 31 * DAY))
        store.keep(made("new", NOW - 29 * DAY))
        return await store.find("old"), await store.find("new")

    path = tmp_path / "d.sqlite"
    old, new = using(path, keep, sweep=1000.0)
    assert old is None and new is not None
    using(path, lambda store: store.find("new"))  # a start sweeps
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("SELECT id FROM decisions").fetchall() == [("new",)]


def test_an_idle_store_sweeps_by_itself(tmp_path: Path) -> None:
    now = [NOW]
    path = tmp_path / "d.sqlite"

    async def work(store: Decisions) -> int:
        store.keep(made("a"))
        await store.find("a")
        now[0] += 31 * DAY
        with closing(sqlite3.connect(path)) as file:
            deadline, count = time.monotonic() + 10, 1
            while count and time.monotonic() < deadline:
                count = file.execute("SELECT count(*) FROM decisions").fetchone()[0]
                await asyncio.sleep(0.01)
        return count

    assert using(path, work, clock=lambda: now[0], sweep=0.05) == 0


def precision(label: str) -> float:
    return metrics.LIVE_PRECISION.labels(label)._value.get()  # type: ignore[no-any-return]


def test_precision_is_the_share_that_people_agree_with_by_their_last_label(tmp_path: Path) -> None:
    async def work(store: Decisions) -> None:
        for turn in range(4):
            verdict = VERDICT.model_copy(update={"label": "ai_generated"})
            store.keep(made(f"{turn}").model_copy(update={"verdict": verdict}))
            await store.correct(f"{turn}", CORRECTION.model_copy(update={"label": "ai_generated"}))
        await store.correct("3", CORRECTION)
        store.keep(made("4"))

    using(tmp_path / "d.sqlite", work)
    assert precision("ai_generated") == 0.75
    assert math.isnan(precision("real"))
    assert metrics.LABELLED.labels("ai_generated", "real")._value.get() == 1


def test_labelled_records_are_read_from_a_file_in_use(tmp_path: Path) -> None:
    async def work(store: Decisions) -> list[Decision]:
        store.keep(made("a"))
        store.keep(made("b"))
        await store.correct("b", CORRECTION)
        return list(read_labelled(tmp_path / "d.sqlite"))

    assert using(tmp_path / "d.sqlite", work) == [made("b").model_copy(update={"correction": CORRECTION})]


def test_what_is_no_file_of_records_is_said(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database" * 100)
    for name in ("text", "nowhere"):
        with pytest.raises(OSError, match="no file of decision records"):
            list(read_labelled(tmp_path / name))


def test_only_its_own_user_may_read_the_file(tmp_path: Path) -> None:
    prepare(tmp_path / "d.sqlite")
    assert stat.S_IMODE(os.stat(tmp_path / "d.sqlite").st_mode) == 0o600


def test_a_place_where_no_file_can_be_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match=r"decisions\.path"):
        prepare(tmp_path / "nowhere" / "d.sqlite")


def test_a_store_that_is_gone_costs_records_one_line_and_no_wait_and_comes_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()

    async def work(store: Decisions) -> Decision | None:
        store.keep(made("a"))
        await store.find("a")
        shutil.rmtree(folder)
        began, lost = time.monotonic(), counted("lost")
        for turn in range(50):
            store.keep(made(f"lost-{turn}"))
        assert time.monotonic() - began < 0.5
        with pytest.raises(DecisionsUnavailable):
            await store.find("a")
        assert counted("lost") == lost + 50
        folder.mkdir()
        assert await store.find("a") is None  # asking tries again at once
        store.keep(made("b"))
        return await store.find("b")

    with caplog.at_level(logging.WARNING):
        assert using(folder / "d.sqlite", work, rest=60.0) == made("b")
    assert [record.message.split(" (")[0] for record in caplog.records] == [
        "decisions can't be kept",
        "decisions are kept again",
    ]


def test_a_file_held_by_another_process_keeps_nobody_waiting(tmp_path: Path) -> None:
    path = tmp_path / "d.sqlite"
    prepare(path)

    async def work(store: Decisions) -> tuple[float, float]:
        await store.find("a")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            began, lost = time.monotonic(), counted("lost")
            for turn in range(10):
                store.keep(made(f"{turn}"))
            kept = time.monotonic() - began
            await store.find("a")  # reading needs no lock
            other.execute("ROLLBACK")
        return kept, counted("lost") - lost

    waited, lost = using(path, work, rest=60.0)
    assert waited < 0.5
    assert lost == 10


def test_what_waits_is_bounded(tmp_path: Path) -> None:
    lost = counted("lost")
    begun, held = threading.Event(), threading.Event()

    def block(_: sqlite3.Connection) -> None:
        begun.set()
        held.wait(10)

    async def work(store: Decisions) -> None:
        blocked = asyncio.create_task(store._ask(block))
        assert await asyncio.to_thread(begun.wait, 10)
        for turn in range(5):
            store.keep(made(f"{turn}"))
        with pytest.raises(DecisionsUnavailable):
            await store.find("0")
        held.set()
        await blocked

    using(tmp_path / "d.sqlite", work, waiting=3)
    assert counted("lost") == lost + 2


def test_processes_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "d.sqlite"
    prepare(path)  # as the service does before any process serves: making the file is no race

    async def scenario() -> list[Decision | None]:
        stores = [Decisions(path, DAY, lambda: NOW) for _ in range(4)]
        for turn in range(200):
            stores[turn % 4].keep(made(f"{turn}"))
        for store in stores:
            await store.find("0")  # behind what each has to write
        found = [await stores[0].find(f"{turn}") for turn in range(200)]
        await asyncio.gather(*(store.close() for store in stores))
        return found

    assert asyncio.run(scenario()) == [made(f"{turn}") for turn in range(200)]


class Kept:
    """A running service that asks for keys and keeps records, in two HTTP processes."""

    def __init__(self, http: httpx.Client, path: Path, keys: dict[str, dict[str, str]]) -> None:
        self.http, self.path, self.keys = http, path, keys

    def predict(self, name: str, data: bytes) -> Verdict:
        answer = self.http.post("/predict", files={"image": ("secret-name.jpg", data)}, headers=self.keys[name])
        assert answer.status_code == 200
        return Verdict.model_validate_json(answer.content)

    def read(self, name: str, id: str | None) -> httpx.Response:
        """Another process may write it a moment later."""
        deadline = time.monotonic() + 5
        while True:
            answer = self.http.get(f"/decisions/{id}", headers=self.keys[name])
            if answer.status_code == 200 or time.monotonic() > deadline:
                return answer
            time.sleep(0.05)


@pytest.fixture(scope="module")
def kept(bento_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    folder = tmp_path_factory.mktemp("kept")
    held, keys = {}, {}
    scopes_of = {
        "desk": ["predict", "feedback"],
        "shop": ["predict", "feedback"],
        "boss": ["admin"],
        "all": ["predict", "batch", "explain"],
    }
    for name, scopes in scopes_of.items():
        text, key = keyring.mint(name, scopes, keyring.now())  # type: ignore[arg-type]
        held[key.id], keys[name] = key, {"X-API-Key": text}
    keyring.write(folder / "keys.json", held)
    settings = {
        "PPD_AUTH__KEYS_FILE": str(folder / "keys.json"),
        "PPD_DECISIONS__PATH": str(folder / "d.sqlite"),
        "PPD_DECISIONS__PHOTOS": str(folder / "photos"),
        "PPD_API__WORKERS": "2",
    }
    with serving.serving(bento_home, folder / "log", **settings) as http:
        yield Kept(http, folder / "d.sqlite", keys)


def test_whose_request_it_was_and_an_admin_may_read_and_nobody_else(kept: Kept, jpeg: bytes) -> None:
    verdict = kept.predict("desk", jpeg)
    for name in ("desk", "boss"):
        decision = Decision.model_validate_json(kept.read(name, verdict.decision_id).content)
        assert (decision.verdict, decision.caller, decision.correction) == (verdict, "key:desk", None)
        assert abs((decision.time - datetime.now(UTC)).total_seconds()) < 60
    path = f"/decisions/{verdict.decision_id}"
    others, unknown = (
        kept.http.get(path, headers=kept.keys["shop"]),
        kept.http.get("/decisions/0", headers=kept.keys["shop"]),
    )
    assert (
        assert_problem(others, 404, "decision_not_found").detail
        == assert_problem(unknown, 404, "decision_not_found").detail
    )
    said = {"decision_id": verdict.decision_id, "label": "real"}
    assert_problem(kept.http.post("/feedback", json=said, headers=kept.keys["shop"]), 404, "decision_not_found")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/decisions/0", "/decisions/%0A", "/decisions/a%3Fb"])
def test_nobody_reads_without_saying_who(kept: Kept, method: str, path: str) -> None:
    assert kept.http.request(method, path).status_code == 401
    assert_problem(kept.http.post("/feedback", json={"decision_id": "0", "label": "real"}), 401, "unauthenticated")


def test_each_answer_has_an_id_of_its_own_and_the_record_no_photo_and_no_name(kept: Kept) -> None:
    photo = encoded(make_photo(seed=71))
    verdicts = [kept.predict("desk", photo) for _ in range(2)]
    answer = kept.http.post(
        "/predict/batch", files=[("images", ("secret-name.jpg", photo))] * 2, headers=kept.keys["all"]
    )
    verdicts += [item.verdict for item in BatchVerdict.model_validate_json(answer.content).items if item.verdict]
    explained = kept.http.post("/explain", files={"image": photo}, headers=kept.keys["all"])
    verdicts.append(Explanation.model_validate_json(explained.content).verdict)
    ids = [verdict.decision_id for verdict in verdicts]
    assert len(set(ids)) == 5 and None not in ids
    for verdict in verdicts:
        assert Decision.model_validate_json(kept.read("boss", verdict.decision_id).content).verdict == verdict
    with closing(sqlite3.connect(kept.path)) as file:
        written = "".join(str(row) for row in file.execute("SELECT * FROM decisions"))
    assert "secret-name" not in written


def test_a_person_s_feedback_stands_beside_the_decision_and_is_measured(kept: Kept, jpeg: bytes) -> None:
    verdict = kept.predict("desk", jpeg)
    kept.read("desk", verdict.decision_id)
    said = {"decision_id": verdict.decision_id, "label": "real", "note": "taken by me"}
    answer = kept.http.post("/feedback", headers=kept.keys["desk"], json=said)
    corrected = Decision.model_validate_json(answer.content)
    assert corrected.verdict == verdict
    assert corrected.correction
    given = corrected.correction
    assert (given.label, given.note, given.caller) == ("real", "taken by me", "key:desk")
    assert Decision.model_validate_json(kept.read("boss", verdict.decision_id).content) == corrected
    text = kept.http.get("/metrics").text
    assert f'ppd_feedback_total{{actual="real",predicted="{verdict.label}"}} 1.0' in text
    assert 'ppd_live_precision{predicted="ai_generated"}' in text


def test_feedback_needs_its_own_scope(kept: Kept, jpeg: bytes) -> None:
    said = {"decision_id": kept.predict("all", jpeg).decision_id, "label": "real"}
    assert_problem(kept.http.post("/feedback", headers=kept.keys["all"], json=said), 403, "forbidden")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"json": {"label": "uncertain"}}, 422, "invalid_option"),
        ({"json": {"label": "real", "note": "x" * 1001}}, 422, "invalid_option"),
        ({"json": {"label": "real", "other": "x"}}, 422, "invalid_option"),
        ({"json": {"label": "real", "decision_id": 5}}, 422, "invalid_option"),
        ({"json": ["real"]}, 422, "invalid_option"),
        ({"json": {"note": "x"}}, 400, "missing_field"),
        ({"data": {"label": "real"}}, 415, "unsupported_body"),
        ({"files": {"label": ("a.txt", b"real")}}, 415, "unsupported_body"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "malformed_request"),
        ({"content": b"[" * 60_000, "headers": {"content-type": "application/json"}}, 400, "malformed_request"),
        ({"content": b"real", "headers": {"content-type": "text/plain"}}, 415, "unsupported_body"),
        ({"content": b"x" * 70_000, "headers": {"content-type": "text/plain"}}, 413, "body_too_large"),
    ],
)
def test_feedback_that_is_none_is_refused(kept: Kept, body: dict[str, Any], status: int, code: str) -> None:
    if isinstance(body.get("json"), dict):
        body = {"json": {"decision_id": "0", **body["json"]}}
    headers = kept.keys["desk"] | body.pop("headers", {})
    assert_problem(kept.http.post("/feedback", headers=headers, **body), status, code)


def test_feedback_on_nothing_is_refused(kept: Kept) -> None:
    answer = kept.http.post("/feedback", headers=kept.keys["desk"], json={"label": "real"})
    assert "decision_id" in assert_problem(answer, 400, "missing_field").detail
    said = {"decision_id": "0", "label": "real"}
    assert_problem(kept.http.post("/feedback", headers=kept.keys["desk"], json=said), 404, "decision_not_found")


def test_photos_are_kept_where_that_is_configured(kept: Kept) -> None:
    photo = encoded(make_photo(seed=72))
    answer = kept.http.post("/predict/batch", files=[("images", photo)] * 2, headers=kept.keys["all"])
    (sha,) = {
        item.verdict.image.sha256 for item in BatchVerdict.model_validate_json(answer.content).items if item.verdict
    }
    path = kept.path.parent / "photos" / sha[:2] / f"{sha}.jpg"
    deadline = time.monotonic() + 5
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert path.read_bytes() == photo


def test_photos_are_judged_while_the_records_can_t_be_written(kept: Kept, jpeg: bytes) -> None:
    with closing(sqlite3.connect(kept.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        for _ in range(20):
            kept.predict("desk", jpeg)
        assert time.monotonic() - began < 10
        other.execute("ROLLBACK")


def test_a_service_without_a_store_names_its_verdicts_and_says_that_it_keeps_none(
    service: httpx.Client, jpeg: bytes
) -> None:
    (item,) = BatchVerdict.model_validate_json(batch(service, jpeg).content).items
    assert item.verdict and item.verdict.decision_id
    path = f"/decisions/{item.verdict.decision_id}"
    assert_problem(service.get(path), 404, "decisions_off")
    said = {"decision_id": item.verdict.decision_id, "label": "real"}
    assert_problem(service.post("/feedback", json=said), 404, "decisions_off")
    assert_problem(service.put(path), 405, "method_not_allowed")
