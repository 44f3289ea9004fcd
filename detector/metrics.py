"""Every Prometheus metric, named once, and the text that tells them. Counts nothing itself.

In several processes counters are summed; of gauges only those of processes that still run count. A label takes its
values from a fixed set (codes, routes, stages), never from what a caller sends.
"""

import os
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

CONTENT_TYPE = CONTENT_TYPE_LATEST
# Seconds: from a cached verdict (1 ms) to a request's own time limit, closest where a verdict usually lies.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_TWENTIETHS = tuple(round(step / 20, 2) for step in range(1, 21))

REQUESTS = Counter("ppd_requests_total", "Requests answered, by route and HTTP status", ["route", "status"])
REQUEST_SECONDS = Histogram(
    "ppd_request_seconds",
    "Seconds from a request's headers to the end of its answer, by route",
    ["route"],
    buckets=_SECONDS,
)
STAGE_SECONDS = Histogram(
    "ppd_stage_seconds",
    "Seconds of one photo in a stage: decode, provenance, queue, network, explain",
    ["stage"],
    buckets=_SECONDS,
)
ERRORS = Counter("ppd_errors_total", "Requests answered with a problem document, by route and code", ["route", "code"])
REFUSALS = Counter(
    "ppd_refusals_total",
    "Requests refused before any photo was judged: identity, budget, size, room; by code",
    ["code"],
)
PHOTOS_REFUSED = Counter("ppd_photos_refused_total", "Photos refused, those of batches too, by code", ["code"])
CALLERS_LEFT = Counter("ppd_callers_left_total", "Requests dropped because their caller had left")
IN_FLIGHT = Gauge("ppd_in_flight", "Requests worked on or waiting for their turn", multiprocess_mode="livesum")
QUEUED = Gauge("ppd_queued", "Requests waiting for their turn", multiprocess_mode="livesum")

PREDICTIONS = Counter(
    "ppd_predictions_total",
    "Verdicts given, those of batches too, by label, confidence and whether they were remembered (true, false)",
    ["label", "confidence", "cached"],
)
PROBABILITY = Histogram(
    "ppd_probability",
    "Calibrated probability (0 real .. 1 AI) of the photos judged, not remembered",
    buckets=_TWENTIETHS,
)
BATCH_SIZE = Histogram(
    "ppd_batch_size", "Photos in one batch, as the scorer saw it", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256)
)
SCORING = Gauge("ppd_scoring", "Photos handed to the scorer that wait or are scored", multiprocess_mode="livesum")
MODEL_INFO = Gauge(
    "ppd_model_info",
    "1 while a scorer has this model loaded",
    ["name", "version", "hash", "profile", "device"],
    multiprocess_mode="livemax",
)
MODEL_LOAD_SECONDS = Gauge(
    "ppd_model_load_seconds", "Seconds a scorer took to load its model, the slowest", multiprocess_mode="livemax"
)

CACHE = Counter(
    "ppd_cache_total",
    "Verdicts looked up, by backend (memory, redis) and result (hit, miss, joined: another request was at it)",
    ["backend", "result"],
)
REDIS_UP = Gauge(
    "ppd_redis_up",
    "1 while every process reaches the configured Redis, 0 while one does not; without a Redis there is none",
    ["prefix"],
    multiprocess_mode="livemin",
)
REDIS_LOSSES = Counter("ppd_redis_losses_total", "Times a process lost the configured Redis")
DECISIONS = Counter("ppd_decisions_total", "Decision records, by result (kept, lost)", ["result"])
PHOTOS = Counter("ppd_photos_total", "Photos kept beside decision records, by result (kept, lost)", ["result"])
FEEDBACK = Counter(
    "ppd_feedback_total", "What people said of decisions, by label predicted and actual", ["predicted", "actual"]
)
LABELLED = Gauge(
    "ppd_labelled_decisions",
    "Decision records with a person's label, by label predicted and actual; each counts once, by its last label",
    ["predicted", "actual"],
    multiprocess_mode="livemostrecent",
)
LIVE_PRECISION = Gauge(
    "ppd_live_precision",
    "Share of the labelled decisions of a predicted label (real, ai_generated) that people agree with",
    ["predicted"],
    multiprocess_mode="livemostrecent",
)
DRIFT_SCORE = Gauge(
    "ppd_drift_score",
    "How far a feature of the newest photos is from the model's baseline, by test (psi beyond chance, jensen_shannon, "
    "kolmogorov_smirnov); 0 with too few photos",
    ["feature", "test"],
    multiprocess_mode="livemax",
)
DRIFT_ALARM = Gauge(
    "ppd_drift_alarm",
    "1 while a feature has drifted from the model's baseline",
    ["feature"],
    multiprocess_mode="livemax",
)
DRIFT_PHOTOS = Gauge(
    "ppd_drift_photos", "Photos in the newest window that drift is judged by", multiprocess_mode="livemax"
)
ROLLOUT_CANDIDATE_UP = Gauge(
    "ppd_rollout_candidate_up",
    "1 while the candidate model works, 0 while any process finds it failing, by its hash and profile",
    ["hash", "profile"],
    multiprocess_mode="livemin",
)
ROLLOUT_ANSWERS = Counter(
    "ppd_rollout_answers_total",
    "Photos answered in a split, by model (current, candidate) and the label of their pixels",
    ["model", "label"],
)
ROLLOUT_FALLBACKS = Counter(
    "ppd_rollout_fallbacks_total", "Photos of the candidate's callers that the current model answered in its place"
)
ROLLOUT_SHADOW = Counter(
    "ppd_rollout_shadow_total", "Photos meant for comparison, by result (compared, dropped, failed)", ["result"]
)
ROLLOUT_LABELS = Counter(
    "ppd_rollout_labels_total",
    "Photos compared, by the label of their pixels that each model gives",
    ["current", "candidate"],
)
ROLLOUT_SHIFT = Histogram(
    "ppd_rollout_probability_shift",
    "Absolute difference of the two models' probabilities of a photo",
    buckets=(0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0),
)
ROLLOUT_SECONDS = Histogram(
    "ppd_rollout_seconds",
    "Seconds from a photo's bytes to its score, by model (current, candidate)",
    ["model"],
    buckets=(0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0),
)


def exposition() -> bytes:
    """What /metrics answers, for all processes of the service. Reads files: call it from a thread."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if not folder:
        return generate_latest()
    forget_ended(Path(folder))
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def forget_ended(folder: Path) -> None:
    """Drop the gauges of processes that have ended: nobody else does when one is killed."""
    pids = {int(path.stem.rpartition("_")[2]) for path in folder.glob("gauge_live*_*.db")}
    for pid in pids:
        if not _runs(pid):
            mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's, so none of ours
        return False
    return True
