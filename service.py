"""Two BentoML services: `Scorer` (the networks, adaptive batching) and `ProductPhotoDetector` (HTTP).

The only place that knows BentoML, and the edge where settings are read. What they make is `detector.assembly`'s, what
is decided about a photo `detector.pipeline`'s; docs/architecture.md says why the options below are as they are.
"""

import asyncio
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar
from uuid import uuid4

import bentoml
import numpy as np
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml.exceptions import BentoMLException
from bentoml.models import BentoModel
from numpy.typing import NDArray
from opentelemetry import trace
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from detector import asgi, assembly, forms, logs, metrics, openapi, problems, rows, shutdown, stages
from detector.artefact import Artefact
from detector.config import Settings, load_settings
from detector.decisions import Decisions, prepare
from detector.errors import (
    DecisionNotFound,
    DecisionsOff,
    DetectorError,
    InternalError,
    InvalidArtefact,
    InvalidSettings,
    ModelUnavailable,
    NotAFile,
    TimedOut,
)
from detector.exchange import Pace
from detector.image import safe_name
from detector.pipeline import Style
from detector.runtime import load_runtime
from detector.schema import (
    BatchItem,
    BatchSummary,
    BatchVerdict,
    Correction,
    Decision,
    Explanation,
    Health,
    Verdict,
)

T = TypeVar("T")
logger = logging.getLogger("bentoml.detector")


def _made(make: Callable[..., T], *parts: Any) -> T:
    """What `make` makes of its parts; ends the process with one line where it can't."""
    try:
        return make(*parts)
    except (InvalidSettings, InvalidArtefact) as error:
        raise SystemExit(error.detail) from None


def _settings() -> Settings:
    named = os.environ.get("PPD_CONFIG")
    return load_settings(Path(named) if named else Path(__file__).with_name("configuration.yaml"))


def _stored(tag: str) -> BentoModel:
    """The model's place in the Bento store; without one there is nothing to serve."""
    model = BentoModel(tag)
    if model.stored is None:
        raise SystemExit(f"There is no model {tag} in the Bento store; `make model` puts the embedded one there.")
    return model


# uvicorn believes X-Forwarded-For from this very machine unless told otherwise; here `limits.trusted_proxies` decides.
os.environ["FORWARDED_ALLOW_IPS"] = ""
# For the processes started from here: glibc hands large blocks back when a photo is done, instead of keeping up to the
# largest photo's memory in every thread (240 MB after two of 49 megapixels).
os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", "4194304")
SETTINGS = _made(_settings)
logs.configure(SETTINGS.log.level, SETTINGS.log.format)
MODEL = _stored(SETTINGS.model.tag)
GUARD = _made(assembly.guard, SETTINGS)
LINK = _made(assembly.link, SETTINGS)


def _artefact() -> Artefact:
    stored = MODEL.stored
    folder = Path(stored.path) if stored else Path(SETTINGS.model.tag)
    return _made(assembly.artefact, folder, SETTINGS.model.profile)


def _tracing() -> dict[str, Any]:
    """BentoML's own tracing, for both services; without an address it looks at no request at all."""
    wanted = SETTINGS.tracing
    if wanted.endpoint is None:
        return {"excluded_urls": [".*"]}
    return {
        "exporter_type": "otlp",
        "otlp": {"protocol": "http", "endpoint": wanted.endpoint},
        "sample_rate": wanted.sample_rate,
        "excluded_urls": ["livez", "readyz", "healthz", "metrics"],
    }


# BentoML's own metrics take any path a caller invents for a label; ours are in `detector.metrics`, and one line a
# request is the gate's.
OBSERVED: Any = {
    "metrics": {"enabled": False},
    "logging": {"access": {"enabled": False}},
    "tracing": _tracing(),
}


