"""BentoML services: `Scorer` (the networks, adaptive batching), one more for a candidate model, and
`ProductPhotoDetector` (HTTP).

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

from detector import asgi, assembly, decisions, forms, logs, metrics, openapi, photos, problems, rows, shutdown, stages
from detector.artefact import Artefact
from detector.config import Settings, load_settings
from detector.decisions import Decisions
from detector.errors import (
    DecisionNotFound,
    DecisionsOff,
    DetectorError,
    DriftOff,
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
from detector.rollout import Rollout
from detector.runtime import load_runtime
from detector.schema import (
    BatchItem,
    BatchSummary,
    BatchVerdict,
    Correction,
    Decision,
    Drift,
    Explanation,
    Health,
    OnTrial,
    Verdict,
)
from detector.watch import Watch

T = TypeVar("T")
logger = logging.getLogger("bentoml.detector")
_PATIENCE = 5.0  # seconds /health waits for a scorer, and a shutdown for a candidate nobody asks any more


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


def _version(model: BentoModel) -> str:
    return str(model.stored.tag) if model.stored else str(model.tag)


def _folder(model: BentoModel) -> Path:
    return Path(model.stored.path) if model.stored else Path(str(model.tag))


def _pin(section: str, values: dict[str, Any]) -> None:
    """Which models are served is settled once: what is changed or stored later must not reach one process alone.

    Processes started from here, those that take a lost one's place too, read the environment before the file.
    """
    for name, value in values.items():
        os.environ[f"PPD_{section}__{name}".upper()] = json.dumps(value)


# uvicorn believes X-Forwarded-For from this very machine unless told otherwise; here `limits.trusted_proxies` decides.
os.environ["FORWARDED_ALLOW_IPS"] = ""
# For the processes started from here: glibc hands large blocks back when a photo is done, instead of keeping up to the
# largest photo's memory in every thread (240 MB after two of 49 megapixels).
os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", "4194304")
SETTINGS = _made(_settings)
logs.configure(SETTINGS.log.level, SETTINGS.log.format)
MODEL = _stored(SETTINGS.model.tag)
CANDIDATE = _stored(SETTINGS.rollout.tried) if SETTINGS.rollout.tried else None
CANDIDATE_PROFILE = SETTINGS.rollout.profile or SETTINGS.model.profile
GUARD = _made(assembly.guard, SETTINGS)
LINK = _made(assembly.link, SETTINGS)
_pin("model", SETTINGS.model.model_dump() | {"tag": _version(MODEL)})
_pin("rollout", SETTINGS.rollout.model_dump() | ({"candidate": _version(CANDIDATE)} if CANDIDATE else {}))
if CANDIDATE:
    # In a container BentoML ends the whole service with any process it loses; a candidate must not be able to do that.
    os.environ.pop("BENTOML_CONTAINERIZED", None)


def _artefact() -> Artefact:
    return _made(assembly.artefact, _folder(MODEL), SETTINGS.model.profile)


def _candidate_artefact(model: BentoModel) -> Artefact:
    try:
        return assembly.artefact(_folder(model), CANDIDATE_PROFILE)
    except InvalidArtefact as error:
        raise SystemExit(f"Candidate {_version(model)}: {error.detail}") from None


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


def _scorer(name: str, held: BentoModel, artefact: Callable[[], Artefact], profile: str, on_trial: bool = False) -> Any:
    """A service that holds the networks of one profile of one model; a process of its own."""

    @bentoml.service(
        name=name,
        workers=SETTINGS.scorer.workers,
        traffic={"timeout": SETTINGS.scorer.batch_wait},
        # Left alone, the client behind `depends` closes its session every 100 requests and takes the requests in
        # flight with it: 3 % of answers were 500 at 4 concurrent callers (BentoML 1.4.39).
        runner_connection={"max_requests": 10**9, "max_age": 1e9},
        **OBSERVED,
    )
    class Scorer:
        """The networks of one profile, scored in adaptive batches."""

        model = held

        def __init__(self) -> None:
            if on_trial and SETTINGS.rollout.mode == "shadow":
                os.nice(5)  # before the engine starts its threads
            if on_trial:
                shutdown.force_after(_PATIENCE)  # once nobody asks any more it has nothing to finish
            started, found, wanted = time.perf_counter(), artefact(), SETTINGS.model
            plan = found.spec.plan(profile)
            self._runtime = load_runtime(found.folder, plan, wanted.device, wanted.precision, wanted.threads)
            info = found.info(profile).model_dump()
            metrics.MODEL_INFO.labels(**info, device=self._runtime.device).set(1)
            metrics.MODEL_LOAD_SECONDS.set(time.perf_counter() - started)
            shutdown.outlive(
                lambda: shutdown.sibling_runs("product_photo_detector"),
                SETTINGS.api.shutdown_grace,
                _scorer_socket(name),
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
            if not on_trial:
                metrics.BATCH_SIZE.observe(len(asked))
            if logger.isEnabledFor(logging.DEBUG):
                told = {"requests": rows.requests_of(asked), "batch": len(asked), "network_ms": round(1e3 * took, 2)}
                logger.debug("scored", extra=told)
            return rows.answer(evidence, took)

        @bentoml.api
        def device(self) -> str:
            """Where the networks run."""
            return self._runtime.device

    return Scorer


def _scorer_socket(name: str) -> Path | None:
    """The unix socket of a scorer. BentoML 1.4.39 removes its folder before it stops those who still ask."""
    address: str = json.loads(os.environ.get("BENTOML_RUNNER_MAP", "{}")).get(name, "")
    return Path(address.removeprefix("file://")) if address.startswith("file://") else None


Scorer = _scorer("scorer", MODEL, _artefact, SETTINGS.model.profile)
CandidateScorer = CANDIDATE and _scorer(
    "candidate_scorer", CANDIDATE, lambda: _candidate_artefact(CANDIDATE), CANDIDATE_PROFILE, on_trial=True
)


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
    return await _answer(request, lambda _: _visible_decision(request, request.path_params["id"]))


async def _feedback(request: Request) -> Response:
    async def work(_: str) -> Decision:
        feedback = await forms.read_feedback(request)
        decision = await _visible_decision(request, feedback.decision_id)
        correction = Correction(
            label=feedback.label, note=feedback.note, caller=_caller_name(request), time=datetime.now(UTC)
        )
        corrected = await _decisions(request).correct(decision.id, correction)
        if corrected is None:  # its time was up in between
            raise DecisionNotFound
        return corrected

    return await _answer(request, work)


async def _drift(request: Request) -> Response:
    watch: Watch | None = request.app.state.watch

    async def work(_: str) -> Drift:
        if watch is None:
            raise DriftOff
        return await watch.report()

    return await _answer(request, work)


def _decisions(request: Request) -> Decisions:
    kept: Decisions | None = request.app.state.decisions
    if kept is None:
        raise DecisionsOff
    return kept


async def _visible_decision(request: Request, id: str) -> Decision:
    """The record, for an admin and for whose request it was; where nobody is asked everybody is an admin."""
    decision = await _decisions(request).find(id)
    caller = asgi.entry_of(request).caller
    if decision is None or not ("admin" in caller.scopes or decision.caller == caller.id):
        raise DecisionNotFound
    return decision


def _caller_id(request: Request) -> str:
    return asgi.entry_of(request).caller.id


def _caller_name(request: Request) -> str | None:
    """Who is recorded; an address is nobody's name, and is not kept."""
    return None if GUARD.open else _caller_id(request)


