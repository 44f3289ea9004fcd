"""Every Prometheus metric, named once. Counts nothing itself.

In several processes counters are summed; a gauge tells what was said last.
"""

from prometheus_client import Counter, Gauge, Histogram

REDIS_UP = Gauge(
    "ppd_redis_up", "1 while the configured Redis answers, 0 while it is gone", multiprocess_mode="mostrecent"
)
REDIS_LOSSES = Counter("ppd_redis_losses_total", "Times the configured Redis was lost")
CACHE = Counter("ppd_cache_total", "Verdicts looked up in the cache, by result (hit, miss, joined)", ["result"])
REFUSALS = Counter("ppd_refusals_total", "Requests the gate refused before any work, by problem code", ["code"])
DECISIONS = Counter("ppd_decisions_total", "Decision records, by result (kept, lost)", ["result"])
PHOTOS = Counter("ppd_photos_total", "Photos kept beside decision records, by result (kept, lost)", ["result"])
FEEDBACK = Counter(
    "ppd_feedback_total", "What people said of decisions, by label predicted and actual", ["predicted", "actual"]
)
LABELLED = Gauge(
    "ppd_labelled_decisions",
    "Decision records with a person's label, by label predicted and actual; each counts once, by its last label",
    ["predicted", "actual"],
    multiprocess_mode="mostrecent",
)
LIVE_PRECISION = Gauge(
    "ppd_live_precision",
    "Share of the labelled decisions of a predicted label (real, ai_generated) that people agree with",
    ["predicted"],
    multiprocess_mode="mostrecent",
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
IN_FLIGHT = Gauge("ppd_in_flight", "Requests worked on or waiting for their turn", multiprocess_mode="livesum")
CALLERS_LEFT = Counter("ppd_callers_left_total", "Requests dropped because their caller had left")
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