@bentoml.service(
    name="scorer",
    workers=SETTINGS.scorer.workers,
    traffic={"timeout": SETTINGS.scorer.batch_wait},
    # Left alone, the client behind `depends` closes its session every 100 requests and takes the requests in
    # flight with it: 3 % of answers were 500 at 4 concurrent callers (BentoML 1.4.39).
    runner_connection={"max_requests": 10**9, "max_age": 1e9},
    **OBSERVED,
)
class Scorer:
    """The networks of one profile, scored in adaptive batches."""

    model = MODEL

    def __init__(self) -> None:
        started, artefact, wanted = time.perf_counter(), _artefact(), SETTINGS.model
        plan = artefact.spec.plan(wanted.profile)
        self._runtime = load_runtime(artefact.folder, plan, wanted.device, wanted.precision, wanted.threads)
        info = artefact.info(wanted.profile).model_dump()
        metrics.MODEL_INFO.labels(**info, device=self._runtime.device).set(1)
        metrics.MODEL_LOAD_SECONDS.set(time.perf_counter() - started)
        shutdown.outlive(
            lambda: shutdown.sibling_runs("product_photo_detector"), SETTINGS.api.shutdown_grace, _scorer_socket()
        )

    @bentoml.api(
        batchable=True,
        max_batch_size=SETTINGS.scorer.max_batch_size,
        # The batcher cancels what it expects to be late, so it may wait as long as a request may.
        max_latency_ms=int(1000 * SETTINGS.scorer.batch_wait),
    )
    def score(self, asked: np.ndarray) -> np.ndarray:
        """Rows of n photos, of several requests (`detector.rows`) -> rows with their evidence, in order."""
        started = time.perf_counter()
        try:
            evidence = self._runtime.score(rows.views_of(asked))
        except Exception:  # BentoML logs the traceback, but knows no request's id
            logger.error("scoring failed", extra={"requests": rows.requests_of(asked)})
            raise
        took = time.perf_counter() - started
        metrics.BATCH_SIZE.observe(len(asked))
        if logger.isEnabledFor(logging.DEBUG):
            told = {"requests": rows.requests_of(asked), "batch": len(asked), "network_ms": round(1e3 * took, 2)}
            logger.debug("scored", extra=told)
        return rows.answer(evidence, took)

    @bentoml.api
    def device(self) -> str:
        """Where the networks run."""
        return self._runtime.device


def _scorer_socket() -> Path | None:
    """The unix socket of the scorer. BentoML 1.4.39 removes its folder before it stops those who still ask."""
    address: str = json.loads(os.environ.get("BENTOML_RUNNER_MAP", "{}")).get("scorer", "")
    return Path(address.removeprefix("file://")) if address.startswith("file://") else None


class _Form(bentoml.IODescriptor):
    """A multipart body that BentoML only describes: it would fetch addresses and answer 500 to broken files.

    The handler gets the request itself in the first field and reads it through `detector.forms`.
    """

    @classmethod
    async def from_http_request(cls, request: Request, serde: Any) -> Self:  # noqa: ARG003
        first, *others = cls.model_fields
        return cls.model_construct(**{first: request}, **dict.fromkeys(others))


class PhotoForm(_Form):
    image: Path


class BatchForm(_Form):
    images: list[Path]


class ExplainForm(_Form):
    image: Path
    alpha: float = SETTINGS.explain.alpha
    colormap: str = SETTINGS.explain.colormap
    format: str = SETTINGS.explain.format


async def _health(request: Request) -> Response:
    health: Health = await request.app.state.health()
    return JSONResponse(health.model_dump(), 200 if health.status == "ok" else 503)


async def _metrics(_: Request) -> Response:
    return Response(await asyncio.to_thread(metrics.exposition), media_type=metrics.CONTENT_TYPE)


async def _docs(_: Request) -> Response:
    return JSONResponse(openapi.document(SETTINGS.batch.max_images, SETTINGS.explain.model_dump()))


async def _decision(request: Request) -> Response:
    return await _answer(request, lambda _: _visible_decision(request))


async def _feedback(request: Request) -> Response:
    async def work(_: str) -> Decision:
        decision, feedback = await _visible_decision(request), await forms.read_feedback(request)
        correction = Correction(
            label=feedback.label, note=feedback.note, caller=_caller_name(request), time=datetime.now(UTC)
        )
        corrected = await _decisions(request).correct(decision.id, correction)
        if corrected is None:  # its time was up in between
            raise DecisionNotFound
        return corrected

    return await _answer(request, work)


def _decisions(request: Request) -> Decisions:
    kept: Decisions | None = request.app.state.decisions
    if kept is None:
        raise DecisionsOff
    return kept


async def _visible_decision(request: Request) -> Decision:
    """The record, for an admin and for whose request it was; where nobody is asked everybody is an admin."""
    decision = await _decisions(request).find(request.path_params["id"])
    caller = asgi.entry_of(request).caller
    if decision is None or not ("admin" in caller.scopes or decision.caller == caller.id):
        raise DecisionNotFound
    return decision


