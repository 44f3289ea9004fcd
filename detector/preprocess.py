"""Pixels -> views: the squares the networks look at, by a plan stored beside the weights.

Knows nothing of files, networks or scores. Training, service and scan all call `make_views`, so that a
network is asked in production exactly what it was taught.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels of the upright photo


class View(BaseModel):
    """One square of a photo.

    `whole` squeezes the full photo into the square. `crop` cuts a square out of the photo after bringing
    its long side down to `long_side` pixels (None: native resolution; a photo is never enlarged for it,
    save one whose short side is below the square's).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["whole", "crop"]
    long_side: int | None = None
    centre: tuple[float, float] = (0.5, 0.5)  # 0..1 over the positions at which the square still fits

    def box(self, width: int, height: int, size: int) -> Box:
        """Where this view lies in a photo of `width` x `height` pixels."""
        if self.kind == "whole":
            return (0.0, 0.0, float(width), float(height))
        shrink = min(1.0, self.long_side / max(width, height)) if self.long_side else 1.0
        side = min(size / shrink, width, height)
        left, top = (width - side) * self.centre[0], (height - side) * self.centre[1]
        if shrink == 1.0:  # whole pixels, so that native crops are copied and not resampled
            left, top = float(round(left)), float(round(top))
        return (left, top, left + side, top + side)


def make_views(photo: Image.Image, views: Sequence[View], size: int) -> NDArray[np.uint8]:
    """Cut `views` out of an upright RGB photo: (v, 3, size, size) uint8."""
    squares = np.empty((len(views), size, size, 3), np.uint8)
    for square, view in zip(squares, views, strict=True):
        box = view.box(photo.width, photo.height, size)
        square[:] = np.asarray(photo.resize((size, size), Image.Resampling.BICUBIC, box=box, reducing_gap=2.0))
    return np.ascontiguousarray(squares.transpose(0, 3, 1, 2))