extras = Starlette(
    routes=[
        Route("/health", _health),
        Route("/docs.json", _docs),
        Route("/drift", _drift),
        Route("/metrics", _metrics),
        Route("/decisions/{id}", _decision),
        Route("/feedback", _feedback, methods=["POST"]),
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
    candidate = bentoml.depends(CandidateScorer) if CandidateScorer else None

    def __init__(self) -> None:
        model, profile = _artefact(), SETTINGS.model.profile
        self._watch = _made(assembly.watch, SETTINGS, model, profile, LINK)
        watcher = self._watch.see if self._watch else None
        self._current = assembly.detector(SETTINGS, model, profile, self._score, LINK, watcher)
        extras.state.watch = self._watch
        self._on_trial: Any = None
        if CANDIDATE:
            # Readiness asks every service found here, and nobody's answer depends on the candidate.
            self._on_trial, self.candidate = self.candidate, None
        self._rollout = self._make_rollout()
        if SETTINGS.tracing.endpoint:
            trace.set_tracer_provider(BentoMLContainer.tracer_provider.get())
        self._decisions, self._photos = assembly.decisions(SETTINGS), assembly.photos(SETTINGS)
        extras.state.decisions = self._decisions
        self._started = time.monotonic()
        shutdown.force_after(SETTINGS.api.shutdown_grace)
        extras.state.health = self._health

    @bentoml.on_deployment
    @staticmethod
    def verify() -> None:
        """Once, before any process serves: model, trust list and records can be read, and who may come in is said."""
        _made(assembly.watch, SETTINGS, _artefact(), SETTINGS.model.profile, LINK)
        if CANDIDATE:
            _candidate_artefact(CANDIDATE)
            logger.warning(
                "Candidate %s is tried beside %s (%s).", _version(CANDIDATE), _version(MODEL), SETTINGS.rollout.mode
            )
        _made(assembly.file_reader, SETTINGS)
        if SETTINGS.decisions.path:
            _made(decisions.prepare, SETTINGS.decisions.path)
        if SETTINGS.decisions.photos:
            _made(photos.prepare, SETTINGS.decisions.photos)
        if GUARD.open:
            logger.warning("Authentication is off: anybody who reaches this service may use it (auth.keys_file, jwt).")

    @bentoml.on_startup
    async def reach_candidate(self) -> None:
        """What BentoML does for every service it finds on this one; it waits for none."""
        if self._on_trial:
            await self._on_trial.__aenter__()

    @bentoml.on_shutdown
    async def hang_up(self) -> None:
        self._rollout.close()
        if self._watch:
            await self._watch.close()
        if LINK:
            await LINK.close()
        if self._decisions:
            await self._decisions.close()
        if self._photos:
            await self._photos.close()

    @bentoml.api(route="/predict", input_spec=PhotoForm, output_spec=Verdict)
    async def predict(self, image: Request) -> Response:
        """Judge one photo."""

        async def work(request_id: str) -> Verdict:
            photo = (await forms.read_photo(image)).data
            verdict = await self._rollout.predict(photo, request_id, _caller_id(image))
            return self._record(verdict, image, photo)

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
            explanation = await self._rollout.explain(upload.data, style, request_id, _caller_id(image))
            return explanation.model_copy(update={"verdict": self._record(explanation.verdict, image, upload.data)})

        return await _answer(image, work)

    async def _score(self, views: NDArray[np.uint8]) -> NDArray[np.float32]:
        try:
            with metrics.SCORING.track_inprogress():
                return await _scored(self.scorer, views)
        except (BentoMLException, OSError) as error:  # aiohttp's connection errors are OSErrors
            logger.warning("the scorer did not answer: %s", type(error).__name__)
            raise ModelUnavailable(
                "The model is not answering; try again.", retry_after=SETTINGS.api.retry_after
            ) from None

    async def _score_on_trial(self, views: NDArray[np.uint8]) -> NDArray[np.float32]:
        return await _scored(self._on_trial, views)

    def _make_rollout(self) -> Rollout:
        if not CANDIDATE:
            return Rollout(self._current)
        model = _candidate_artefact(CANDIDATE)
        return assembly.rollout(SETTINGS, self._current, model, CANDIDATE_PROFILE, self._score_on_trial, LINK)

    def _record(self, verdict: Verdict, request: Request, photo: bytes) -> Verdict:
        """The verdict with an id of its own, under which it is kept where records are."""
        name = uuid4().hex
        named = verdict.model_copy(update={"decision_id": name})
        if self._decisions:
            decision = Decision(id=name, time=datetime.now(UTC), caller=_caller_name(request), verdict=named)
            self._decisions.keep(decision)
        if self._photos:
            self._photos.keep(verdict.image.sha256, verdict.image.format, photo)
        return named

    async def _judge_all(
        self, uploads: list[forms.Upload | NotAFile], request_id: str, request: Request
    ) -> BatchVerdict:
        sent = [upload.data for upload in uploads if isinstance(upload, forms.Upload)]
        judged = iter(await self._rollout.predict_many(sent, request_id, _caller_id(request)))
        items = []
        for index, upload in enumerate(uploads):
            outcome = next(judged) if isinstance(upload, forms.Upload) else upload
            name, photo = (safe_name(upload.name), upload.data) if isinstance(upload, forms.Upload) else (None, b"")
            if isinstance(outcome, Verdict):
                items.append(BatchItem(index=index, name=name, verdict=self._record(outcome, request, photo)))
            else:
                if not isinstance(upload, forms.Upload):
                    metrics.PHOTOS_REFUSED.labels(outcome.code).inc()
                items.append(BatchItem(index=index, name=name, error=problems.problem(outcome, request_id)))
        return BatchVerdict(items=items, summary=_summary(items), request_id=request_id)

    async def _health(self) -> Health:
        device, answering = await asyncio.gather(_device(self.scorer), _device(self._on_trial))
        tried = self._rollout.candidate
        return Health(
            status="ok" if device else "unavailable",
            model=self._current.model,
            device=device,
            candidate=tried and OnTrial(model=tried, mode=SETTINGS.rollout.mode, answering=answering is not None),
            uptime=round(time.monotonic() - self._started, 3),
        )


async def _device(scorer: Any) -> str | None:
    """Where a scorer's networks run; None where it does not say, or there is none."""
    if scorer is None:
        return None
    try:
        async with asyncio.timeout(_PATIENCE):
            device: str = await scorer.to_async.device()
    except (BentoMLException, OSError):  # a timeout is an OSError
        return None
    return device


async def _scored(scorer: Any, views: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(n, v, 3, s, s) -> (n, plan.width), in the scorer's process."""
    started = time.perf_counter()
    scored = rows.read(await scorer.to_async.score(rows.ask(views, stages.request_id())))
    stages.scored(time.perf_counter() - started, scored.network, scored.batch)
    return scored.evidence


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
