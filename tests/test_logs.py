"""A line is one JSON object, or text for a person, with the request's id and nothing that is secret."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from detector import logs

ROOT = Path(__file__).parent.parent
logger = logging.getLogger("bentoml.detector.test")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Logging is the process', so it is put back."""
    loggers = [
        logging.root,
        *map(logging.getLogger, ("bentoml", "bentoml.detector", "uvicorn", "uvicorn.error", "circus")),
    ]
    before = [(one, one.handlers, one.level, one.propagate) for one in loggers]
    yield
    for one, handlers, level, propagate in before:
        one.handlers, one.propagate = handlers, propagate
        one.setLevel(level)


def line(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    (text,) = capsys.readouterr().out.splitlines()
    told: dict[str, object] = json.loads(text)
    return told


def test_a_line_is_json_with_the_request_s_id(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO", "json")
    with logs.bound("r-1"):
        logger.info("judged %s", "it", extra={"route": "/predict"})
    told = line(capsys)
    assert told.pop("timestamp")
    expected = {"event": "judged it", "request_id": "r-1", "level": "info", "logger": logger.name, "route": "/predict"}
    assert told == expected


def test_beyond_the_request_no_line_has_its_id(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO", "json")
    with logs.bound("r-1"):
        pass
    logger.info("later")
    assert "request_id" not in line(capsys)


def test_a_traceback_shows_no_values(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO", "json")
    try:
        photo = b"the bytes of a photo" * 2
        photo.index(b"?")
    except ValueError:
        logger.exception("it failed")
    told = line(capsys)
    assert "ValueError" in str(told["exception"])
    assert "the bytes of a photothe" not in str(told)


def test_text_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO", "text")
    with logs.bound("r-1"):
        logger.info("judged", extra={"route": "/predict"})
    text = capsys.readouterr().out
    assert "judged" in text
    assert "request_id=r-1" in text
    assert not text.startswith("{")


def test_the_level_is_ours_and_bentoml_s_own_steps_stay_out(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("DEBUG", "json")
    logging.getLogger("bentoml._internal").debug("a step of the batcher")
    logger.debug("ours")
    assert line(capsys)["event"] == "ours"


def test_a_foreign_library_s_chatter_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("DEBUG", "json")
    logging.getLogger("httpx").info("chatter")
    logging.getLogger("httpx").warning("a warning")
    assert line(capsys)["event"] == "a warning"


def test_where_nobody_watches_auto_is_json() -> None:
    code = "import logging; from detector import logs; logs.configure('INFO', 'auto'); logging.warning('told')"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(result.stdout)["event"] == "told"
