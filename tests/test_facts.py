"""detector.facts: what is measured is what was put in, and hostile bytes measure nothing."""

import time

import numpy as np
import pytest
from PIL import Image

from detector.facts import EDGES, histogram, jpeg_quality, measure
from tests.conftest import encoded, make_photo


@pytest.mark.parametrize("quality", [15, 40, 60, 75, 83, 90, 95, 100])
def test_the_quality_of_a_jpeg_is_estimated(quality: int) -> None:
    assert jpeg_quality(encoded(make_photo(), quality=quality)) == pytest.approx(quality, abs=1.5)


def test_what_is_no_jpeg_has_no_quality() -> None:
    photo = make_photo()
    for kind in ("PNG", "WEBP"):
        assert jpeg_quality(encoded(photo, kind)) is None
        assert "jpeg_quality" not in measure(photo, encoded(photo, kind))


def test_cut_or_wild_bytes_have_no_quality_and_raise_nothing() -> None:
    whole = encoded(make_photo(), quality=80)
    table = whole.index(b"\xff\xdb")
    assert all(jpeg_quality(whole[:end]) is None for end in range(table + 60))
    rng = np.random.default_rng(0)
    for _ in range(500):
        wild = bytearray(whole[:700])
        for at in rng.integers(2, 700, 8):
            wild[at] = rng.integers(256)
        quality = jpeg_quality(bytes(wild))
        assert quality is None or 1 <= quality <= 100


def test_light_is_that_of_the_photo() -> None:
    grey = Image.new("RGB", (300, 200), (120, 120, 120))
    facts = measure(grey, b"x" * 6000)
    assert (facts["width"], facts["height"], facts["aspect"]) == (300, 200, 1.5)
    assert facts["bytes_per_pixel"] == pytest.approx(0.1)
    assert (facts["brightness"], facts["contrast"], facts["sharpness"]) == (120, 0, 0)
    photo = make_photo(1000, 800)
    pixels = np.asarray(photo.convert("L"), float)
    found = measure(photo, b"")
    assert found["brightness"] == pytest.approx(pixels.mean(), abs=2)
    assert found["contrast"] == pytest.approx(pixels.std(), abs=2)


def test_a_blurred_photo_is_less_sharp() -> None:
    photo = make_photo(800, 600)
    soft = photo.resize((200, 150)).resize((800, 600))
    assert measure(soft, b"")["sharpness"] < measure(photo, b"")["sharpness"] / 3


def test_the_smallest_photo_can_be_measured() -> None:
    assert measure(Image.new("RGB", (1, 1)), b"x")["sharpness"] == 0


def test_facts_take_less_than_five_milliseconds_whatever_the_size() -> None:
    """0.1 ms on an idle core; the bound leaves room for a busy machine."""
    photo, data = make_photo(3000, 2000), encoded(make_photo())
    measure(photo, data)
    started = time.process_time()
    for _ in range(20):
        measure(photo, data)
    assert (time.process_time() - started) / 20 < 0.005


def test_a_histogram_counts_every_value_once_between_fixed_edges() -> None:
    found = histogram("width", [-5, 0, 250, 250, 6000, 99999])
    assert found["edges"] == list(EDGES["width"])
    assert sum(found["counts"]) == 6
    assert (found["counts"][0], found["counts"][1], found["counts"][-1]) == (2, 2, 2)


def test_every_fact_has_edges_that_rise() -> None:
    photo = make_photo()
    assert set(measure(photo, encoded(photo))) | {"probability", "logit"} == set(EDGES)
    assert all((np.diff(edges) > 0).all() for edges in EDGES.values())
