"""What a summary counts, whom it calls worst, and that its page takes no stranger's text for markup."""

import re
from pathlib import Path

import pytest

from detector.scan import run
from detector.scan.progress import Meter, spell
from detector.scan.storage import Store
from detector.scan.summary import summarise, wilson_floor
from tests.conftest import encoded, make_photo
from tests.scan.conftest import Scan

ALL_FLAGGED = "{real: 0.0, ai_generated: 0.0}"


@pytest.mark.parametrize(
    ("hits", "trials", "floor"), [(0, 0, 0.0), (0, 10, 0.0), (1, 1, 0.207), (90, 100, 0.826), (10, 10, 0.722)]
)
def test_a_source_of_few_photos_is_not_the_worst(hits: int, trials: int, floor: float) -> None:
    """The interval's lower end as tabulated for these counts."""
    assert wilson_floor(hits, trials) == pytest.approx(floor, abs=0.001)


def test_counts_and_worst_sources(catalogue: Path, scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPD_VERDICT__THRESHOLDS", ALL_FLAGGED)
    (catalogue / "shop2").mkdir()
    (catalogue / "shop2/one.jpg").write_bytes(encoded(make_photo(seed=99)))
    scan(catalogue, "--part-size", "4")
    seen = summarise(Store(str(tmp_path / "out")), range(4), "parquet", worst=2, flagged=3)
    assert (seen.photos, seen.judged, seen.labels["ai_generated"], seen.reused) == (14, 11, 11, 1)
    assert seen.errors == {"empty_image": 1, "truncated_image": 1, "unsupported_type": 1}
    assert (seen.sources, {one.source for one in seen.worst}) == (3, {"shop0", "shop1"})
    assert [(one.photos, one.flagged, one.errors) for one in seen.worst] == [(7, 5, 2), (6, 5, 1)]
    probabilities = [photo.probability for photo in seen.flagged]
    assert len(probabilities) == 3 and probabilities == sorted(probabilities, reverse=True)
    assert sum(seen.histogram) == 11
    assert seen.counts == run.Counts(photos=14, ai_generated=11, errors=3, reused=1)


def test_the_page_loads_nothing_and_escapes_what_files_say(
    scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PPD_VERDICT__THRESHOLDS", ALL_FLAGGED)
    folder = tmp_path / "photos" / "<script>alert(1)<"
    folder.mkdir(parents=True)
    (folder / '"><img src=x onerror=a>\u202e.jpg').write_bytes(encoded(make_photo()))
    page = tmp_path / "report.html"
    assert scan(tmp_path / "photos", "--report", str(page), "--thumbnails", "5") == 0
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text and "<img src=x" not in text and "\u202e" not in text
    assert "&lt;script&gt;alert(1)&lt;" in text and "data:image/jpeg;base64," in text
    assert not re.findall(r"(?:src|href)=\"(?!data:)", text)


def test_a_photo_gone_since_is_named_without_its_picture(
    scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PPD_VERDICT__THRESHOLDS", ALL_FLAGGED)
    (tmp_path / "photos").mkdir()
    photo = tmp_path / "photos/gone.jpg"
    photo.write_bytes(encoded(make_photo()))
    scan(tmp_path / "photos")
    photo.unlink()
    page = tmp_path / "report.html"
    assert scan(tmp_path / "photos", "--report", str(page), "--thumbnails", "5") == 0
    assert "no longer there" in page.read_text(encoding="utf-8")


def test_a_meter_says_rate_and_time_left() -> None:
    now = [0.0]
    meter = Meter(10_000, 1000, lambda: now[0])
    for _ in range(100):
        now[0] += 1.0
        meter.advance(5)
    assert str(meter) == "1,500 of 10,000 photos (15 %), 5.0/s, 28 min left"


@pytest.mark.parametrize(
    ("seconds", "words"), [(12.4, "12 s"), (600, "10 min"), (7500, "2 h 5 min"), (400_000, "5 days")]
)
def test_times_are_said_for_people(seconds: float, words: str) -> None:
    assert spell(seconds) == words
