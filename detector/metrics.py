"""Every Prometheus metric, named once. Counts nothing itself.

In several processes counters are summed; a gauge tells what was said last.
"""

from prometheus_client import Counter, Gauge

REDIS_UP = Gauge(
    "ppd_redis_up", "1 while the configured Redis answers, 0 while it is gone", multiprocess_mode="mostrecent"
)
REDIS_LOSSES = Counter("ppd_redis_losses_total", "Times the configured Redis was lost")
CACHE = Counter("ppd_cache_total", "Verdicts looked up in the cache, by result (hit, miss, joined)", ["result"])
REFUSALS = Counter("ppd_refusals_total", "Requests the gate refused before any work, by problem code", ["code"])
DECISIONS = Counter("ppd_decisions_total", "Decision records, by result (kept, lost)", ["result"])
IN_FLIGHT = Gauge("ppd_in_flight", "Requests worked on or waiting for their turn", multiprocess_mode="livesum")
CALLERS_LEFT = Counter("ppd_callers_left_total", "Requests dropped because their caller had left")
