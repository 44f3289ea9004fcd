"""`detector scan` as people and scripts meet it: rows, exit codes, going on after a kill."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import fsspec
import httpx
import pytest

import detector.scan
from detector import assembly
from detector.cli import main
from detector.config import Settings
from detector.runtime import load_runtime
from detector.scan import job
from tests import serving
from tests.conftest import encoded, make_photo
from tests.provenance.samples import jpeg as jpeg_with
from tests.provenance.samples import typed, xmp_segment
from tests.scan.conftest import Scan, fill, rows


def test_every_photo_has_one_row_and_broken_ones_an_error_code(catalogue: Path, scan: Scan, tmp_path: Path) -> None:
    assert scan(catalogue, "--part-size", "4") == 0
    seen = rows(tmp_path / "out")
    files = sorted(str(path) for path in catalogue.rglob("*") if path.is_file())
    assert sorted(row["address"] for row in seen) == files
    assert [row["index"] for row in seen] == list(range(13))
    errors = {Path(row["address"]).name: row["error"] for row in seen if row["error"]}
    assert errors == {"empty.jpg": "empty_image", "broken.png": "truncated_image", "moving.gif": "unsupported_type"}
    assert all(bool(row["verdict"]) != bool(row["error"]) for row in seen)


def test_a_row_says_what_the_service_says(catalogue: Path, scan: Scan, tmp_path: Path, model_folder: Path) -> None:
    (catalogue / "shop0/told.jpg").write_bytes(jpeg_with(xmp_segment(typed("trainedAlgorithmicMedia"))))
    scan(catalogue)
    settings, model = Settings(), assembly.artefact(model_folder, "accurate")
    runtime = load_runtime(model_folder, model.spec.plan("accurate"), "cpu")

    async def score(views):  # type: ignore[no-untyped-def]
        return runtime.score(views)

    judge = assembly.detector(settings, model, "accurate", score, None)
    judged = [row for row in rows(tmp_path / "out") if row["verdict"]]
    for row in judged:
        verdict = asyncio.run(judge.predict(Path(row["address"]).read_bytes(), "r"))
        assert (row["verdict"], row["confidence"], row["decided_by"], row["reason"]) == (
            verdict.label,
            verdict.confidence,
            verdict.decided_by,
            verdict.reason,
        )
        assert row["probability"] == pytest.approx(verdict.probability, abs=1e-5)
        assert (row["sha256"], row["width"], row["model_hash"]) == (
            verdict.image.sha256,
            verdict.image.width,
            verdict.model.hash,
        )
    assert Counter(row["claim"] for row in judged) == {"none": 10, "generated": 1}
    assert all(row["brightness"] > 0 and row["jpeg_quality"] > 0 for row in judged)


def test_a_photo_in_many_places_is_judged_once(scan: Scan, tmp_path: Path) -> None:
    (tmp_path / "same").mkdir()
    for number in range(60):
        (tmp_path / f"same/{number}.jpg").write_bytes(encoded(make_photo(seed=number % 2)))
    assert scan(tmp_path / "same", "--part-size", "7") == 0
    seen = rows(tmp_path / "out")
    assert Counter(row["reused"] for row in seen) == {True: 58, False: 2}
    assert len({(row["sha256"], row["probability"]) for row in seen}) == 2


@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_the_same_rows_in_other_formats(catalogue: Path, scan: Scan, tmp_path: Path, format: str) -> None:
    scan(catalogue, "--workers", "1", "--readers", "1")
    assert scan(catalogue, "--format", format, "--workers", "1", "--readers", "1", out=tmp_path / "other") == 0
    names = ("index", "address", "verdict", "probability", "error", "sha256")
    other = rows(tmp_path / "other", "json" if format == "jsonl" else format)
    parquet = rows(tmp_path / "out")
    assert [[row[name] or None for name in names] for row in other] == [
        [row[name] or None for name in names] for row in parquet
    ]
    counts = [json.loads((tmp_path / out / "run.json").read_text())["counts"] for out in ("out", "other")]
    assert counts[0] == counts[1]


def test_the_manifest_records_model_settings_and_counts(catalogue: Path, scan: Scan, tmp_path: Path) -> None:
    scan(catalogue)
    run = json.loads((tmp_path / "out/run.json").read_text())
    assert (run["state"], run["photos"], run["wanted"]["model"]["profile"]) == ("finished", 13, "accurate")
    assert run["wanted"]["settings"]["photo"]["min_side"] == 64
    assert (run["counts"]["photos"], run["counts"]["errors"], run["counts"]["reused"]) == (13, 3, 1)


def test_a_killed_scan_goes_on_and_loses_or_doubles_nothing(tmp_path: Path, model_folder: Path, scan: Scan) -> None:
    """Killed twice, each time once another part is there."""
    fill(tmp_path / "photos", 600)
    out = tmp_path / "out"
    options = ["--part-size", "20", "--workers", "1", "--readers", "1"]
    command = [sys.executable, "-m", "detector", "scan", str(tmp_path / "photos"), "--out", str(out), "--quiet"]
    command += ["--model", str(model_folder), *options]
    for _ in range(2):
        before = len(list(out.glob("results/part*")))
        process = subprocess.Popen(command, cwd=serving.ROOT, env=serving.environment(tmp_path))
        while len(list(out.glob("results/part*"))) <= before and process.poll() is None:
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert before < len(list(out.glob("results/part*"))) < 30
    assert scan(tmp_path / "photos", *options) == 0
    seen = rows(out)
    assert [row["index"] for row in seen] == list(range(600))
    assert len({row["address"] for row in seen}) == 600


def test_parts_that_are_there_are_not_made_again(catalogue: Path, scan: Scan, tmp_path: Path) -> None:
    scan(catalogue, "--part-size", "5")
    parts = sorted((tmp_path / "out/results").iterdir())
    parts[1].unlink()
    times = [parts[index].stat().st_mtime_ns for index in (0, 2)]
    assert scan(catalogue, "--part-size", "5") == 0
    assert [parts[index].stat().st_mtime_ns for index in (0, 2)] == times
    assert len(rows(tmp_path / "out")) == 13


def test_a_later_sitting_keeps_to_the_photos_listed_at_first(catalogue: Path, scan: Scan, tmp_path: Path) -> None:
    scan(catalogue)
    (catalogue / "shop0/late.jpg").write_bytes(encoded(make_photo()))
    assert scan(catalogue) == 0
    assert len(rows(tmp_path / "out")) == 13


@pytest.mark.parametrize(
    ("options", "environ", "name"),
    [
        (["--format", "csv"], {}, "format"),
        (["--part-size", "9"], {}, "part_size"),
        ([], {"PPD_PHOTO__MIN_SIDE": "32"}, "settings.photo.min_side"),
        ([], {"PPD_MODEL__PROFILE": "fast"}, "model.profile"),
    ],
)
def test_a_scan_does_not_go_on_with_other_settings(
    catalogue: Path,
    scan: Scan,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    environ: dict[str, str],
    name: str,
) -> None:
    scan(catalogue)
    for variable, value in environ.items():
        monkeypatch.setenv(variable, value)
    assert scan(catalogue, *options) == 2
    assert f"was begun with another {name};" in capsys.readouterr().err


def test_a_folder_of_something_else_is_left_alone(
    catalogue: Path, scan: Scan, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scan(catalogue, out=catalogue) == 2
    assert "holds other files" in capsys.readouterr().err


def test_two_scans_do_not_write_to_one_folder(catalogue: Path, scan: Scan, tmp_path: Path) -> None:
    import fcntl

    (tmp_path / "out").mkdir()
    with (tmp_path / "out/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert scan(catalogue) == 2
    assert scan(catalogue) == 0


def test_a_dry_run_counts_and_writes_nothing(
    catalogue: Path, scan: Scan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scan(catalogue, "--dry-run") == 0
    printed = capsys.readouterr().out
    assert "13 photos in 1 parts" in printed and "13 photos judged for trial, 3 with an error" in printed
    assert not (tmp_path / "out").exists()


def test_exit_codes(catalogue: Path, scan: Scan, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan(catalogue)
    labels = {row["verdict"] for row in rows(tmp_path / "out")} - {None}
    for label in ("real", "ai_generated", "uncertain"):
        assert scan(catalogue, "--fail-on", label) == (1 if label in labels else 0)
    assert scan(tmp_path / "nowhere", out=tmp_path / "a") == 2
    assert scan(catalogue, "--model", str(tmp_path), out=tmp_path / "b") == 4
    with pytest.raises(SystemExit) as usage:
        scan(catalogue, "--part-size", "0")
    assert usage.value.code == 2


def test_photos_that_cannot_be_fetched_are_rows_and_can_be_tried_again(
    scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    down = httpx.MockTransport(lambda _: httpx.Response(503))
    up = httpx.MockTransport(lambda _: httpx.Response(200, content=encoded(make_photo())))
    (tmp_path / "photos.csv").write_text("url\nhttps://a.example/1.jpg\n")
    opened = job.open_fetcher

    def through(transport: httpx.MockTransport):  # type: ignore[no-untyped-def]
        def fetcher(work: job.Job) -> job.Fetcher:
            made = opened(work)
            assert made._web is not None
            made._web._client, made._web._resolve = httpx.Client(transport=transport), lambda *_: ["93.184.215.14"]
            made._sleep = lambda _: None
            return made

        return fetcher

    monkeypatch.setattr(job, "open_fetcher", through(down))
    assert scan(tmp_path / "photos.csv", "--allow-http") == 3
    assert [row["error"] for row in rows(tmp_path / "out")] == ["source_unavailable"]
    monkeypatch.setattr(job, "open_fetcher", through(up))
    assert scan(tmp_path / "photos.csv", "--allow-http") == 3
    assert scan(tmp_path / "photos.csv", "--allow-http", "--retry") == 0
    assert [row["error"] for row in rows(tmp_path / "out")] == [None]


def test_the_web_is_asked_only_where_that_is_allowed(scan: Scan, tmp_path: Path) -> None:
    (tmp_path / "photos.csv").write_text("url\nhttps://a.example/1.jpg\n")
    assert scan(tmp_path / "photos.csv") == 0
    assert [row["error"] for row in rows(tmp_path / "out")] == ["address_refused"]


def test_catalogue_and_results_may_be_elsewhere(catalogue: Path, scan: Scan) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(catalogue), "/elsewhere/photos", recursive=True)
    assert scan("memory://elsewhere/photos", "--part-size", "5", out="memory://elsewhere/out") == 0
    assert json.loads(memory.cat("/elsewhere/out/run.json"))["counts"]["photos"] == 13
    assert len(memory.ls("/elsewhere/out/results", detail=False)) == 3


def test_a_log_gets_lines_that_can_be_read(catalogue: Path, tmp_path: Path, model_folder: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "detector", "scan", str(catalogue), "--out", str(tmp_path / "out")]
    command += ["--model", str(model_folder)]
    done = subprocess.run(command, cwd=serving.ROOT, env=serving.environment(tmp_path), capture_output=True, text=True)
    assert done.returncode == 0
    assert "13 of 13 photos (100 %)" in done.stderr and "\x1b" not in done.stderr + done.stdout
    assert "13 photos, 10 judged" in done.stdout


def test_without_the_extra_the_command_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, scan: Scan, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr(detector.scan, "command", raising=False)
    monkeypatch.setitem(sys.modules, "detector.scan.command", None)
    assert scan("x") == 2
    assert "needs the extra `scan`" in capsys.readouterr().err


def test_an_installation_without_a_model_asks_for_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(job, "DEFAULT_MODEL", tmp_path / "absent")
    assert main(["scan", str(tmp_path), "--out", str(tmp_path / "out")]) == 4
    assert "name a model folder with --model" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
