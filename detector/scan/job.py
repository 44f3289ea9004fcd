"""All that a machine needs to judge parts of a run, in one value that can be sent to it; and the engine made from it.

The one place where a scan's parts are made from settings.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detector import __version__, assembly
from detector.artefact import Artefact
from detector.config import Settings
from detector.errors import ModelUnavailable
from detector.pipeline import Detector
from detector.scan.engine import Engine
from detector.scan.fetch import Fetcher
from detector.scan.register import Memory, Register
from detector.scan.run import Wanted
from detector.scan.storage import protocol_of
from detector.scan.web import Web
from detector.stream import load_stream

DEFAULT_MODEL = Path(__file__).parent.parent / "default_model"
_SECTIONS = ("photo", "verdict", "provenance")  # of the settings, that bear on a verdict


@dataclass(frozen=True)
class Job:
    """A run as its machines see it. Plain values and the settings, so that it can travel."""

    store: str
    wanted: Wanted
    settings: Settings
    model: Path
    workers: int
    readers: int
    threads: int = 0  # of the networks; 0 = every core
    allow_http: bool = False
    allow_private: bool = False


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def settings_of(settings: Settings) -> dict[str, object]:
    """What a run must not change half way; the trust list itself counts, not its file's name."""
    chosen = {name: getattr(settings, name).model_dump(mode="json") for name in _SECTIONS}
    chosen["provenance"]["trust_anchors"] = settings.provenance.read_trust_anchors()
    return {**chosen, "profile": settings.model.profile, "precision": settings.model.precision}


def open_engine(job: Job, memory: Memory) -> Engine:
    """Raises InvalidArtefact or InvalidSettings where that can't be."""
    model, wanted = assembly.artefact(job.model, job.settings.model.profile), job.settings.model
    stream = load_stream(
        model.folder, model.spec.plan(wanted.profile), wanted.device, wanted.precision, job.threads or wanted.threads
    )
    return Engine(
        open_detector(job.settings, model),
        stream,
        open_fetcher(job).fetch,
        Register(memory),
        job.workers,
        job.readers,
        job.wanted.near_duplicates,
    )


def open_detector(settings: Settings, model: Artefact) -> Detector:
    """The service's own, whose halves the engine calls; it scores by itself."""
    return assembly.detector(settings, model, settings.model.profile, _elsewhere, None)


def open_fetcher(job: Job) -> Fetcher:
    web = Web(job.settings.photo.max_bytes, private=job.allow_private) if job.allow_http else None
    return Fetcher(job.settings.photo.max_bytes, web, frozenset({protocol_of(job.wanted.source)}))


def release() -> str:
    return __version__


async def _elsewhere(_: NDArray[np.uint8]) -> NDArray[np.float32]:
    raise ModelUnavailable("A scan's engine scores by itself.")
