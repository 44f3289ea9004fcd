"""A linear head on frozen CLIP features: logistic regression over photos and their degraded copies.

Where tuning of the trunk starts from (Kumar et al. 2022, arXiv 2202.10054), and the floor that it has to beat. Folds
by source give probabilities that teach the small expert, none of them from a head that saw the photo.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression
from torch import Tensor, from_numpy, nn, no_grad

from detector.calibration import sigmoid
from detector.networks import Clip, ClipExpert
from training.data import Photo, balance
from training.data import folds as by_source
from training.features import Features


@dataclass(frozen=True)
class Head:
    """logit = weights . features + bias, over [class tokens, patch tokens] of the taps of `clip`."""

    clip: Clip
    weights: NDArray[np.float64]
    bias: float

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = features @ self.weights + self.bias
        return found


def fit(
    features: Features,
    photos: Sequence[Photo],
    variants: Sequence[str],
    taps: tuple[int, ...],
    strength: float,
    share: float = 1.0,
) -> Head:
    """Fit on every variant of the photos; strength is scikit-learn's C on standardised features.

    share: what a degraded copy counts beside the photo as stored, which `variants` names first.
    """
    stacked = np.concatenate([features.of(photos, variant, taps) for variant in variants])
    labels = np.tile([photo.label for photo in photos], len(variants))
    weights = np.outer([1.0] + [share] * (len(variants) - 1), balance(photos)).ravel()
    weights *= len(weights) / weights.sum()
    mean, scale = stacked.mean(0), stacked.std(0) + 1e-6
    model = LogisticRegression(C=strength, max_iter=400, tol=1e-3)
    model.fit((stacked - mean) / scale, labels, sample_weight=weights)
    direction = model.coef_[0] / scale
    return Head(Clip(taps, features.clip.side), direction, float(model.intercept_[0] - mean @ direction))


def cross_fit(
    features: Features,
    photos: Sequence[Photo],
    variants: Sequence[str],
    taps: tuple[int, ...],
    strength: float,
    share: float = 1.0,
    folds: int = 5,
) -> NDArray[np.float64]:
    """Logits of the photos as stored, each from a head that saw none of its source."""
    logits = np.zeros(len(photos))
    for kept, left in by_source(photos, folds):
        head = fit(features, [photos[index] for index in kept], variants, taps, strength, share)
        logits[left] = head.logits(features.of([photos[index] for index in left], variants[0], taps))
    return logits


def teach(photos: Sequence[Photo], logits: NDArray[np.float64], path: Path) -> None:
    """Write cross-fitted logits as the probabilities that teach another expert: JSON, by photo path."""
    said = sigmoid(logits)
    path.write_text(json.dumps({str(photo.path): round(float(p), 5) for photo, p in zip(photos, said, strict=True)}))


def save(head: Head, path: Path) -> None:
    tensors = {"weights": head.weights, "bias": np.array([head.bias])}
    save_file(tensors, path, {"architecture": str(head.clip)})


def read(path: Path) -> Head:
    """A head as `save` wrote it; ValueError where the file is absent or holds something else."""
    try:
        with safe_open(path, "numpy") as file:
            clip = Clip.parse((file.metadata() or {}).get("architecture", ""))
            if clip is None:
                raise ValueError(
                    f"{path}: does not say which CLIP it is a head for; `python -m training probe` writes one"
                )
            return Head(clip, file.get_tensor("weights"), float(file.get_tensor("bias")[0]))
    except (SafetensorError, OSError):
        raise ValueError(f"{path}: holds no head; `python -m training probe` writes one") from None


@no_grad()
def install(head: Head, expert: ClipExpert) -> None:
    """Put a head's weights into an expert that is read after the same taps."""
    assert expert.clip.taps == head.clip.taps
    token, patch = np.split(head.weights, 2)
    linear = expert.head["patch"], expert.head["token"]
    assert isinstance(linear[0], nn.Linear)
    assert isinstance(linear[1], nn.Linear)
    linear[0].weight.copy_(_row(patch))
    linear[1].weight.copy_(_row(token))
    linear[0].bias.fill_(head.bias)


def _row(values: NDArray[np.float64]) -> Tensor:
    return from_numpy(values).float().reshape(1, -1)
