"""Figures of a report as pictures: ROC, reliability, verdicts by source, and the worst errors to look at.

Draws what it is given; nothing here computes a figure.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]  # false and true positive rates


def roc(curves: Mapping[str, Curve], out: Path) -> None:
    """True against false positives, the latter on a logarithm's scale: what matters lies below 5 %."""
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.add_subplot()
    for name, (fpr, tpr) in curves.items():
        axes.step(np.maximum(fpr, 1e-3), tpr, where="post", label=name)
    axes.set(
        xscale="log", xlim=(1e-3, 1), ylim=(0, 1), xlabel="share of real photos flagged", ylabel="share of ai caught"
    )
    axes.axvline(0.01, color="grey", linewidth=0.5)
    axes.axvline(0.05, color="grey", linewidth=0.5)
    axes.legend(loc="lower right")
    _save(figure, out)


def reliability(before: Sequence[Sequence[float]], after: Sequence[Sequence[float]], out: Path) -> None:
    """Rows of (probability said, share of ai, photos), uncalibrated and calibrated; a point's area is its photos."""
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.5)
    for name, points in (("before", before), ("after", after)):
        said, share, count = np.array(points, float).reshape(-1, 3).T
        axes.plot(said, share, linewidth=0.8, label=name)
        axes.scatter(said, share, 300 * count / max(1.0, float(count.sum())))
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability said", ylabel="share of ai among these photos")
    axes.legend(loc="upper left")
    _save(figure, out)


def sources(rows: Sequence[Mapping[str, Any]], ceiling: float, out: Path) -> None:
    """Share of each real source's photos that are flagged, the worst first, with its bounds."""
    figure = Figure(figsize=(7, max(2.5, 0.28 * len(rows) + 1)), layout="constrained")
    axes = figure.add_subplot()
    places = np.arange(len(rows))
    share, low, high = (np.array([row[name] for row in rows], float) for name in ("share", "low", "high"))
    axes.barh(places, share, xerr=[share - low, high - share], color="tab:orange", ecolor="grey")
    axes.set_yticks(places, [f"{row['name']} ({row['photos']})" for row in rows], fontsize=7)
    axes.invert_yaxis()
    axes.axvline(ceiling, color="tab:red", linewidth=0.8)
    axes.set(xlim=(0, 1), xlabel="share of real photos called ai_generated")
    _save(figure, out)


def contact_sheet(photos: Sequence[tuple[str, Image.Image]], out: Path, cell: int = 200, columns: int = 6) -> None:
    """Photos in reading order with a caption under each; newlines in a caption are kept."""
    rows = max(1, -(-len(photos) // columns))
    below = 44
    sheet = Image.new("RGB", (columns * cell, rows * (cell + below)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (caption, photo) in enumerate(photos):
        left, top = number % columns * cell, number // columns * (cell + below)
        small = photo.copy()
        small.thumbnail((cell - 8, cell - 8))
        sheet.paste(small, (left + 4, top + 4))
        draw.multiline_text((left + 4, top + cell - 2), caption, "black")
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out)


def _save(figure: Figure, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=120)
