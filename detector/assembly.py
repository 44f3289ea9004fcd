"""The service's parts made from its settings: who may come in, what remembers, what judges.

The one place between the settings' tree and parts that take plain values. Raises InvalidSettings or InvalidArtefact
where a part can't be made; ending the process is service.py's.
"""

from pathlib import Path

from detector import __version__, asgi, cache
from detector.artefact import Artefact, load
from detector.auth import Failures, Guard
from detector.config import Settings
from detector.decisions import Decisions
from detector.errors import InvalidArtefact, InvalidSettings
from detector.image import Limits
from detector.keyring import Keyring
from detector.link import Link
from detector.pipeline import Detector, Rules, Score
from detector.provenance.policy import Policy
from detector.provenance.reading import FileReader
from detector.ratelimit import Budgets
from detector.tokens import KeySet, TokenRules, Tokens, read_secret


def artefact(folder: Path, profile: str) -> Artefact:
    """The verified model folder, which must have the profile."""
    found = load(folder)
    if profile not in found.spec.profiles:
        raise InvalidArtefact(f"The model has no profile {profile}; it has {', '.join(found.spec.profiles)}.")
    return found


def guard(settings: Settings) -> Guard:
    """Who may come in."""
    auth, token = settings.auth, settings.jwt
    keyring = Keyring(auth.keys_file) if auth.keys_file else None
    secret = read_secret(token.secret_file) if token.secret_file else None
    key_set = KeySet(token.key_set, token.key_set_ttl, token.key_set_timeout) if token.key_set else None
    rules = TokenRules(token.issuer or "", token.audience or "", token.leeway, token.scope_claim)
    tokens = Tokens(rules, secret, key_set) if secret or key_set else None
    return Guard(keyring, tokens, Failures(auth.max_failures))


def link(settings: Settings) -> Link | None:
    """The way to Redis, where one is set."""
    redis = settings.redis
    url = redis.url.get_secret_value() if redis.url else None
    try:
        return Link(url, redis.prefix, redis.timeout, redis.retry_interval) if url else None
    except ValueError:
        raise InvalidSettings("Configuration: redis.url: not an address such as redis://host:6379/0.") from None


def file_reader(settings: Settings) -> FileReader | None:
    """What reads a file's claims, where they are read."""
    wanted = settings.provenance
    return FileReader(wanted.read_trust_anchors(), wanted.max_block, wanted.prompts) if wanted.enabled else None


def decisions(settings: Settings) -> Decisions | None:
    """The records of decisions, where they are kept."""
    kept = settings.decisions
    return Decisions(kept.path, 86_400 * kept.retention_days) if kept.path else None


def detector(settings: Settings, model: Artefact, profile: str, score: Score, shared: Link | None) -> Detector:
    """What judges photos by one profile of a model."""
    photo, verdict, claims = settings.photo, settings.verdict, settings.provenance
    calibration, reader = model.calibrations[profile], file_reader(settings)
    return Detector(
        model.spec.plan(profile),
        calibration,
        model.info(profile),
        Rules(verdict.thresholds or calibration.thresholds, verdict.medium_confidence, verdict.high_confidence),
        Limits(photo.max_bytes, photo.max_pixels, photo.max_side, photo.min_side, frozenset(photo.formats)),
        score,
        settings.api.decode_threads,
        read=reader.read if reader else None,
        policy=Policy(claims.signed_generation, claims.signed_edit, claims.unsigned_claim, claims.signed_capture),
        cache=verdict_cache(settings, model.info(profile).hash, shared),
    )


def verdict_cache(settings: Settings, model_hash: str, shared: Link | None) -> cache.VerdictCache | None:
    """Verdicts of this release, this model and these settings; whatever may change a verdict is in the scope."""
    kept = settings.cache
    options = {
        name: getattr(settings, name).model_dump(mode="json") for name in ("model", "verdict", "photo", "provenance")
    }
    anchors = settings.provenance.read_trust_anchors()  # the list itself: its file may change under the same name
    scope = cache.scope(model_hash, {"release": __version__, "anchors": anchors, **options})
    return cache.VerdictCache(scope, kept.entries, kept.ttl, shared) if kept.entries else None


def doors(settings: Settings) -> dict[str, asgi.Door]:
    """What each route asks of a caller, and the bytes its body may have."""
    one = settings.photo.max_bytes + asgi.FORM_OVERHEAD
    many = settings.batch.max_images * settings.photo.max_bytes + asgi.FORM_OVERHEAD
    return {
        "/predict": asgi.Door("POST", "predict", one),
        "/predict/batch": asgi.Door("POST", "batch", many),
        "/explain": asgi.Door("POST", "explain", one),
        "/decisions/{id}": asgi.Door("GET", "decisions", anyone=True),
        "/decisions/{id}/feedback": asgi.Door("POST", "decisions", anyone=True),
    }


def budgets(settings: Settings, shared: Link | None) -> Budgets:
    """How much of each route a caller may ask for."""
    limits = settings.limits
    rates = {
        "predict": limits.predict,
        "batch": limits.batch,
        "explain": limits.explain,
        "decisions": limits.decisions,
    }
    set_ones = {route: rate for route, rate in rates.items() if rate}
    return Budgets(set_ones, shared, limits.on_redis_loss, settings.api.retry_after)
