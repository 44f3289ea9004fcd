"""What leaves the page as a file is whole, and harmless in a spreadsheet."""

import csv
import io
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image

from detector.client import Client, MockService
from detector.client.wire import as_problem
from detector.errors import TooSmall
from gradio_app.records import COLUMNS, Record, record, shrunken, to_csv, to_json
from tests.conftest import encoded, make_photo

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def judged(name: str) -> Record:
    return record(name, Client(transport=MockService(0.97)).predict(b"photo", request_id="r1"), None, NOON)


def refused(name: str) -> Record:
    return record(name, as_problem(TooSmall("Tiny."), "r2"), None, NOON)


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_holds_verdicts_and_errors() -> None:
    first, second = read(to_csv([judged("a, b.jpg"), refused("c.jpg")]))
    assert tuple(first) == COLUMNS
    assert (first["photo"], first["label"], first["probability"]) == ("a, b.jpg", "ai_generated", "0.97")
    assert (first["threshold_real"], first["request_id"], first["error"]) == ("0.35", "r1", "")
    assert (second["photo"], second["label"], second["error"]) == ("c.jpg", "", "too_small: Tiny.")
    assert first["time"] == "2026-11-24T12:00:00+00:00"


@pytest.mark.parametrize("name", ["=1+1.jpg", "+1.jpg", "-1.jpg", "@SUM(A1).jpg", "\t=1.jpg", "\r=1.jpg", "  =1.jpg"])
def test_a_name_that_is_a_formula_is_text_in_a_spreadsheet(name: str) -> None:
    (row,) = read(to_csv([judged(name)]))
    assert row["photo"] == f"'{name}"


def test_an_ordinary_name_is_left_alone() -> None:
    assert read(to_csv([judged("mug - 2 = red.jpg")]))[0]["photo"] == "mug - 2 = red.jpg"


def test_json_holds_the_service_s_own_documents() -> None:
    first, second = json.loads(to_json([judged("a.jpg"), refused("c.jpg")]))
    assert first["verdict"]["probability"] == 0.97 and first["error"] is None
    assert second["error"]["code"] == "too_small" and second["verdict"] is None


def test_a_thumbnail_is_upright_and_small(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(make_photo(800, 400), exif=exif))
    small = shrunken(path, 96)
    assert small and (small.size, small.mode) == ((48, 96), "RGB")
    assert judged("a").thumbnail == ""
    verdict = Client(transport=MockService()).predict(b"photo")
    assert record("a.jpg", verdict, path).thumbnail.startswith("data:image/jpeg;base64,")


def test_what_pillow_cannot_read_has_no_thumbnail(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"broken")
    assert shrunken(path, 96) is None
