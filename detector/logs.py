"""The log: one line an event, as JSON for machines or as text for people, on standard output.

structlog renders what `logging` collects, BentoML's lines too. What is told, those who tell decide; no line may hold
a key, a token or a photo.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import structlog
from opentelemetry import trace
from structlog.typing import EventDict, Processor, WrappedLogger

Format = Literal["auto", "json", "text"]
_OURS = "bentoml.detector"
_OTHERS = ("bentoml", "uvicorn", "uvicorn.error", "circus")  # their own handlers would print a second line


def configure(level: str, format: Format) -> None:
    """For this process, once, at the edge. `auto` is text in a terminal and JSON elsewhere."""
    text = format == "text" or (format == "auto" and sys.stdout.isatty())
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_formatter(text))
    logging.root.handlers = [handler]
    logging.root.setLevel(logging.WARNING)
    for name in _OTHERS:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
    # At DEBUG too: BentoML has a line for every step of its batcher.
    logging.getLogger("bentoml").setLevel(max(logging.INFO, logging.getLevelName(level)))
    logging.getLogger(_OURS).setLevel(level)


@contextmanager
def bound(request_id: str) -> Iterator[None]:
    """Every line from here on, in every task this one starts, bears the request's id."""
    with structlog.contextvars.bound_contextvars(request_id=request_id):
        yield


def _formatter(text: bool) -> logging.Formatter:
    gathered: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _trace_id,
    ]
    rendered: list[Processor] = (
        [structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())]
        if text
        # Tracebacks as text: structlog's dictionaries would hold local variables, and those hold photos.
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    )
    removed = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    return structlog.stdlib.ProcessorFormatter(foreign_pre_chain=gathered, processors=[removed, *rendered])


def _trace_id(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    span = trace.get_current_span().get_span_context()
    if span.trace_flags.sampled:
        event["trace_id"] = format(span.trace_id, "032x")
    return event
