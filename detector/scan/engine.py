"""Photos -> rows, all cores busy: readers fetch, workers decode and cut, the networks score, the caller collects.

At most a window of photos is under way, whatever the catalogue's size. Knows neither parts nor fleets; a local scan
and every worker of a fleet run this.
"""

import hashlib
import logging
import queue
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from PIL import Image

from detector import facts
from detector.errors import DetectorError, InternalError, InvalidImage
from detector.pipeline import Detector, Look
from detector.scan import results
from detector.scan.listing import Item
from detector.scan.register import Register
from detector.scan.results import Outcome, Row
from detector.stream import Evidence, Stream

logger = logging.getLogger("detector.scan")
Fetch = Callable[[str], bytes]
_PATIENCE = 60.0  # seconds without any photo done until the networks are asked whether they live


class Engine:
    """One machine's way from addresses to rows."""

    def __init__(
        self,
        detector: Detector,
        stream: Stream,
        fetch: Fetch,
        register: Register,
        workers: int,
        readers: int,
        likeness: bool = False,
    ) -> None:
        """workers, readers: threads. likeness: add perceptual hashes."""
        self._detector, self._stream, self._fetch, self._register = detector, stream, fetch, register
        self._workers = ThreadPoolExecutor(workers, "decode")
        self._readers = ThreadPoolExecutor(readers, "read")
        self._window = readers + 4 * workers
        self._likeness = likeness
        self._done: queue.SimpleQueue[Callable[[], Row]] = queue.SimpleQueue()
        self._model = {"model_hash": detector.model.hash, "profile": detector.model.profile}

    def rows(self, items: Iterable[Item]) -> Iterator[Row]:
        """One row an item, in the order they get done; raises only what ends the scan."""
        under_way = 0
        for item in items:
            if under_way == self._window:
                yield self._collect()
                under_way -= 1
            self._readers.submit(self._guarded, partial(self._read, item))
            under_way += 1
        for _ in range(under_way):
            yield self._collect()

    def close(self) -> None:
        self._readers.shutdown(cancel_futures=True)
        self._workers.shutdown(cancel_futures=True)
        self._stream.close()

    def _collect(self) -> Row:
        while True:
            try:
                return self._done.get(timeout=_PATIENCE)()
            except queue.Empty:
                self._stream.check()

    def _guarded(self, stage: Callable[[], None]) -> None:
        """A stage must not end without a word: what it raises is raised where rows are collected."""
        try:
            stage()
        except Exception as error:
            self._done.put(_raising(error))

    def _read(self, item: Item) -> None:
        try:
            data = self._fetch(item.entry.address)
        except DetectorError as error:
            outcome = results.of_error(error)
            self._done.put(lambda: self._row(item, outcome))
            return
        sha256 = hashlib.sha256(data).hexdigest()
        if self._register.claim(sha256, lambda outcome: self._done.put(lambda: self._row(item, outcome, True))):
            self._workers.submit(self._guarded, partial(self._look, item, sha256, data))

    def _look(self, item: Item, sha256: str, data: bytes) -> None:
        try:
            look = self._detector.look(data, self._witness)
        except InvalidImage as error:
            self._settle_later(item, sha256, results.of_error(error, sha256, len(data)))
        except Exception:
            logger.exception("a photo could not be judged: %s", item.entry.address)
            self._settle_later(item, sha256, results.of_error(InternalError(), sha256, len(data)), keep=False)
        else:
            del data  # views are all that is left to hold
            scored = self._stream.submit(look.views)
            scored.add_done_callback(lambda future: self._done.put(lambda: self._verdict(item, sha256, look, future)))

    def _settle_later(self, item: Item, sha256: str, outcome: Outcome, keep: bool = True) -> None:
        def settle() -> Row:
            self._register.settle(sha256, outcome, keep)
            return self._row(item, outcome)

        self._done.put(settle)

    def _verdict(self, item: Item, sha256: str, look: Look, future: "Future[Evidence]") -> Row:
        verdict = self._detector.settle(look, future.result(), "")
        outcome = results.of_verdict(verdict, look.witnessed)
        self._register.settle(sha256, outcome)
        return self._row(item, outcome)

    def _witness(self, pixels: Image.Image, data: bytes) -> dict[str, Any]:
        measured: dict[str, Any] = facts.measure(pixels, data)
        taken = {name: measured.get(name) for name in results.FACTS}
        if self._likeness:
            taken["perceptual_hash"] = f"{facts.perceptual_hash(pixels):016x}"
        return taken

    def _row(self, item: Item, outcome: Outcome, reused: bool = False) -> Row:
        entry = item.entry
        place = {"index": item.index, "address": entry.address, "source": entry.source, "id": entry.id}
        return {**place, **outcome, "reused": reused, **self._model}


def _raising(error: Exception) -> Callable[[], Row]:
    def raise_it() -> Row:
        raise error

    return raise_it
