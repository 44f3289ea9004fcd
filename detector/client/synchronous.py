"""Client: performs the steps of `flow` with blocking calls, and a batch's requests in a few threads."""

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from copy import copy
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from pydantic import SecretStr

from detector.client import flow
from detector.client.connection import (
    MAX_DOWNLOAD,
    Connection,
    Download,
    default_clock,
    default_random,
    new_id,
    reply_of,
    secret,
)
from detector.client.retry import Retry
from detector.client.sources import Source, Upload, is_address, read
from detector.errors import DetectorError
from detector.schema import (
    BatchItem,
    BatchVerdict,
    Colormap,
    Decision,
    Drift,
    Explanation,
    Health,
    OverlayFormat,
    Truth,
    Verdict,
)

T = TypeVar("T")


class Client:
    """A connection to one service; use it as a context manager or call `close`. Safe to share between threads.

    Methods raise the DetectorError that the service answered with, found by its code; ModelUnavailable where there
    was no answer at all; OSError for a path that can't be read.
    """

    def __init__(
        self,
        address: str | None = None,
        api_key: str | SecretStr | None = None,
        *,
        timeout: float = 60.0,
        retry: Retry = Retry(),  # noqa: B008, frozen
        max_download: int = MAX_DOWNLOAD,
        transport: httpx.BaseTransport | None = None,
        environ: Mapping[str, str] | None = None,
        clock: Callable[[], float] = default_clock,
        sleep: Callable[[float], None] = time.sleep,
        random: Callable[[], float] = default_random,
        ids: Callable[[], str] = new_id,
    ) -> None:
        """timeout: seconds for one attempt. max_download: bytes of a photo fetched from a web address.

        Address and key fall back to PPD_ADDRESS and PPD_API_KEY of `environ` (the process's own, if None).
        """
        self._connection = Connection.of(address, api_key, timeout, retry, max_download, environ, clock, random, ids)
        self._sleep = sleep
        self._http = httpx.Client(transport=transport)

    def __repr__(self) -> str:
        return f"Client({self.address!r})"

    @property
    def address(self) -> str:
        return self._connection.address

    def with_key(self, api_key: str | SecretStr | None) -> "Client":
        """The same connection with another key; closing either closes both."""
        other = copy(self)
        held = self._connection
        other._connection = Connection(held.address, secret(api_key), held.max_download, held.rules)
        return other

    def predict(self, photo: Source, *, request_id: str | None = None) -> Verdict:
        """Judge one photo: a path, bytes, an open file, a PIL image, or a web address fetched from this machine."""
        return self._run(flow.predict(self._connection.rules, photo, request_id))

    def predict_batch(
        self,
        photos: Iterable[Source],
        *,
        size: int = flow.BATCH,
        concurrency: int = 4,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> BatchVerdict:
        """Judge any number of photos, `size` in a request and `concurrency` requests at once, in the order given.

        A photo that can't be judged has an error in its place; nothing is raised. `on_progress(done, total)` is
        called in this thread. A refusal that every request would meet ends the batch: the photos left carry it.
        """
        rules = self._connection.rules
        batch = flow.Batch(list(photos), size, rules.new_id())
        items: list[BatchItem] = []
        with ThreadPoolExecutor(concurrency, "batch") as pool:
            try:
                waiting = [pool.submit(self._run, flow.judge(rules, batch, part)) for part in batch.requests()]
                for finished in as_completed(waiting):
                    items += finished.result()
                    if on_progress:
                        on_progress(len(items), len(batch.sources))
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        return batch.answer(items)

    def explain(
        self,
        photo: Source,
        *,
        alpha: float | None = None,
        colormap: Colormap | None = None,
        format: OverlayFormat | None = None,
        request_id: str | None = None,
    ) -> Explanation:
        """Judge one photo and show where its evidence lies; an option left out is the service's to choose."""
        return self._run(flow.explain(self._connection.rules, photo, alpha, colormap, format, request_id))

    def decision(self, id: str) -> Decision:
        """What was decided, by the `decision_id` of a verdict; the service must keep records."""
        return self._run(flow.decision(self._connection.rules, id))

    def feedback(self, id: str, label: Truth, note: str | None = None) -> Decision:
        """Say what the photo is, in a person's judgement; kept beside the decision, in place of earlier feedback.

        Needs the scope `feedback`, and a decision that the caller may read.
        """
        return self._run(flow.feedback(self._connection.rules, id, label, note))

    def drift(self) -> Drift:
        """Whether photos and verdicts are like those the model was judged on, feature by feature."""
        return self._run(flow.drift(self._connection.rules))

    def health(self) -> Health:
        """State of the service, asked once; one whose model does not answer says so here and raises nothing."""
        return self._run(flow.health(self._connection.rules))

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, steps: flow.Flow[T]) -> T:
        try:
            step = next(steps)
            while True:
                try:
                    outcome = self._perform(step)
                except (DetectorError, OSError, httpx.TransportError) as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(outcome)
        except StopIteration as end:
            answer: T = end.value
            return answer

    def _perform(self, step: flow.Read | flow.Send | flow.Sleep) -> Any:
        if isinstance(step, flow.Send):
            return reply_of(self._http.request(**self._connection.arguments(step)))
        if isinstance(step, flow.Sleep):
            return self._sleep(step.seconds)
        return self._fetch(str(step.source)) if is_address(step.source) else read(step.source)

    def _fetch(self, address: str) -> Upload:
        rules = self._connection.rules
        download = Download(address, self._connection.max_download, rules.timeout, rules.clock)
        try:
            with self._http.stream("GET", address, timeout=rules.timeout, follow_redirects=True) as response:
                download.begin(response)
                for part in response.iter_bytes():
                    download.add(part)
        except (httpx.HTTPError, httpx.InvalidURL):
            raise download.failed() from None
        return download.end()
