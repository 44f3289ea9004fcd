"""A photo's row in the scorer's batch: views and the request's id go there, evidence and what the batch was come back.

BentoML batches one array along its first axis and carries nothing else, so all of it lies in the array's fields. Does
not know what scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ID_LENGTH = 64  # characters of a request id, as the gate bounds it


@dataclass(frozen=True)
class Scored:
    """What the scorer answers of one request's photos."""

    evidence: NDArray[np.float32]  # (n, plan.width)
    network: float  # seconds the networks took for the batch these were in
    batch: int  # photos in that batch


def ask(views: NDArray[np.uint8], request_id: str) -> NDArray[np.void]:
    """(n, v, 3, s, s) -> n rows of one request."""
    rows = np.empty(len(views), [("views", np.uint8, views.shape[1:]), ("request_id", f"S{ID_LENGTH}")])
    rows["views"], rows["request_id"] = views, request_id.encode()
    return rows


def views_of(rows: NDArray[np.void]) -> NDArray[np.uint8]:
    views: NDArray[np.uint8] = rows["views"]
    return views


def requests_of(rows: NDArray[np.void]) -> Sequence[str]:
    """The ids in a batch, each once, in its order."""
    return list(dict.fromkeys(one.decode() for one in rows["request_id"].tolist()))


def answer(evidence: NDArray[np.float32], network: float) -> NDArray[np.void]:
    """The evidence of a batch, with the seconds the networks took for it."""
    rows = np.empty(
        len(evidence), [("evidence", np.float32, evidence.shape[1:]), ("network", np.float64), ("batch", np.int32)]
    )
    rows["evidence"], rows["network"], rows["batch"] = evidence, network, len(evidence)
    return rows


def read(rows: NDArray[np.void]) -> Scored:
    return Scored(np.ascontiguousarray(rows["evidence"]), float(rows["network"][0]), int(rows["batch"][0]))