def _caller_name(request: Request) -> str | None:
    """Who is recorded; an address is nobody's name, and is not kept."""
    return None if GUARD.open else asgi.entry_of(request).caller.id


extras = Starlette(
    routes=[
        Route("/health", _health),
        Route("/docs.json", _docs),
        Route("/metrics", _metrics),
        Route("/decisions/{id}", _decision),
        Route("/decisions/{id}/feedback", _feedback, methods=["POST"]),
    ]
)


@bentoml.asgi_app(extras, path="/")
@bentoml.service(
    name="product_photo_detector",
    workers=SETTINGS.api.workers,
    traffic={"timeout": SETTINGS.api.timeout + 5},  # a backstop: `_answer` speaks first
    **OBSERVED,
)
class ProductPhotoDetector:
    """Tells an AI-generated product photo from a photograph."""

    model = MODEL
    scorer = bentoml.depends(Scorer)

    def __init__(self) -> None:
        self._detector = assembly.detector(SETTINGS, _artefact(), SETTINGS.model.profile, self._score, LINK)
        if SETTINGS.tracing.endpoint:
            trace.set_tracer_provider(BentoMLContainer.tracer_provider.get())
        self._decisions = assembly.decisions(SETTINGS)
        extras.state.decisions = self._decisions
        self._started = time.monotonic()
        shutdown.force_after(SETTINGS.api.shutdown_grace)
        extras.state.health = self._health

    @bentoml.on_deployment
    @staticmethod
    def verify() -> None:
        """Once, before any process serves: model, trust list and records can be read, and who may come in is said."""
        _artefact()
        _made(assembly.file_reader, SETTINGS)
        if SETTINGS.decisions.path:
            _made(prepare, SETTINGS.decisions.path)
        if GUARD.open:
            logger.warning("Authentication is off: anybody who reaches this service may use it (auth.keys_file, jwt).")

    @bentoml.on_shutdown
    async def hang_up(self) -> None:
        if LINK:
            await LINK.close()
        if self._decisions:
            await self._decisions.close()

    @bentoml.api(route="/predict", input_spec=PhotoForm, output_spec=Verdict)
    async def predict(self, image: Request) -> Response:
        """Judge one photo."""

        async def work(request_id: str) -> Verdict:
            verdict = await self._detector.predict((await forms.read_photo(image)).data, request_id)
            return self._record(verdict, image)

        return await _answer(image, work)

    @bentoml.api(route="/predict/batch", input_spec=BatchForm, output_spec=BatchVerdict)
    async def predict_batch(self, images: Request) -> Response:
        """Judge several photos; each has its own verdict or error, in the order sent."""

        async def work(request_id: str) -> BatchVerdict:
            uploads = await forms.read_photos(images, SETTINGS.batch.max_images)
            if len(uploads) > 1:  # the gate took one before it could count them
                await asgi.entry_of(images).spend(len(uploads) - 1)
            return await self._judge_all(uploads, request_id, images)

        return await _answer(images, work)

    @bentoml.api(route="/explain", input_spec=ExplainForm, output_spec=Explanation)
    async def explain(self, image: Request, **_: object) -> Response:
        """Judge one photo and show where its evidence lies."""

        async def work(request_id: str) -> Explanation:
            drawn = SETTINGS.explain
            default = Style(drawn.alpha, drawn.colormap, drawn.format, drawn.max_side)
            upload, style = await forms.read_explain(image, default)
            explanation = await self._detector.explain(upload.data, style, request_id)
            return explanation.model_copy(update={"verdict": self._record(explanation.verdict, image)})

        return await _answer(image, work)

    async def _score(self, views: NDArray[np.uint8]) -> NDArray[np.float32]:
        started = time.perf_counter()
        request_id = stages.request_id()
        try:
            with metrics.SCORING.track_inprogress():
                scored = rows.read(await self.scorer.to_async.score(rows.ask(views, request_id)))
        except (BentoMLException, OSError) as error:  # aiohttp's connection errors are OSErrors
            logger.warning("the scorer did not answer: %s", type(error).__name__)
            raise ModelUnavailable(
                "The model is not answering; try again.", retry_after=SETTINGS.api.retry_after
            ) from None
        stages.scored(time.perf_counter() - started, scored.network, scored.batch)
        return scored.evidence

    def _record(self, verdict: Verdict, request: Request) -> Verdict:
        """The verdict with an id of its own, under which it is kept where records are."""
        name = uuid4().hex
        named = verdict.model_copy(update={"decision_id": name})
        if self._decisions:
            decision = Decision(id=name, time=datetime.now(UTC), caller=_caller_name(request), verdict=named)
            self._decisions.keep(decision)
        return named

    async def _judge_all(
        self, uploads: list[forms.Upload | NotAFile], request_id: str, request: Request
    ) -> BatchVerdict:
        photos = [upload.data for upload in uploads if isinstance(upload, forms.Upload)]
        judged = iter(await self._detector.predict_many(photos, request_id))
        items = []
        for index, upload in enumerate(uploads):
            outcome = next(judged) if isinstance(upload, forms.Upload) else upload
            name = safe_name(upload.name) if isinstance(upload, forms.Upload) else None
            if isinstance(outcome, Verdict):
                items.append(BatchItem(index=index, name=name, verdict=self._record(outcome, request)))
            else:
                if not isinstance(upload, forms.Upload):
                    metrics.PHOTOS_REFUSED.labels(outcome.code).inc()
                items.append(BatchItem(index=index, name=name, error=problems.problem(outcome, request_id)))
        return BatchVerdict(items=items, summary=_summary(items), request_id=request_id)

    async def _health(self) -> Health:
        try:
            device = await self.scorer.to_async.device()
        except (BentoMLException, OSError):
            device = None
        return Health(
            status="ok" if device else "unavailable",
            model=self._detector.model,
            device=device,
            uptime=round(time.monotonic() - self._started, 3),
        )


