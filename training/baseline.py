"""What photos and verdicts looked like when a model was made: the baseline that live windows are compared with.

Histograms alone, so that it names no photo. What is compared, and when it alarms, is `detector.drift`'s.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from detector.artefact import Artefact
from detector.errors import InvalidImage
from detector.facts import histogram, measure
from detector.image import decode
from training.data import LIMITS, Photo
from training.scores import Scores


def baseline(artefact: Artefact, scores: Scores, root: Path) -> dict[str, Any]:
    """baseline.json of a calibrated model, from the photos of a table as stored (tier clean).

    Each class counts as given: the live share of ai is not known, so a drift of probabilities is against the mix of
    these photos. `labels` gives the share of each verdict.
    """
    clean = scores.of(variants=["clean"])
    facts = measure_all(clean.photos, root)
    probabilities, logits, verdicts = {}, {}, {}
    for profile, fusion in artefact.spec.profiles.items():
        calibration = artefact.calibrations[profile]
        fused = clean.fused(fusion)
        logits[profile] = histogram("logit", fused.tolist())
        said = np.asarray(calibration.curve.apply(fused), np.float64)
        probabilities[profile] = histogram("probability", said.tolist())
        limits = calibration.thresholds
        verdicts[profile] = {
            "real": float((said < limits.real).mean()),
            "uncertain": float(((said >= limits.real) & (said < limits.ai_generated)).mean()),
            "ai_generated": float((said >= limits.ai_generated).mean()),
        }
    return {
        "photos": len(clean.rows),
        "probability": probabilities,
        "logit": logits,
        "labels": verdicts,
        "facts": {name: histogram(name, values) for name, values in facts.items()},
    }


def measure_all(photos: Sequence[Photo], root: Path) -> Mapping[str, list[float]]:
    """The facts of every photo that can be read, by name; `jpeg_quality` of the JPEGs alone."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for photo in tqdm(photos, unit="photo", desc="baseline", disable=None):
        try:
            data = (root / photo.path).read_bytes()
            facts = measure(decode(data, LIMITS).pixels, data)
        except (InvalidImage, OSError):
            continue
        for name, value in facts.items():
            found[name].append(value)
    return found
