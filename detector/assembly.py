"""The service's parts made from its settings: who may come in, what remembers, what judges.

The one place between the settings' tree and parts that take plain values. Raises InvalidSettings or InvalidArtefact
where a part can't be made; ending the process is service.py's.
"""

from pathlib import Path

from detector import __version__, asgi, cache, drift
from detector.artefact import Artefact, load
from detector.auth import Failures, Guard
from detector.calibration import Calibration
from detector.config import Settings
from detector.decisions import Decisions
from detector.errors import InvalidArtefact, InvalidSettings
from detector.image import Limits
from detector.keyring import Keyring
from detector.link import Link
from detector.photos import Photos
from detector.pipeline import Detector, Rules, Score, Watcher
from detector.provenance.policy import Policy
from detector.provenance.reading import FileReader
from detector.ratelimit import Budgets
from detector.rollout import Candidate, Rollout, Shadow, Split
from detector.schema import ModelInfo
from detector.tokens import KeySet, TokenRules, Tokens, read_secret
from detector.watch import Watch
from detector.windows import Windows


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


def photos(settings: Settings) -> Photos | None:
    """The photos beside the records, where they are kept."""
    kept = settings.decisions
    return Photos(kept.photos, 86_400 * kept.retention_days) if kept.photos else None


def watch(settings: Settings, model: Artefact, profile: str, shared: Link | None) -> Watch | None:
    """What compares photos and verdicts with the model's baseline, where that is wanted."""
    wanted, info = settings.drift, model.info(profile)
    if not wanted.enabled:
        return None
    baseline = drift.read_baseline(model.document("baseline.json"), profile, model.calibrations[profile].thresholds)
    saved = wanted.read_baseline()
    if saved:
        baseline = drift.own_baseline(baseline, saved, info.hash)
    scope = cache.scope(info.hash, {"profile": profile, "bucket": wanted.bucket})
    rules = drift.Rules(wanted.photos, wanted.min_photos, wanted.windows, wanted.watch, wanted.drifted, wanted.alpha)
    return Watch(baseline, Windows(scope, wanted.bucket, wanted.span, shared), rules, info, wanted.interval)


def detector(
    settings: Settings, model: Artefact, profile: str, score: Score, shared: Link | None, watcher: Watcher | None = None
) -> Detector:
    """What judges photos by one profile of a model; the watcher is told of every verdict."""
    claims, calibration, reader = settings.provenance, model.calibrations[profile], file_reader(settings)
    return Detector(
        model.spec.plan(profile),
        calibration,
        model.info(profile),
        _rules(settings, calibration),
        _limits(settings),
        score,
        settings.api.decode_threads,
        read=reader.read if reader else None,
        policy=Policy(claims.signed_generation, claims.signed_edit, claims.unsigned_claim, claims.signed_capture),
        cache=verdict_cache(settings, model.info(profile), shared),
        watcher=watcher,
    )


def shadow_detector(settings: Settings, model: Artefact, profile: str, score: Score) -> Detector:
    """What judges photos to be compared: by their pixels alone, remembering nothing, when there is time."""
    calibration = model.calibrations[profile]
    return Detector(
        model.spec.plan(profile),
        calibration,
        model.info(profile),
        _rules(settings, calibration),
        _limits(settings),
        score,
        threads=1,
        yielding=True,
    )


def _rules(settings: Settings, calibration: Calibration) -> Rules:
    words = settings.verdict
    return Rules(words.thresholds or calibration.thresholds, words.medium_confidence, words.high_confidence)


def _limits(settings: Settings) -> Limits:
    photo = settings.photo
    return Limits(photo.max_bytes, photo.max_pixels, photo.max_side, photo.min_side, frozenset(photo.formats))


def rollout(
    settings: Settings, current: Detector, candidate: Artefact, profile: str, score: Score, shared: Link | None
) -> Rollout:
    """The candidate beside the current model, as the settings want it tried."""
    wanted = settings.rollout
    if wanted.mode == "split":
        trial = Candidate(detector(settings, candidate, profile, score, shared), wanted.timeout)
        return Split(current, trial, wanted.split_share)
    trial = Candidate(shadow_detector(settings, candidate, profile, score), wanted.timeout)
    return Shadow(current, trial, wanted.shadow_share, wanted.shadow_backlog)


def verdict_cache(settings: Settings, model: ModelInfo, shared: Link | None) -> cache.VerdictCache | None:
    """Verdicts of this release, this model and these settings; whatever may change a verdict is in the scope.

    The model's tag is not: a promoted candidate finds the verdicts it gave as a candidate.
    """
    kept = settings.cache
    options = {name: getattr(settings, name).model_dump(mode="json") for name in ("verdict", "photo", "provenance")}
    options["model"] = settings.model.model_dump(mode="json", exclude={"tag"}) | {"profile": model.profile}
    anchors = settings.provenance.read_trust_anchors()  # the list itself: its file may change under the same name
    scope = cache.scope(model.hash, {"release": __version__, "anchors": anchors, **options})
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
        "/feedback": asgi.Door("POST", "feedback"),
        "/drift": asgi.Door("GET", "drift"),
    }


def budgets(settings: Settings, shared: Link | None) -> Budgets:
    """How much of each route a caller may ask for."""
    limits = settings.limits
    rates = {
        "predict": limits.predict,
        "batch": limits.batch,
        "explain": limits.explain,
        "decisions": limits.decisions,
        "feedback": limits.feedback,
        "drift": limits.drift,
    }
    set_ones = {route: rate for route, rate in rates.items() if rate}
    return Budgets(set_ones, shared, limits.on_redis_loss, settings.api.retry_after)