async def _answer(request: Request, work: Callable[[str], Awaitable[BaseModel]]) -> Response:
    """Run `work` with the request's id in the time a request has, and write its answer or its problem."""
    request_id = asgi.request_id_of(request)
    try:
        async with asyncio.timeout(SETTINGS.api.timeout):
            answer = await work(request_id)
    except TimeoutError:
        error: DetectorError = TimedOut(f"The answer took longer than {SETTINGS.api.timeout} seconds.")
    except DetectorError as known:
        error = known
    except Exception:
        logger.exception("the request failed")
        error = InternalError()
    else:
        return Response(answer.model_dump_json(), headers=_cache_headers(answer), media_type="application/json")
    stages.failed(error.code)
    return problems.problem_response(error, request_id)


def _summary(items: list[BatchItem]) -> BatchSummary:
    labels = Counter(item.verdict.label if item.verdict else "errors" for item in items)
    return BatchSummary(
        photos=len(items),
        real=labels["real"],
        ai_generated=labels["ai_generated"],
        uncertain=labels["uncertain"],
        errors=labels["errors"],
    )


def _cache_headers(answer: BaseModel) -> dict[str, str]:
    if not isinstance(answer, Verdict) or not SETTINGS.cache.entries:
        return {}
    return {"X-Cache": "hit" if answer.cached else "miss"}


_service: Any = ProductPhotoDetector
if SETTINGS.cors.allow_origins:
    # BentoML's own CORS option sits inside the gate, whose refusals a browser then could not read.
    _service.add_asgi_middleware(
        CORSMiddleware,
        allow_origins=SETTINGS.cors.allow_origins,
        allow_methods=("GET", "POST"),
        allow_headers=("Authorization", "X-API-Key", "X-Request-ID"),
        expose_headers=(
            "X-Request-ID",
            "X-Cache",
            "Retry-After",
            "WWW-Authenticate",
            "RateLimit",
            "RateLimit-Policy",
            "RateLimit-Limit",
            "RateLimit-Remaining",
            "RateLimit-Reset",
        ),
    )
_service.add_asgi_middleware(
    asgi.Gate,
    doors=assembly.doors(SETTINGS),
    room=asgi.Room(SETTINGS.api.max_in_flight, SETTINGS.api.max_queued, SETTINGS.api.retry_after),
    pace=Pace(SETTINGS.api.upload_grace, SETTINGS.api.upload_rate),
    guard=GUARD,
    budgets=assembly.budgets(SETTINGS, LINK),
    trusted=SETTINGS.limits.trusted_proxies,
    open_routes=("/", "/health", "/docs.json"),
)
