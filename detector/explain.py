"""Evidence maps -> one heat map over the photo, its overlay, and the region that speaks loudest.

The maps come with every score (see `ensemble`); this only places them on the photo and draws.
"""

from dataclasses import dataclass
from functools import cache
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detector.ensemble import Plan
from detector.schema import Colormap, OverlayFormat, Region

CELLS = 96  # long side of the canvas on which the views' maps meet; 14 x 14 maps hold no more detail
_ROWS, _COLUMNS = ("upper", "middle", "lower"), ("left", "centre", "right")


@dataclass(frozen=True)
class Drawing:
    """An encoded picture."""

    data: bytes
    media_type: str
    width: int
    height: int


def evidence_map(plan: Plan, evidence: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """Fused logit by place, over the whole photo: (rows, columns) float32 with the photo's aspect ratio.

    Each view's map is laid where the view lies and overlapping views are averaged; where no view of an expert
    looked, that expert's own photo logit stands.
    """
    scale = CELLS / max(width, height)
    columns, rows = max(1, round(width * scale)), max(1, round(height * scale))
    total = np.full((rows, columns), plan.fusion.bias, np.float32)
    for expert in plan.experts:
        maps = plan.split(evidence)[expert.name]
        boxes = [plan.views[index].box(width, height, plan.size) for index in expert.views]
        total += plan.fusion.weights[expert.name] * _lay(maps, boxes, scale, rows, columns)
    return total


def _lay(
    maps: NDArray[np.float32], boxes: list[tuple[float, float, float, float]], scale: float, rows: int, columns: int
) -> NDArray[np.float32]:
    """Average the maps of one expert's views on a (rows, columns) canvas."""
    total, seen = np.zeros((rows, columns), np.float32), np.zeros((rows, columns), np.float32)
    for view, box in zip(maps, boxes, strict=True):
        left, top, right, bottom = (round(edge * scale) for edge in box)
        left, top = min(left, columns - 1), min(top, rows - 1)
        right, bottom = min(max(right, left + 1), columns), min(max(bottom, top + 1), rows)
        shape = (right - left, bottom - top)
        total[top:bottom, left:right] += np.asarray(
            Image.fromarray(view).resize(shape, Image.Resampling.BILINEAR), np.float32
        )
        seen[top:bottom, left:right] += 1
    return np.where(seen > 0, total / np.maximum(seen, 1), np.float32(maps.mean()))


def shrink(photo: Image.Image, max_side: int) -> Image.Image:
    """The photo with its long side at most `max_side` pixels; a smaller one as it is."""
    scale = min(1.0, max_side / max(photo.size))
    size = max(1, round(photo.width * scale)), max(1, round(photo.height * scale))
    return photo.resize(size, Image.Resampling.BOX)


def draw_heatmap(heat: NDArray[np.floating], size: tuple[int, int]) -> Image.Image:
    """Heat by place, 0..1, as a grey picture of `size` (width, height)."""
    return Image.fromarray(np.round(heat * 255).astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)


def draw_overlay(photo: Image.Image, heatmap: Image.Image, colormap: Colormap, alpha: float) -> Image.Image:
    """A photo of the heat map's size under the coloured heat map at opacity `alpha`."""
    return Image.blend(photo, Image.fromarray(_palette(colormap)[np.asarray(heatmap)]), alpha)


def encode(picture: Image.Image, format: OverlayFormat) -> Drawing:
    buffer = BytesIO()
    if format == "png":
        picture.save(buffer, "PNG", compress_level=1)
    else:
        picture.save(buffer, "JPEG", quality=85)
    return Drawing(buffer.getvalue(), f"image/{format}", picture.width, picture.height)


def find_region(evidence: NDArray[np.float32], towards_ai: bool, width: int, height: int) -> Region:
    """The ninth of the photo that holds most of the evidence in one direction, and how much of it."""
    speaking = np.maximum(evidence if towards_ai else -evidence, 0)
    ninths = [np.array_split(band, 3, axis=1) for band in np.array_split(speaking, 3, axis=0)]
    sums = np.array([[part.sum(dtype=np.float64) for part in band] for band in ninths])
    row, column = divmod(int(sums.argmax()), 3)
    name = "centre" if (row, column) == (1, 1) else f"{_ROWS[row]} {_COLUMNS[column]}"
    box = (width * column // 3, height * row // 3, width * (column + 1) // 3, height * (row + 1) // 3)
    return Region(name=name, box=box, share=float(sums[row, column] / max(sums.sum(), 1e-9)))


@cache
def _palette(name: Colormap) -> NDArray[np.uint8]:
    """256 colours, (256, 3) uint8."""
    from cmap import Colormap as Palette

    colours: NDArray[np.uint8] = np.round(Palette(name).lut(256)[:, :3] * 255).astype(np.uint8)
    return colours
