"""The OpenAPI document of the HTTP API, with examples and every error code by route.

Describes only; schemas come from `schema`, codes from `errors`, so neither can drift from what is served.
"""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from detector import __version__, errors
from detector.schema import BatchVerdict, Decision, Drift, Explanation, Feedback, Health, Problem, Verdict

_REF = "#/components/schemas/{model}"
_PHOTO = {"type": "string", "format": "binary", "description": "the photo's file: JPEG, PNG or WebP"}
_IDENTITY = (errors.Unauthenticated, errors.Forbidden, errors.RateLimited, errors.SlowUpload)
_REQUEST = (
    *_IDENTITY,
    errors.MissingField,
    errors.NotAFile,
    errors.MalformedRequest,
    errors.InvalidOption,
    errors.BodyTooLarge,
    errors.UnsupportedBody,
)
_PHOTO_ERRORS = (
    errors.EmptyImage,
    errors.TruncatedImage,
    errors.CorruptImage,
    errors.UnsupportedType,
    errors.TooManyBytes,
    errors.TooManyPixels,
    errors.TooSmall,
)
_SERVICE = (
    errors.Overloaded,
    errors.ModelUnavailable,
    errors.IdentityUnavailable,
    errors.BudgetUnavailable,
    errors.TimedOut,
    errors.InternalError,
)
_DECISION = (errors.DecisionNotFound, errors.DecisionsOff, errors.DecisionsUnavailable, errors.BodyTooLarge)
_FEEDBACK = (errors.MissingField, errors.MalformedRequest, errors.InvalidOption, errors.UnsupportedBody)
_VERDICT_EXAMPLE = {
    "label": "ai_generated",
    "probability": 0.982,
    "confidence": "high",
    "thresholds": {"real": 0.35, "ai_generated": 0.9},
    "model": {"name": "product-photo-detector", "version": "1", "hash": "5f1c…", "profile": "accurate"},
    "image": {
        "width": 1000,
        "height": 750,
        "format": "JPEG",
        "bytes": 104211,
        "sha256": "9b2e…",
        "animated": False,
    },
    "timing": {"decode": 9.4, "score": 41.2, "explain": None, "provenance": 0.4, "total": 50.6},
    "evidence": {"claim": "none", "standing": "none", "findings": [], "clashes": [], "labels": []},
    "decided_by": "pixels",
    "reason": None,
    "request_id": "0d6a7c52f4f14f0fae8b6f4f7c1b7f0e",
    "decision_id": "b6a3d1f0c2a94b7e8d5f60718293a4b5",
    "cached": False,
}
_ASKS: Any = [{"ApiKey": []}, {"Bearer": []}, {}]  # {}: a service without keys asks nobody
_SCHEMES = {
    "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "Bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
}


def document(max_images: int, default_style: dict[str, Any]) -> dict[str, Any]:
    """The whole document. default_style: what /explain draws where the caller names no option."""
    explain_fields = {
        "image": _PHOTO,
        "alpha": {"type": "number", "minimum": 0, "maximum": 1, "default": default_style["alpha"]},
        "colormap": {**_enum("colormap", Explanation), "default": default_style["colormap"]},
        "format": {"type": "string", "enum": ["png", "jpeg"], "default": default_style["format"]},
    }
    images = {"type": "array", "items": _PHOTO, "minItems": 1, "maxItems": max_images}
    _, definitions = models_json_schema(
        [
            (Feedback, "validation"),
            *(
                (model, "serialization")
                for model in (Verdict, BatchVerdict, Explanation, Decision, Drift, Health, Problem)
            ),
        ],
        ref_template=_REF,
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Product photo detector",
            "version": __version__,
            "description": "Tells an AI-generated product photo from a photograph. A verdict is a calibrated "
            "estimate, not proof: read docs/model-card.md before acting on one.",
        },
        "paths": {
            "/predict": _post("Judge one photo", {"image": _PHOTO}, Verdict, _REQUEST + _PHOTO_ERRORS + _SERVICE),
            "/predict/batch": _post(
                f"Judge up to {max_images} photos; each has its own verdict or error, in the order sent",
                {"images": images},
                BatchVerdict,
                (*_REQUEST, errors.TooManyImages, *_SERVICE),
            ),
            "/explain": _post(
                "Judge one photo and show where its evidence lies",
                explain_fields,
                Explanation,
                _REQUEST + _PHOTO_ERRORS + _SERVICE,
            ),
            "/decisions/{id}": _decision(),
            "/feedback": _feedback(),
            "/drift": _drift(),
            "/health": {"get": {"summary": "Model, device and uptime", "responses": {"200": _answer(Health)}}},
            "/livez": _probe("200 while the process lives"),
            "/readyz": _probe("200 once the model is loaded and its scorer answers, else 503"),
            "/metrics": _probe("Prometheus metrics"),
        },
        "components": {"schemas": definitions["$defs"], "securitySchemes": _SCHEMES},
    }


