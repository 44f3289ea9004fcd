"""The zero-pixel null: what a classifier learns from files alone, without one pixel.

Where it does better than chance, the two classes differ in how they were saved, and any detector's figure on these
photos is worth that much less. Printed beside every score.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.ensemble import HistGradientBoostingClassifier
from tqdm import tqdm

from training.data import Photo, balance
from training.metrics import Interval, auc, bootstrap

Floats = NDArray[np.float64]
NAMES = ("width", "height", "aspect", "bytes", "bytes_per_pixel")
TABLES = 2  # quantisation tables of a JPEG: brightness, colour


def facts(photos: Sequence[Photo]) -> Floats:
    """(photos, features): sizes and quantisation tables from the files' headers; NaN where a file does not tell."""
    rows = [_facts(photo.path) for photo in tqdm(photos, unit="photo", desc="zero-pixel null", disable=None)]
    return np.array(rows, np.float64).reshape(len(photos), len(NAMES) + 64 * TABLES)


def null(train: Sequence[Photo], judged: Sequence[Photo], rounds: int = 1000, seed: int = 0) -> Interval:
    """AUC of boosted trees on `facts`, fitted on train, on other photos; near .5 is good news."""
    model = HistGradientBoostingClassifier(random_state=seed, max_iter=100)
    model.fit(facts(train), [photo.label for photo in train], sample_weight=balance(train) * len(train))
    said = model.predict_proba(facts(judged))[:, 1]
    return bootstrap(auc, [photo.label for photo in judged], said, [photo.source for photo in judged], rounds)


def _facts(path: Path) -> list[float]:
    try:
        size = path.stat().st_size
        with Image.open(path) as image:  # reads the header alone
            width, height = image.size
            tables = getattr(image, "quantization", {})
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return [np.nan] * (len(NAMES) + 64 * TABLES)
    quantised = [tables.get(place, [np.nan] * 64) for place in range(TABLES)]
    return [
        width,
        height,
        width / height,
        size,
        size / (width * height),
        *(step for table in quantised for step in table),
    ]
