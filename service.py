"""Two BentoML services: `Scorer` (the networks, adaptive batching) and `ProductPhotoDetector` (HTTP).

The only place that knows BentoML, and the edge where settings are read. What is decided about a photo is
`detector.pipeline`'s; docs/architecture.md says why the options below are as they are.
"""

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

import bentoml
import numpy as np
from bentoml.exceptions import BentoMLException
from bentoml.models import BentoModel
from numpy.typing import NDArray
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from detector import asgi, forms, openapi
from detector.artefact import Artefact, load
from detector.config import Settings, load_settings
from detector.errors import (
    DetectorError,
    InternalError,
    InvalidArtefact,
    InvalidSettings,
    ModelUnavailable,
    NotAFile,
    TimedOut,
)
from detector.image import Limits, safe_name
from detector.pipeline import Detector, Rules, Style
from detector.provenance.policy import Policy
from detector.provenance.reading import FileReader
from detector.runtime import load_runtime
from detector.schema import BatchItem, BatchSummary, BatchVerdict, Explanation, Health, Verdict

logger = logging.getLogger("bentoml.detector")


def _settings() -> Settings:
    named = os.environ.get("PPD_CONFIG")
    try:
        return load_settings(Path(named) if named else Path(__file__).with_name("configuration.yaml"))
    except DetectorError as error:
        raise SystemExit(error.detail) from None


def _stored(tag: str) -> BentoModel:
    """The model's place in the Bento store; without one there is nothing to serve."""
    model = BentoModel(tag)
    if model.stored is None:
        raise SystemExit(f"There is no model {tag} in the Bento store; `make model` puts the embedded one there.")
    return model


SETTINGS = _settings()
MODEL = _stored(SETTINGS.model.tag)


def _artefact() -> Artefact:
    """The verified model folder; ends the process with one line where it can't be trusted or lacks the profile."""
    stored = MODEL.stored
    try:
        artefact = load(Path(stored.path) if stored else Path(SETTINGS.model.tag))
        if SETTINGS.model.profile not in artefact.spec.profiles:
            known = ", ".join(artefact.spec.profiles)
            raise InvalidArtefact(f"The model has no profile {SETTINGS.model.profile}; it has {known}.")
    except InvalidArtefact as error:
        raise SystemExit(error.detail) from None
    return artefact


def _file_reader() -> FileReader | None:
    """Reads what files say of themselves; ends the process with one line where the trust list is none."""
    wanted = SETTINGS.provenance
    try:
        return FileReader(wanted.read_trust_anchors(), wanted.max_block, wanted.prompts) if wanted.enabled else None
    except InvalidSettings as error:
        raise SystemExit(error.detail) from None


@bentoml.service(
    name="scorer",
    workers=SETTINGS.scorer.workers,
    traffic={"timeout": SETTINGS.scorer.batch_wait},
    logging={"access": {"enabled": False}},  # the API process logs each request once
    # Left alone, the client behind `depends` closes its session every 100 requests and takes the requests in
    # flight with it: 3 % of answers were 500 at 4 concurrent callers (BentoML 1.4.39).
    runner_connection={"max_requests": 10**9, "max_age": 1e9},
)
class Scorer:
    """The networks of one profile, scored in adaptive batches."""

    model = MODEL

    def __init__(self) -> None:
        artefact, wanted = _artefact(), SETTINGS.model
        plan = artefact.spec.plan(wanted.profile)
        self._runtime = load_runtime(artefact.folder, plan, wanted.device, wanted.precision, wanted.threads)

    @bentoml.api(
        batchable=True,
        max_batch_size=SETTINGS.scorer.max_batch_size,
        # The batcher cancels what it expects to be late, so it may wait as long as a request may.
        max_latency_ms=int(1000 * SETTINGS.scorer.batch_wait),
    )
    def score(self, views: np.ndarray) -> np.ndarray:
        """(n, v, 3, s, s) uint8 views of n photos -> (n, plan.width) float32 evidence."""
        return self._runtime.score(views)

    @bentoml.api
    def device(self) -> str:
        """Where the networks run."""
        return self._runtime.device


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


async def _docs(_: Request) -> Response:
    return JSONResponse(openapi.document(SETTINGS.batch.max_images, SETTINGS.explain.model_dump()))


extras = Starlette(routes=[Route("/health", _health), Route("/docs.json", _docs)])


