"""`detector scan` from its options to its exit code: begin or go on, judge what is left, sum up.

What each step does is its own module's; this is their order, and what is said about them.
"""

import argparse
import contextlib
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from detector import assembly
from detector.config import load_settings
from detector.errors import DetectorError, InvalidArtefact, InvalidScan, InvalidSettings
from detector.scan import job as jobs
from detector.scan import likeness, listing, report, run, sources, summary
from detector.scan.job import Job
from detector.scan.listing import Item, Listing
from detector.scan.local import judge_parts
from detector.scan.progress import open_progress, spell
from detector.scan.register import SqliteMemory
from detector.scan.run import Run
from detector.scan.storage import Store, locate, protocol_of

FOUND, USAGE, UNFETCHED, NO_MODEL, INTERRUPTED = 1, 2, 3, 4, 130
SAMPLE = 16  # photos that a dry run judges


def main(options: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        job = make_job(options)
        return dry_run(job) if options.dry_run else scan(job, options)
    except KeyboardInterrupt:
        print("Interrupted; the same command goes on where this ended.", file=sys.stderr)
        return INTERRUPTED
    except InvalidArtefact as error:
        return _refused(error, NO_MODEL)
    except (InvalidScan, InvalidSettings) as error:
        return _refused(error, USAGE)
    except DetectorError as error:
        return _refused(error, NO_MODEL)


def _refused(error: DetectorError, code: int) -> int:
    print(f"{error.detail} [{error.code}]", file=sys.stderr)
    return code


def make_job(options: argparse.Namespace) -> Job:
    """Everything checked that can be before a photo is read."""
    named = options.config or os.environ.get("PPD_CONFIG")
    settings = load_settings(Path(named) if named else None)
    model = _model(options.model)
    info = assembly.artefact(model, settings.model.profile).info(settings.model.profile)
    columns = {"address": options.column, "source": options.source_column, "id": options.id_column}
    wanted = run.Wanted(
        source=_absolute(options.source),
        columns=columns,
        format=options.format,
        part_size=options.part_size,
        near_duplicates=options.near_duplicates,
        model=info,
        settings=jobs.settings_of(settings),
    )
    return Job(
        store=_absolute(options.out),
        wanted=wanted,
        settings=settings,
        model=model,
        workers=options.workers or (jobs.cores() if options.engine == "local" else options.worker_cpus),
        readers=options.readers or (8 if protocol_of(options.source) == "file" and not options.allow_http else 32),
        threads=0 if options.engine == "local" else options.worker_cpus,
        allow_http=options.allow_http,
        allow_private=options.allow_private,
    )


def _model(named: Path | None) -> Path:
    """The folder named, or the checkout's own; a wheel carries none, for clients need none."""
    if named is None and not jobs.DEFAULT_MODEL.exists():
        raise InvalidArtefact("This installation holds no model; name a model folder with --model.")
    return (named or jobs.DEFAULT_MODEL).resolve()


def scan(job: Job, options: argparse.Namespace) -> int:
    store = Store(job.store)
    with _alone(store):
        found = _begin(job, store)
        pending = _pending(store, found, options.retry)
        started = time.monotonic()
        found = _judge(job, store, found, pending, options)
        seen = summary.summarise(store, range(found.parts), job.wanted.format)
        found = found.model_copy(
            update={
                "state": "finished",
                "finished": datetime.now(UTC),
                "counts": seen.counts,
                "seconds": found.seconds + time.monotonic() - started if pending else found.seconds,
            }
        )
        run.save(store, found)
        _tell(job, store, found, seen, options)
    if any(seen.labels[label] for label in options.fail_on):
        return FOUND
    return UNFETCHED if seen.errors["source_unavailable"] else 0


def dry_run(job: Job) -> int:
    """Count, and judge the first photos to say how long all would take; nothing is written."""
    entries = sources.list_photos(job.wanted.source, sources.Columns(**job.wanted.columns))
    first = [Item(index, entry) for index, entry in enumerate(islice(entries, SAMPLE))]
    photos = len(first) + sum(1 for _ in entries)
    seconds, errors = _judge_sample(job, first)
    info = job.wanted.model
    print(f"{photos:,} photos in {-(-photos // job.wanted.part_size):,} parts; would be written to {job.store}.")
    print(f"Model {info.name} {info.version}, profile {info.profile}, hash {info.hash[:12]}.")
    if first:
        rate = len(first) / seconds
        print(f"{len(first)} photos judged for trial, {errors} with an error: {rate:.1f}/s on this machine,")
        print(f"about {spell(photos / rate)} for all. Nothing was written.")
    return 0


def _judge_sample(job: Job, items: list[Item]) -> tuple[float, int]:
    """Seconds, and how many had errors; the first photo warms everything up."""
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(SqliteMemory(Path(folder) / "memory")) as memory:
        engine = jobs.open_engine(job, memory)
        try:
            started = time.perf_counter()
            errors = sum(1 for row in engine.rows(items) if row.get("error"))
            return time.perf_counter() - started, errors
        finally:
            engine.close()


def _begin(job: Job, store: Store) -> Run:
    """A new run with its listing, or the one that is here. The listing counts once its number is written."""
    found = run.begin(store, job.wanted, jobs.release())
    if found.photos is None:
        run.save(store, found)
        entries = sources.list_photos(job.wanted.source, sources.Columns(**job.wanted.columns))
        photos = listing.write(store, entries, job.wanted.part_size)
        found = found.model_copy(update={"photos": photos, "state": "running"})
        run.save(store, found)
    return found


def _pending(store: Store, found: Run, retry: bool) -> list[int]:
    done = run.done_parts(store)
    again = summary.unfetched_parts(store, sorted(done), found.wanted.format) if retry else []
    return sorted((set(range(found.parts)) - done) | set(again))


def _judge(job: Job, store: Store, found: Run, pending: list[int], options: argparse.Namespace) -> Run:
    if not pending:
        return found
    size, total = job.wanted.part_size, found.photos or 0
    left = sum(min(size, total - part * size) for part in pending)
    progress = open_progress(total, total - left, options.quiet)
    try:
        if options.engine == "ray":
            from detector.scan import fleet

            for photos in fleet.judge(job, pending, fleet.Fleet.of(options)):
                progress.advance(photos)
        else:
            _judge_here(job, store, pending, lambda _: progress.advance())
    finally:
        progress.close()
    return found


def _judge_here(job: Job, store: Store, pending: list[int], tell: Any) -> None:
    with _memory(store) as memory:
        engine = jobs.open_engine(job, memory)
        try:
            pages = Listing(store, job.wanted.part_size)
            for _ in judge_parts(engine, store, pages, pending, job.wanted.part_size, job.wanted.format, tell):
                memory.commit()
        finally:
            engine.close()


@contextlib.contextmanager
def _memory(store: Store) -> Iterator[SqliteMemory]:
    """Beside the results where they are on this machine, so that a later sitting has it too."""
    with tempfile.TemporaryDirectory() as folder:
        local = store.place.local
        memory = SqliteMemory((local or Path(folder)) / ".outcomes.sqlite")
        try:
            yield memory
        finally:
            memory.close()


@contextlib.contextmanager
def _alone(store: Store) -> Iterator[None]:
    """Two scans into one folder of this machine would do everything twice; the lock goes with its process."""
    local = store.place.local
    if local is None:
        yield
        return
    import fcntl

    local.mkdir(parents=True, exist_ok=True)
    with (local / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InvalidScan(f"Another scan is writing to {store.address}.") from None
        yield


def _tell(job: Job, store: Store, found: Run, seen: summary.Summary, options: argparse.Namespace) -> None:
    report.print_summary(found, seen)
    print(f"Rows: {store.address}/results, one for each photo. Manifest: {store.address}/{run.NAME}.")
    if job.wanted.near_duplicates:
        groups = likeness.write_groups(store, range(found.parts), job.wanted.format)
        print(f"Photos that look alike: {groups:,} groups, in {store.address}/{likeness.NAME}.")
    if options.report:
        fetch = jobs.open_fetcher(job).fetch
        page = report.draw(found, seen, report.thumbnails(seen.flagged[: options.thumbnails], fetch, job.settings))
        options.report.write_text(page, encoding="utf-8")
        print(f"Report: {options.report}.")


def _absolute(address: str) -> str:
    """The same from every folder, so that a scan goes on wherever it is called from."""
    place = locate(address)
    return place.path if place.local else address.rstrip("/")
