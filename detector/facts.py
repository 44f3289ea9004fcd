"""A photo's plain facts, for watching whether today's photos are like those the model was judged on.

Cheap (0.1 ms for 1000 x 1000 pixels): sizes come from the decoder, light from a scattering of pixels, sharpness from
the middle. Knows nothing of windows or baselines; `drift` compares, training writes what to compare with.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SCATTERED, MIDDLE = 64, 128  # pixels a side
TWIN_BITS = 4  # of a perceptual hash's 63 in which the same photo, recompressed or resized, may differ
_COSINES = np.cos(np.pi / 32 * np.outer(np.arange(8), np.arange(32) + 0.5))  # the first 8 of 32
# IJG's table of brightness at quality 50 (ITU-T T.81, table K.1), in zigzag order as a file holds it
_STANDARD = bytes.fromhex(
    "100b0c0e0c0a100e0d0e1211101318281a181616183123251d283a333d3c3933"
    "383740485c4e404457453738506d51575f626768673e4d71797064785c656763"
)

# Fixed, so that a histogram of last year's can be laid beside today's; what lies outside counts in the outermost bins.
EDGES: Mapping[str, tuple[float, ...]] = {
    "width": (0, 200, 300, 400, 500, 600, 800, 1000, 1200, 1600, 2000, 3000, 4000, 6000),
    "height": (0, 200, 300, 400, 500, 600, 800, 1000, 1200, 1600, 2000, 3000, 4000, 6000),
    "aspect": (0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.98, 1.02, 1.1, 1.25, 1.4, 1.6, 2, 4),
    "bytes_per_pixel": (0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1, 1.5, 3),
    "brightness": tuple(float(edge) for edge in range(0, 257, 16)),
    "contrast": tuple(float(edge) for edge in range(0, 129, 8)),
    "sharpness": (0, 1, 2, 3, 4, 6, 8, 10, 13, 16, 20, 25, 32, 64),
    "jpeg_quality": tuple(float(edge) for edge in range(0, 101, 5)),
    "probability": tuple(edge / 20 for edge in range(21)),
    "logit": tuple(
        float(edge) for edge in range(-12, 13)
    ),  # fused, not calibrated: tells what a probability near 1 hides
}


def measure(pixels: Image.Image, data: bytes) -> dict[str, float]:
    """The facts of an upright RGB photo and of the file it came from; `jpeg_quality` only where it is a JPEG.

    brightness and contrast: mean and deviation of grey, 0..255. sharpness: mean absolute Laplacian of grey in the
    middle, at native scale.
    """
    width, height = pixels.size
    grey = np.asarray(pixels.resize((SCATTERED, SCATTERED), Image.Resampling.NEAREST).convert("L"), np.float32)
    facts = {
        "width": float(width),
        "height": float(height),
        "aspect": width / height,
        "bytes_per_pixel": len(data) / (width * height),
        "brightness": float(grey.mean()),
        "contrast": float(grey.std()),
        "sharpness": _sharpness(pixels),
    }
    quality = jpeg_quality(data)
    return facts if quality is None else facts | {"jpeg_quality": quality}


def jpeg_quality(data: bytes) -> float | None:
    """The quality setting, 1..100, that IJG's encoder would have had; None for what is no JPEG or has no table.

    Estimated from the table of brightness; other encoders' tables give the nearest setting on average.
    """
    table = _brightness_table(data)
    if table is None:
        return None
    scale = float(np.mean(100 * table / np.frombuffer(_STANDARD, np.uint8)))
    return float(np.clip((200 - scale) / 2 if scale <= 100 else 5000 / scale, 1, 100))


def perceptual_hash(pixels: Image.Image) -> int:
    """63 signs of the photo's lowest cosine frequencies against their median (Zauner 2010)."""
    grey = np.asarray(pixels.convert("L").resize((32, 32), Image.Resampling.BOX), np.float64)
    low = (_COSINES @ grey @ _COSINES.T).ravel()[1:]
    return int("".join("1" if bit else "0" for bit in low > np.median(low)), 2)


def histogram(name: str, values: Sequence[float]) -> dict[str, list[float]]:
    """Counts of a fact's values between its EDGES, ready for JSON."""
    edges = np.array(EDGES[name])
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def _sharpness(pixels: Image.Image) -> float:
    width, height = pixels.size
    left, top = max(0, width - MIDDLE) // 2, max(0, height - MIDDLE) // 2
    middle = pixels.crop((left, top, min(width, left + MIDDLE), min(height, top + MIDDLE))).convert("L")
    grey = np.asarray(middle, np.float32)
    if min(grey.shape) < 3:
        return 0.0
    inner = grey[1:-1, 1:-1]
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float(np.abs(4 * inner - around).mean())


def _brightness_table(data: bytes) -> NDArray[np.float64] | None:
    """Quantisation table 0 of a JPEG, (64,) in zigzag order; bounds are checked, for the bytes are a stranger's."""
    if data[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        length = int.from_bytes(data[at + 2 : at + 4])
        if data[at + 1] == 0xDB:
            found = _table_zero(data[at + 4 : at + 2 + length])
            if found is not None:
                return found
        at += 2 + length
    return None


def _table_zero(segment: bytes) -> NDArray[np.float64] | None:
    at = 0
    while at < len(segment):
        wide, name = segment[at] >> 4, segment[at] & 15
        size = 128 if wide else 64
        steps = segment[at + 1 : at + 1 + size]
        if len(steps) < size:
            return None
        if name == 0:
            return np.frombuffer(steps, ">u2" if wide else np.uint8).astype(np.float64)
        at += 1 + size
    return None
