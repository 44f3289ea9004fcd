"""Keeps watch for drift: counts every verdict, compares now and then, and tells the gauges.

Whether something moved is `drift`'s to decide. No fault in here costs an answer; the log has a line when one begins.
"""

import asyncio
import logging
from collections.abc import Mapping

from detector import drift, metrics
from detector.drift import Baseline, Rules
from detector.schema import Drift, DriftFeature, ModelInfo, Verdict
from detector.windows import Windows

logger = logging.getLogger("bentoml.detector")


class Watch:
    """One process's eye on what it answers; used from one event loop."""

    def __init__(self, baseline: Baseline, windows: Windows, rules: Rules, model: ModelInfo, interval: float) -> None:
        """interval: seconds between two looks at the windows."""
        self._baseline, self._windows, self._rules, self._model = baseline, windows, rules, model
        self._interval = interval
        self._round: asyncio.Task[None] | None = None
        self._failing = False

    def see(self, verdict: Verdict, facts: Mapping[str, float]) -> None:
        """Count one answer; the first one starts the rounds."""
        try:
            names = [drift.CACHED] if verdict.cached else self._baseline.names(verdict.probability, facts)
            self._windows.add(names)
            if self._round is None:
                self._round = asyncio.get_running_loop().create_task(self._go_round())
        except Exception:
            self._tell()

    async def report(self) -> Drift:
        """How things stand now."""
        await self._windows.flush()
        history = await self._windows.read(self._rules.enough)
        return await asyncio.to_thread(drift.report, self._baseline, history, self._rules, self._model)

    async def look(self) -> None:
        """Compare, and tell the gauges."""
        try:
            found = await self.report()
            for feature in found.features:
                _show(feature.feature, feature.verdict == "drifted", _scores(feature))
            metrics.DRIFT_PHOTOS.set(found.photos)
            self._failing = False
        except Exception:
            self._tell()

    async def close(self) -> None:
        """Hand over what was counted; no more rounds."""
        if self._round:
            self._round.cancel()
            await asyncio.gather(self._round, return_exceptions=True)
        try:
            await self._windows.flush()
        except Exception:
            self._tell()

    async def _go_round(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self.look()

    def _tell(self) -> None:
        if not self._failing:
            logger.exception("drift can't be watched; verdicts are given without")
        self._failing = True


def _scores(feature: DriftFeature) -> dict[str, float | None]:
    return {
        "psi": feature.psi,
        "jensen_shannon": feature.jensen_shannon,
        "kolmogorov_smirnov": feature.kolmogorov_smirnov,
    }


def _show(feature: str, alarm: bool, scores: Mapping[str, float | None]) -> None:
    metrics.DRIFT_ALARM.labels(feature).set(alarm)
    for test, score in scores.items():
        metrics.DRIFT_SCORE.labels(feature, test).set(score or 0.0)
