"""What the web does to a photo: the tiers that judge, and the random degradations that teach.

Nothing here looks at a label: both classes suffer alike. Squares for the networks are `detector.preprocess`'s.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter
from torch import Tensor, from_numpy, zeros

Step = Callable[[Image.Image, Generator], Image.Image]

TIERS = ("clean", "web", "hard")
_TIERS = {"web": (768, 60), "hard": (512, 40)}  # long side in pixels, JPEG quality
_FILTERS = (
    Image.Resampling.BOX,
    Image.Resampling.BILINEAR,
    Image.Resampling.HAMMING,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
)
_LOCAL = frozenset({*TIERS, "enlarge", "shrink", "blur", "sharpen", "noise", "recompress"})
SMALLEST, LARGEST = 64, 2048  # long side in pixels that no step goes beyond


@dataclass(frozen=True)
class Degradation:
    """How likely each step is (0 switches it off), in the order in which they happen to a photo."""

    flip: float = 0.5
    crop: float = 0.5
    packshot: float = 0.1
    colour: float = 0.4
    enlarge: float = 0.15
    shrink: float = 0.6
    blur: float = 0.15
    sharpen: float = 0.15
    noise: float = 0.15
    screenshot: float = 0.05
    grid_mask: float = 0.05
    cutout: float = 0.05
    recompress: float = 0.9
    extra: int = 0  # further steps drawn evenly, as RandAugment does (Cubuk et al. 2020)

    def __post_init__(self) -> None:
        for field in fields(self):
            chance = getattr(self, field.name)
            if field.name in STEPS and not 0 <= chance <= 1:
                raise ValueError(f"the probability of {field.name} is {chance}; it must lie in 0 .. 1")
        if self.extra < 0:
            raise ValueError(f"extra is {self.extra}; it counts steps")


def to_tier(photo: Image.Image, tier: str) -> Image.Image:
    """The photo as one of TIERS: as stored; long side <= 768 px and JPEG q60; <= 512 px and q40. Never enlarged."""
    if tier == "clean":
        return photo
    if tier not in _TIERS:
        raise ValueError(f"{tier!r} is no tier; there are {', '.join(TIERS)}")
    side, quality = _TIERS[tier]
    if max(photo.size) > side:
        photo = _scale(photo, side / max(photo.size), Image.Resampling.LANCZOS)
    return _encode(photo, "JPEG", quality=quality)


def degrade(photo: Image.Image, rng: Generator, config: Degradation) -> Image.Image:
    """Send a photo through the steps that chance picks; the same generator state gives the same picture."""
    chosen = {name for name in STEPS if rng.random() < getattr(config, name)}
    chosen |= set(rng.choice(list(STEPS), min(config.extra, len(STEPS)), replace=False).tolist())
    for name, step in STEPS.items():
        if name in chosen:
            photo = step(photo, rng)
    return photo


def mixup(views: Tensor, targets: Tensor, rng: Generator, alpha: float = 0.2) -> tuple[Tensor, Tensor]:
    """Blend each view with another of the batch (Zhang et al. 2018). views: (n, c, s, s) float; targets: (n,)."""
    share = float(rng.beta(alpha, alpha))
    others = from_numpy(rng.permutation(len(views)))
    return share * views + (1 - share) * views[others], share * targets + (1 - share) * targets[others]


def cutmix(views: Tensor, targets: Tensor, rng: Generator, alpha: float = 1.0) -> tuple[Tensor, Tensor]:
    """Paste a box of another view of the batch (Yun et al. 2019). views: (n, c, s, s) float; targets: (n,)."""
    height, width = views.shape[-2:]
    side = float(np.sqrt(rng.beta(alpha, alpha)))
    rows, columns = round(height * side), round(width * side)
    top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
    others = from_numpy(rng.permutation(len(views)))
    mixed = views.clone()
    mixed[..., top : top + rows, left : left + columns] = views[others, :, top : top + rows, left : left + columns]
    share = rows * columns / (height * width)
    return mixed, (1 - share) * targets + share * targets[others]


def _flip(photo: Image.Image, _: Generator) -> Image.Image:
    return photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def _crop(photo: Image.Image, rng: Generator) -> Image.Image:
    """45 .. 100 % of the area, its shape changed by at most a fifth."""
    area, shape = rng.uniform(0.45, 1.0), np.exp(rng.uniform(-0.2, 0.2))
    width = max(1, min(photo.width, round(photo.width * np.sqrt(area * shape))))
    height = max(1, min(photo.height, round(photo.height * np.sqrt(area / shape))))
    left, top = int(rng.integers(photo.width - width + 1)), int(rng.integers(photo.height - height + 1))
    return photo.crop((left, top, left + width, top + height))


def _packshot(photo: Image.Image, rng: Generator) -> Image.Image:
    """A border of white or nearly white, as shops pad photos to one shape."""
    grey = int(rng.choice([255, 255, 250, 245]))
    width, height = (round(side * rng.uniform(1.05, 1.4)) for side in photo.size)
    canvas = Image.new("RGB", (width, height), (grey, grey, grey))
    canvas.paste(photo, ((width - photo.width) // 2, (height - photo.height) // 2))
    return canvas


def _colour(photo: Image.Image, rng: Generator) -> Image.Image:
    """Brightness, contrast and saturation within a fifth, gamma within a sixth, each channel within 3 %."""
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        photo = enhance(photo).enhance(rng.uniform(0.8, 1.2))
    gamma, gains = rng.uniform(0.85, 1.18), rng.uniform(0.97, 1.03, 3)
    curve = 255 * np.linspace(0, 1, 256)[None] ** gamma * gains[:, None]
    return photo.point(curve.clip(0, 255).round().astype(int).ravel().tolist())


def _enlarge(photo: Image.Image, rng: Generator) -> Image.Image:
    return _scale(photo, rng.uniform(1.2, 2.2), _FILTERS[rng.integers(len(_FILTERS))])


def _shrink(photo: Image.Image, rng: Generator) -> Image.Image:
    return _scale(photo, rng.uniform(0.35, 1.0), _FILTERS[rng.integers(len(_FILTERS))])


def _blur(photo: Image.Image, rng: Generator) -> Image.Image:
    return photo.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.5)))


def _sharpen(photo: Image.Image, rng: Generator) -> Image.Image:
    return photo.filter(ImageFilter.UnsharpMask(rng.uniform(0.5, 2.0), int(rng.integers(30, 150)), 2))


def _noise(photo: Image.Image, rng: Generator) -> Image.Image:
    """Grain of 1 .. 8 levels, in colour or in brightness alone."""
    channels = int(rng.choice([1, 3]))
    grain = rng.standard_normal((photo.height, photo.width, channels), np.float32) * np.float32(rng.uniform(1, 8))
    return Image.fromarray((np.asarray(photo, np.float32) + grain).clip(0, 255).round().astype(np.uint8))


def _screenshot(photo: Image.Image, rng: Generator) -> Image.Image:
    """A telephone's bars above and below, on light or dark, at the screen's scale."""
    dark = rng.random() < 0.5
    ground, ink = ((18, 18, 18), (230, 230, 230)) if dark else ((250, 250, 250), (40, 40, 40))
    above, below = (round(photo.height * rng.uniform(0.05, 0.15)) for _ in range(2))
    screen = Image.new("RGB", (photo.width, photo.height + above + below), ground)
    screen.paste(photo, (0, above))
    draw = ImageDraw.Draw(screen)
    for middle, tall in ((above / 2, above), (above + photo.height + below / 2, below)):
        for start in rng.uniform(0, 0.85, 4) * photo.width:
            draw.rounded_rectangle(
                (start, middle - tall / 8, start + photo.width * rng.uniform(0.03, 0.15), middle + tall / 8), 2, ink
            )
    return _scale(screen, rng.uniform(0.5, 1.0), Image.Resampling.BILINEAR)


def _grid_mask(photo: Image.Image, rng: Generator) -> Image.Image:
    """Grey squares on a grid (Chen et al. 2020), a tenth to a third of the area."""
    period = max(8, round(max(photo.size) * rng.uniform(0.12, 0.35)))
    hole = round(period * rng.uniform(0.3, 0.57))
    left, top = rng.integers(period, size=2)
    covered = ((np.arange(photo.height) + top) % period < hole)[:, None] & (
        (np.arange(photo.width) + left) % period < hole
    )
    pixels = np.array(photo)
    pixels[covered] = rng.integers(90, 160)
    return Image.fromarray(pixels)


def _cutout(photo: Image.Image, rng: Generator) -> Image.Image:
    """One grey box (DeVries & Taylor 2017), a fifth to two fifths of each side."""
    width, height = (max(1, round(side * rng.uniform(0.2, 0.4))) for side in photo.size)
    left, top = int(rng.integers(photo.width - width + 1)), int(rng.integers(photo.height - height + 1))
    covered = photo.copy()
    grey = int(rng.integers(90, 160))
    covered.paste((grey, grey, grey), (left, top, left + width, top + height))
    return covered


def _recompress(photo: Image.Image, rng: Generator) -> Image.Image:
    """One to three saves, three quarters of them JPEG and the rest WebP, at quality 30 .. 95."""
    for _ in range(int(rng.choice([1, 2, 3], p=[0.6, 0.3, 0.1]))):
        quality = int(rng.integers(30, 96))
        if rng.random() < 0.75:
            photo = _encode(photo, "JPEG", quality=quality, subsampling=int(rng.choice([0, 2], p=[0.3, 0.7])))
        else:
            photo = _encode(photo, "WEBP", quality=quality, method=2)
    return photo


STEPS: dict[str, Step] = {
    "flip": _flip,
    "crop": _crop,
    "packshot": _packshot,
    "colour": _colour,
    "enlarge": _enlarge,
    "shrink": _shrink,
    "blur": _blur,
    "sharpen": _sharpen,
    "noise": _noise,
    "screenshot": _screenshot,
    "grid_mask": _grid_mask,
    "cutout": _cutout,
    "recompress": _recompress,
}


def write_sheet(photos: Sequence[Image.Image], out: Path, seed: int = 0, cell: int = 192) -> None:
    """A picture with a column per photo and a row per tier and step, for a person to look at.

    A row is the whole photo, or its middle at native scale where a step changes nothing that a thumbnail shows.
    """
    rows = _sheet_rows(photos, seed, cell)
    sheet = Image.new("RGB", (100 + len(photos) * cell, len(rows) * cell), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (name, pictures) in enumerate(rows.items()):
        draw.text((8, row * cell + cell // 2), name, "black")
        for column, picture in enumerate(pictures):
            if name in _LOCAL:
                left, top = (max(0, side - cell) // 2 for side in picture.size)
                picture = picture.crop((left, top, min(left + cell, picture.width), min(top + cell, picture.height)))
            picture.thumbnail((cell - 4, cell - 4))
            sheet.paste(picture, (100 + column * cell, row * cell))
    sheet.save(out)


def _sheet_rows(photos: Sequence[Image.Image], seed: int, cell: int) -> dict[str, list[Image.Image]]:
    rows = {tier: [to_tier(photo, tier).copy() for photo in photos] for tier in TIERS}
    for name, step in STEPS.items():
        rows[name] = [step(photo, np.random.default_rng((seed, n))) for n, photo in enumerate(photos)]
    rows["all"] = [degrade(photo, np.random.default_rng((seed, n)), Degradation()) for n, photo in enumerate(photos)]
    squares = np.stack([np.asarray(photo.resize((cell, cell)), np.float32) for photo in photos])
    views, targets = from_numpy(squares.transpose(0, 3, 1, 2)), zeros(len(photos))
    for mix in (mixup, cutmix):
        mixed, _ = mix(views, targets, np.random.default_rng(seed), 2.0)
        rows[mix.__name__] = [Image.fromarray(view.transpose(1, 2, 0).astype(np.uint8)) for view in mixed.numpy()]
    return rows


def _scale(photo: Image.Image, factor: float, resampling: Image.Resampling) -> Image.Image:
    """Resize by a factor, held so that the long side neither falls below SMALLEST nor grows beyond LARGEST."""
    long_side = max(photo.size)
    factor = max(factor, min(1.0, SMALLEST / long_side)) if factor < 1 else min(factor, max(1.0, LARGEST / long_side))
    width, height = (max(1, round(side * factor)) for side in photo.size)
    return photo.resize((width, height), resampling)


def _encode(photo: Image.Image, format: str, **options: Any) -> Image.Image:
    """Save and read again, as an upload does."""
    buffer = BytesIO()
    photo.save(buffer, format, **options)
    return Image.open(buffer).convert("RGB")
