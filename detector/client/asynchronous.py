"""AsyncClient: performs the steps of `flow` with awaited calls; the twin of `Client`, method by method."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
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


class AsyncClient:
    """A connection to one service; use it as an asynchronous context manager or await `close`.

    Raises what `Client` raises. Files are read in a thread, so the event loop never waits for a disk.
    """

    def __init__(
        self,
        address: str | None = None,
        api_key: str | SecretStr | None = None,
        *,
        timeout: float = 60.0,
        retry: Retry = Retry(),  # noqa: B008, frozen
        max_download: int = MAX_DOWNLOAD,
        transport: httpx.AsyncBaseTransport | None = None,
        environ: Mapping[str, str] | None = None,
        clock: Callable[[], float] = default_clock,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Callable[[], float] = default_random,
        ids: Callable[[], str] = new_id,
    ) -> None:
        """The arguments of `Client`."""
        self._connection = Connection.of(address, api_key, timeout, retry, max_download, environ, clock, random, ids)
        self._sleep = sleep
        self._http = httpx.AsyncClient(transport=transport)

    def __repr__(self) -> str:
        return f"AsyncClient({self.address!r})"

    @property
    def address(self) -> str:
        return self._connection.address

    def with_key(self, api_key: str | SecretStr | None) -> "AsyncClient":
        """The same connection with another key; closing either closes both."""
        other = copy(self)
        held = self._connection
        other._connection = Connection(held.address, secret(api_key), held.max_download, held.rules)
        return other

    async def predict(self, photo: Source, *, request_id: str | None = None) -> Verdict:
        """Judge one photo: a path, bytes, an open file, a PIL image, or a web address fetched from this machine."""
        return await self._run(flow.predict(self._connection.rules, photo, request_id))

    async def predict_batch(
        self,
        photos: Iterable[Source],
        *,
        size: int = flow.BATCH,
        concurrency: int = 4,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> BatchVerdict:
        """Judge any number of photos, as `Client.predict_batch` does."""
        rules = self._connection.rules
        batch = flow.Batch(list(photos), size, rules.new_id())
        room, items = asyncio.Semaphore(concurrency), list[BatchItem]()

        async def judge(places: list[int]) -> None:
            async with room:
                items.extend(await self._run(flow.judge(rules, batch, places)))
            if on_progress:
                on_progress(len(items), len(batch.sources))

        async with asyncio.TaskGroup() as group:
            for places in batch.requests():
                group.create_task(judge(places))
        return batch.answer(items)

    async def explain(
        self,
        photo: Source,
        *,
        alpha: float | None = None,
        colormap: Colormap | None = None,
        format: OverlayFormat | None = None,
        request_id: str | None = None,
    ) -> Explanation:
        """Judge one photo and show where its evidence lies; an option left out is the service's to choose."""
        return await self._run(flow.explain(self._connection.rules, photo, alpha, colormap, format, request_id))

    async def decision(self, id: str) -> Decision:
        """What was decided, by the `decision_id` of a verdict; the service must keep records."""
        return await self._run(flow.decision(self._connection.rules, id))

    async def feedback(self, id: str, label: Truth, note: str | None = None) -> Decision:
        """Say what the photo is, in a person's judgement; kept beside the decision, in place of earlier feedback.

        Needs the scope `feedback`, and a decision that the caller may read.
        """
        return await self._run(flow.feedback(self._connection.rules, id, label, note))

    async def drift(self) -> Drift:
        """Whether photos and verdicts are like those the model was judged on, feature by feature."""
        return await self._run(flow.drift(self._connection.rules))

    async def health(self) -> Health:
        """State of the service, asked once; one whose model does not answer says so here and raises nothing."""
        return await self._run(flow.health(self._connection.rules))

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, steps: flow.Flow[T]) -> T:
        try:
            step = next(steps)
            while True:
                try:
                    outcome = await self._perform(step)
                except (DetectorError, OSError, httpx.TransportError) as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(outcome)
        except StopIteration as end:
            answer: T = end.value
            return answer

    async def _perform(self, step: flow.Read | flow.Send | flow.Sleep) -> Any:
        if isinstance(step, flow.Send):
            return reply_of(await self._http.request(**self._connection.arguments(step)))
        if isinstance(step, flow.Sleep):
            return await self._sleep(step.seconds)
        if is_address(step.source):
            return await self._fetch(str(step.source))
        return await asyncio.to_thread(read, step.source)

    async def _fetch(self, address: str) -> Upload:
        rules = self._connection.rules
        download = Download(address, self._connection.max_download, rules.timeout, rules.clock)
        try:
            async with self._http.stream("GET", address, timeout=rules.timeout, follow_redirects=True) as response:
                download.begin(response)
                async for part in response.aiter_bytes():
                    download.add(part)
        except (httpx.HTTPError, httpx.InvalidURL):
            raise download.failed() from None
        return download.end()
