"""What a finished scan found: counts, rates, the worst sources and the most flagged photos, read from the parts alone.

Sources are tallied in a file, not in memory. Knows no page and no terminal.
"""

import heapq
import math
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from detector.errors import Unfetched
from detector.scan import results, run
from detector.scan.results import Format
from detector.scan.storage import Store

BINS = 20
UNFETCHED = frozenset(kind.code for kind in Unfetched.__subclasses__())
_COLUMNS = ("index", "address", "source", "verdict", "probability", "error", "reused", "claim")
_UPSERT = """
INSERT INTO tally VALUES (?, ?, ?, ?) ON CONFLICT (source)
DO UPDATE SET photos = photos + excluded.photos, flagged = flagged + excluded.flagged, errors = errors + excluded.errors
"""
_Z = 1.96


@dataclass(frozen=True)
class SourceTally:
    """One source's photos; `floor` is the least share of flagged ones that its number supports (95 %)."""

    source: str
    photos: int
    flagged: int
    errors: int

    @property
    def floor(self) -> float:
        return wilson_floor(self.flagged, self.photos - self.errors)


@dataclass(frozen=True)
class Flagged:
    """A photo called AI-generated."""

    address: str
    source: str
    probability: float


@dataclass
class Summary:
    labels: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    claims: Counter[str] = field(default_factory=Counter)
    histogram: list[int] = field(default_factory=lambda: [0] * BINS)  # of probabilities, 0..1
    photos: int = 0
    reused: int = 0
    sources: int = 0
    worst: list[SourceTally] = field(default_factory=list)
    flagged: list[Flagged] = field(default_factory=list)

    @property
    def judged(self) -> int:
        return sum(self.labels.values())

    @property
    def counts(self) -> run.Counts:
        return run.Counts(
            photos=self.photos,
            real=self.labels["real"],
            ai_generated=self.labels["ai_generated"],
            uncertain=self.labels["uncertain"],
            errors=sum(self.errors.values()),
            unfetched=sum(count for code, count in self.errors.items() if code in UNFETCHED),
            reused=self.reused,
        )

    def rate(self, label: str) -> float:
        """Share of the judged photos."""
        return self.labels[label] / self.judged if self.judged else 0.0


def summarise(store: Store, parts: Sequence[int], format: Format, worst: int = 20, flagged: int = 50) -> Summary:
    """worst, flagged: how many sources and photos are named."""
    summary, top = Summary(), _Top(flagged)
    with closing(sqlite3.connect("")) as tally:  # a temporary file that SQLite removes
        tally.execute("CREATE TABLE tally (source TEXT PRIMARY KEY, photos INT, flagged INT, errors INT) WITHOUT ROWID")
        for rows in _parts(store, parts, format):
            _count(summary, rows)
            tally.executemany(_UPSERT, _tallies(rows))
            for row in rows:
                top.offer(row)
        summary.sources = tally.execute("SELECT count(*) FROM tally").fetchone()[0]
        every = (SourceTally(*row) for row in tally.execute("SELECT * FROM tally WHERE flagged > 0"))
        summary.worst = heapq.nlargest(worst, every, key=lambda one: (one.floor, one.flagged, one.source))
    summary.flagged = top.named()
    return summary


def unfetched_parts(store: Store, parts: Sequence[int], format: Format) -> list[int]:
    """Parts with photos whose source did not answer: worth another try."""
    found = []
    for part in parts:
        with store.open(run.part_name(part, format)) as file:
            errors = results.decode(file, format, ["error"]).column("error").to_pylist()
        if "source_unavailable" in errors:
            found.append(part)
    return found


def wilson_floor(hits: int, trials: int) -> float:
    """Lower end of Wilson's interval (1927): one hit of one is no worse a source than 90 of 100."""
    if not trials:
        return 0.0
    share, square = hits / trials, _Z**2 / trials
    half = _Z * math.sqrt(share * (1 - share) / trials + square / (4 * trials))
    return max(0.0, (share + square / 2 - half) / (1 + square))


class _Top:
    """The most probable of the flagged, in bounded memory."""

    def __init__(self, size: int) -> None:
        self._size, self._heap = size, list[tuple[float, int, str, str]]()

    def offer(self, row: dict[str, Any]) -> None:
        if row["verdict"] == "ai_generated" and self._size:
            entry = (row["probability"], -row["index"], row["address"], row["source"])
            if len(self._heap) < self._size:
                heapq.heappush(self._heap, entry)
            else:
                heapq.heappushpop(self._heap, entry)

    def named(self) -> list[Flagged]:
        return [Flagged(address, source, p) for p, _, address, source in sorted(self._heap, reverse=True)]


def _parts(store: Store, parts: Sequence[int], format: Format) -> Iterator[list[dict[str, Any]]]:
    for part in parts:
        with store.open(run.part_name(part, format)) as file:
            yield results.decode(file, format, _COLUMNS).to_pylist()


def _count(summary: Summary, rows: list[dict[str, Any]]) -> None:
    summary.photos += len(rows)
    for row in rows:
        summary.reused += bool(row["reused"])
        if row["error"]:
            summary.errors[row["error"]] += 1
            continue
        summary.labels[row["verdict"]] += 1
        summary.claims[row["claim"] or "none"] += 1
        summary.histogram[min(BINS - 1, int(BINS * row["probability"]))] += 1


def _tallies(rows: list[dict[str, Any]]) -> list[tuple[str, int, int, int]]:
    photos, flagged, errors = Counter[str](), Counter[str](), Counter[str]()
    for row in rows:
        source = row["source"] or ""
        photos[source] += 1
        flagged[source] += row["verdict"] == "ai_generated"
        errors[source] += bool(row["error"])
    return [(source, count, flagged[source], errors[source]) for source, count in photos.items()]