@bentoml.asgi_app(extras, path="/")
@bentoml.service(
    name="product_photo_detector",
    workers=SETTINGS.api.workers,
    traffic={"timeout": SETTINGS.api.timeout + 5},  # a backstop: `_answer` speaks first
)
class ProductPhotoDetector:
    """Tells an AI-generated product photo from a photograph."""

    model = MODEL
    scorer = bentoml.depends(Scorer)

    def __init__(self) -> None:
        logging.getLogger("bentoml").setLevel(SETTINGS.log.level)
        artefact, photo, verdict = _artefact(), SETTINGS.photo, SETTINGS.verdict
        reader, claims = _file_reader(), SETTINGS.provenance
        profile = SETTINGS.model.profile
        calibration = artefact.calibrations[profile]
        self._detector = Detector(
            artefact.spec.plan(profile),
            calibration,
            artefact.info(profile),
            Rules(verdict.thresholds or calibration.thresholds, verdict.medium_confidence, verdict.high_confidence),
            Limits(photo.max_bytes, photo.max_pixels, photo.max_side, photo.min_side, frozenset(photo.formats)),
            self._score,
            SETTINGS.api.decode_threads,
            reader.read if reader else None,
            Policy(claims.signed_generation, claims.signed_edit, claims.unsigned_claim, claims.signed_capture),
        )
        self._started = time.monotonic()
        extras.state.health = self._health

    @bentoml.on_deployment
    @staticmethod
    def verify() -> None:
        """Once, before any process serves: the model is whole and the trust list is one."""
        _artefact()
        _file_reader()

    @bentoml.api(route="/predict", input_spec=PhotoForm, output_spec=Verdict)
    async def predict(self, image: Request) -> Response:
        """Judge one photo."""

        async def work(request_id: str) -> Verdict:
            return await self._detector.predict((await forms.read_photo(image)).data, request_id)

        return await _answer(image, work)

    @bentoml.api(route="/predict/batch", input_spec=BatchForm, output_spec=BatchVerdict)
    async def predict_batch(self, images: Request) -> Response:
        """Judge several photos; each has its own verdict or error, in the order sent."""

        async def work(request_id: str) -> BatchVerdict:
            uploads = await forms.read_photos(images, SETTINGS.batch.max_images)
            return await self._judge_all(uploads, request_id)

        return await _answer(images, work)

    @bentoml.api(route="/explain", input_spec=ExplainForm, output_spec=Explanation)
    async def explain(self, image: Request, **_: object) -> Response:
        """Judge one photo and show where its evidence lies."""

        async def work(request_id: str) -> Explanation:
            drawn = SETTINGS.explain
            default = Style(drawn.alpha, drawn.colormap, drawn.format, drawn.max_side)
            upload, style = await forms.read_explain(image, default)
            return await self._detector.explain(upload.data, style, request_id)

        return await _answer(image, work)

    async def _score(self, views: NDArray[np.uint8]) -> NDArray[np.float32]:
        try:
            evidence: NDArray[np.float32] = await self.scorer.to_async.score(views)
        except (BentoMLException, OSError) as error:  # aiohttp's connection errors are OSErrors
            logger.warning("the scorer did not answer: %s", type(error).__name__)
            raise ModelUnavailable(
                "The model is not answering; try again.", retry_after=SETTINGS.api.retry_after
            ) from None
        return evidence

    async def _judge_all(self, uploads: list[forms.Upload | NotAFile], request_id: str) -> BatchVerdict:
        photos = [upload.data for upload in uploads if isinstance(upload, forms.Upload)]
        judged = iter(await self._detector.predict_many(photos, request_id))
        items = []
        for index, upload in enumerate(uploads):
            outcome = next(judged) if isinstance(upload, forms.Upload) else upload
            name = safe_name(upload.name) if isinstance(upload, forms.Upload) else None
            if isinstance(outcome, Verdict):
                items.append(BatchItem(index=index, name=name, verdict=outcome))
            else:
                items.append(BatchItem(index=index, name=name, error=asgi.problem(outcome, request_id)))
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
        logger.exception("request %s failed", request_id)
        error = InternalError()
    else:
        return Response(answer.model_dump_json(), media_type="application/json")
    return asgi.problem_response(error, request_id)


def _summary(items: list[BatchItem]) -> BatchSummary:
    labels = Counter(item.verdict.label if item.verdict else "errors" for item in items)
    return BatchSummary(
        photos=len(items),
        real=labels["real"],
        ai_generated=labels["ai_generated"],
        uncertain=labels["uncertain"],
        errors=labels["errors"],
    )


def _body_limits() -> dict[str, int]:
    """Bytes a request body may have, by route."""
    one = SETTINGS.photo.max_bytes + asgi.FORM_OVERHEAD
    many = SETTINGS.batch.max_images * SETTINGS.photo.max_bytes + asgi.FORM_OVERHEAD
    return {"/predict": one, "/explain": one, "/predict/batch": many}


_service: Any = ProductPhotoDetector
if SETTINGS.cors.allow_origins:
    # BentoML's own CORS option sits inside the gate, whose refusals a browser then could not read.
    _service.add_asgi_middleware(
        CORSMiddleware,
        allow_origins=SETTINGS.cors.allow_origins,
        allow_methods=("GET", "POST"),
        allow_headers=("X-Request-ID",),
        expose_headers=("X-Request-ID", "Retry-After"),
    )
_service.add_asgi_middleware(
    asgi.Gate,
    body_limits=_body_limits(),
    max_in_flight=SETTINGS.api.max_in_flight,
    max_queued=SETTINGS.api.max_queued,
    retry_after=SETTINGS.api.retry_after,
)