def _post(
    summary: str, fields: dict[str, Any], answer: type[BaseModel], refusals: tuple[type[errors.DetectorError], ...]
) -> dict[str, Any]:
    form = {"type": "object", "properties": fields, "required": [next(iter(fields))], "additionalProperties": False}
    return {
        "post": {
            "summary": summary,
            "security": _ASKS,
            "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}},
            "responses": {"200": _answer(answer)} | _problems(refusals),
        }
    }


def _decision() -> dict[str, Any]:
    operation = {
        "summary": "What was decided, for an admin or whose request it was",
        "security": _ASKS,
        "parameters": [
            {
                "name": "id",
                "in": "path",
                "required": True,
                "description": "`decision_id` of a verdict",
                "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
            }
        ],
        "responses": {"200": _answer(Decision)} | _problems(_IDENTITY + _DECISION + _SERVICE),
    }
    return {"get": operation}


def _feedback() -> dict[str, Any]:
    form = {"schema": {"$ref": _REF.format(model="Feedback")}}
    operation = {
        "summary": "Say what the photo of a decision is; replaces earlier feedback",
        "security": _ASKS,
        "requestBody": {"required": True, "content": {"application/json": form}},
        "responses": {"200": _answer(Decision)} | _problems(_IDENTITY + _DECISION + _SERVICE + _FEEDBACK),
    }
    return {"post": operation}


def _drift() -> dict[str, Any]:
    refusals: tuple[type[errors.DetectorError], ...] = (*_IDENTITY, errors.DriftOff, errors.BodyTooLarge, *_SERVICE)
    operation = {
        "summary": "Whether photos and verdicts are like those the model was judged on",
        "security": _ASKS,
        "responses": {"200": _answer(Drift)} | _problems(refusals),
    }
    return {"get": operation}


def _problems(refusals: tuple[type[errors.DetectorError], ...]) -> dict[str, Any]:
    by_status: dict[str, list[type[errors.DetectorError]]] = {}
    for refusal in refusals:
        by_status.setdefault(str(refusal.status), []).append(refusal)
    return {status: _problem(kinds) for status, kinds in by_status.items()}


def _answer(model: type[BaseModel]) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": {"$ref": _REF.format(model=model.__name__)}}
    if model is Verdict:
        content["example"] = _VERDICT_EXAMPLE
    return {"description": "The answer", "content": {"application/json": content}}


def _problem(kinds: list[type[errors.DetectorError]]) -> dict[str, Any]:
    examples = {kind.code: {"summary": kind.title, "value": {"code": kind.code, "title": kind.title}} for kind in kinds}
    content = {"schema": {"$ref": _REF.format(model="Problem")}, "examples": examples}
    return {
        "description": ", ".join(f"`{kind.code}`" for kind in kinds),
        "content": {"application/problem+json": content},
    }


def _probe(summary: str) -> dict[str, Any]:
    return {"get": {"summary": summary, "responses": {"200": {"description": "OK"}}}}


def _enum(field: str, model: type[BaseModel]) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "string", "enum": model.model_json_schema()["properties"][field]["enum"]}
    return found
