"""A model's scores -> report.json: every figure that says how good it is, and on which photos it is not.

Reads tables of scores and a model folder; knows no network. Figures are `metrics`', pictures `plots`', the page that
people read `card`'s.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import roc_curve

from detector.artefact import Artefact
from detector.calibration import label, sigmoid
from detector.errors import InvalidImage
from detector.schema import Thresholds
from training import plots
from training.augment import TIERS
from training.data import LABELS, InvalidDataset, Photo, fingerprint, read_photo
from training.metrics import (
    Metric,
    auc,
    balanced_accuracy,
    bootstrap,
    clopper_pearson,
    ece,
    fpr,
    log_loss,
    plain,
    tpr,
    tpr_at_fpr,
)
from training.null import null
from training.scores import RESAVES, InvalidScores, Scores

Floats = NDArray[np.float64]
GROUPS: dict[str, Callable[[Photo], str]] = {
    "sources": lambda photo: photo.source,
    "generators": lambda photo: photo.generator,
    "categories": lambda photo: photo.category,
    "styles": lambda photo: photo.style,
}
MIXTURE = "mixture"  # all tiers together, which is what a calibration is fitted on
WORST = 24  # errors named and shown, of each class


def evaluate(
    artefact: Artefact,
    scores: Scores,
    photos: Sequence[Photo],
    root: Path,
    splits: Sequence[str],
    *,
    broken: Mapping[str, str],
    commit: str,
    notes: Sequence[str] = (),
    rounds: int = 1000,
) -> dict[str, Any]:
    """The whole report of a calibrated model; the last split is the one its labels quote.

    broken: photos that can't be read, with the reason. notes: what a person saw on the worst errors, for the card.
    """
    earlier = artefact.document("report.json")
    if "calibration" not in earlier:
        raise InvalidScores(f"{artefact.folder}: is not calibrated yet; run `python -m training calibrate` first")
    for split in splits:
        present = {row.photo.label for row in scores.rows if row.photo.split == split}
        if len(present) < 2:
            raise InvalidDataset(f"split {split}: has no scores of {LABELS[int(0 in present)]} photos")
    report = {
        "fusion": earlier["fusion"],
        "calibration": earlier["calibration"],
        "model": _describe_model(artefact),
        "data": describe_data(photos, splits) | {"hash": fingerprint(photos, root), "broken": dict(broken)},
        "null": nulls(photos, splits, rounds),
        "notes": list(notes),
        **judge(artefact, scores, splits, rounds),
    }
    return {"labels": labels(report, splits[-1], report["data"]["hash"], commit), **report}


def judge(
    artefact: Artefact,
    scores: Scores,
    splits: Sequence[str],
    rounds: int = 1000,
) -> dict[str, Any]:
    """The figures of every profile and expert on some splits, ready for JSON."""
    report: dict[str, Any] = {"profiles": {}, "experts": {}}
    for profile, fusion in artefact.spec.profiles.items():
        calibration = artefact.calibrations[profile]
        said = np.asarray(calibration.curve.apply(scores.fused(fusion)), np.float64)
        report["profiles"][profile] = {
            "thresholds": calibration.thresholds.model_dump(),
            "experts": list(fusion.weights),
            "splits": {split: _judge_profile(scores, said, calibration.thresholds, split, rounds) for split in splits},
        }
    for place, name in enumerate(scores.experts):
        said = np.asarray(sigmoid(scores.logits[:, place]), np.float64)
        report["experts"][name] = {split: _judge_expert(scores, said, split, rounds) for split in splits}
    found: dict[str, Any] = plain(report)
    return found


def describe_data(photos: Sequence[Photo], splits: Sequence[str]) -> dict[str, Any]:
    """Counts of what a model was taught and judged on, and the licences as found."""
    counted: dict[str, Any] = {}
    for split in dict.fromkeys(["train", *splits]):
        here = [photo for photo in photos if photo.split == split]
        counted[split] = {
            name: {
                "photos": sum(photo.label == place for photo in here),
                "sources": len({photo.source for photo in here if photo.label == place}),
            }
            for place, name in enumerate(LABELS)
        }
        counted[split]["generators"] = len({photo.generator for photo in here if photo.generator})
    licences = Counter(photo.licence or "none stated" for photo in photos)
    return {"splits": counted, "licences": dict(licences.most_common())}


def nulls(photos: Sequence[Photo], splits: Sequence[str], rounds: int = 1000) -> dict[str, Any]:
    """The zero-pixel null of each split; {} where nothing is marked as train."""
    train = [photo for photo in photos if photo.split == "train"]
    if len({photo.label for photo in train}) < 2:
        return {}
    judged = {split: [photo for photo in photos if photo.split == split] for split in splits}
    found: dict[str, Any] = plain({split: asdict(null(train, here, rounds)) for split, here in judged.items()})
    return found


def labels(report: Mapping[str, Any], split: str, data: str, commit: str) -> dict[str, str]:
    """What a model store shows beside a model's name: strings, short."""
    figures = report["profiles"]["accurate"]["splits"][split]["tiers"]
    shown = {
        "split": split,
        "auc": figures["clean"]["auc"]["value"],
        "auc_hard": figures["hard"]["auc"]["value"],
        "tpr_at_1": figures["clean"]["tpr_at_1"]["value"],
        "ece": figures[MIXTURE]["ece"]["value"],
    }
    return {name: f"{value:.4f}" if isinstance(value, float) else str(value) for name, value in shown.items()} | {
        "data": data[:12],
        "commit": commit,
    }


def draw(artefact: Artefact, scores: Scores, report: Mapping[str, Any], split: str, folder: Path) -> list[Path]:
    """ROC by profile and expert, and the real sources' share of flagged photos, as pictures."""
    clean = scores.of(split, ["clean"])
    curves = {}
    for profile, fusion in artefact.spec.profiles.items():
        curves[profile] = roc_curve(clean.labels, clean.fused(fusion))[:2]
    for place, name in enumerate(scores.experts):
        curves[f"{name} alone"] = roc_curve(clean.labels, clean.logits[:, place])[:2]
    made = [folder / f"roc-{split}.png"]
    plots.roc(curves, made[0])
    for profile, found in report["profiles"].items():
        rows = [
            {"name": name, "photos": group["real"]["photos"], **group["real"]["flagged"]}
            for name, group in found["splits"][split]["groups"]["sources"].items()
            if group["real"]["photos"]
        ]
        made.append(folder / f"sources-{profile}-{split}.png")
        plots.sources(sorted(rows, key=lambda row: -row["share"]), 0.03, made[-1])
    return made


def show_worst(report: Mapping[str, Any], profile: str, split: str, root: Path, out: Path) -> None:
    """The worst errors of a profile as one picture, for a person to look at."""
    shown = []
    for name, found in report["profiles"][profile]["splits"][split]["worst"].items():
        for error in found:
            try:
                picture = read_photo(Photo(root / error["path"], LABELS.index(name)))
            except (InvalidImage, OSError):
                picture = Image.new("RGB", (200, 200), "grey")
            caption = f"{name} {error['probability']:.3f}\n{error['source'][:32]}\n{error['generator'][:32]}"
            shown.append((caption, picture))
    plots.contact_sheet(shown, out)


def describe(report: Mapping[str, Any]) -> str:
    """The figures that decide, as lines to read."""
    lines = []
    for split, found in report.get("null", {}).items():
        lines.append(f"zero-pixel null on {split}: AUC {_interval(found)}")
    for profile, judged in report["profiles"].items():
        for split, found in judged["splits"].items():
            for tier, figures in found["tiers"].items():
                lines.append(
                    f"{profile}, {split}, {tier}: AUC {_interval(figures['auc'])}, "
                    f"TPR {_percent(figures['tpr_at_1'])} at 1 % FPR, {_percent(figures['tpr_at_5'])} at 5 %; "
                    f"at the threshold FPR {_percent(figures['fpr'])}, balanced accuracy "
                    f"{_percent(figures['balanced_accuracy'])}; ECE {_interval(figures['ece'])}"
                )
            stability = found["stability"]
            lines += [
                f"{profile}, {split}, saved again as {name}: label changes {moved['changed']:.1%}, "
                f"real <-> ai_generated {moved['reversed']:.1%}"
                for name, moved in stability.items()
            ]
    for name, judged in report["experts"].items():
        for split, tiers in judged.items():
            told = ", ".join(f"{tier} AUC {_interval(figures['auc'])}" for tier, figures in tiers.items())
            lines.append(f"{name} alone, {split}: {told}")
    return "\n".join(lines)


def _describe_model(artefact: Artefact) -> dict[str, Any]:
    experts = [
        {
            "name": expert.name,
            "architecture": expert.architecture,
            "views": len(expert.views),
            "bytes": sum((artefact.folder / name).stat().st_size for name in expert.weights),
        }
        for expert in artefact.spec.experts
    ]
    return {"name": artefact.spec.name, "size": artefact.spec.size, "experts": experts}


def _judge_profile(scores: Scores, said: Floats, limits: Thresholds, split: str, rounds: int) -> dict[str, Any]:
    tiers = {}
    for tier in (*TIERS, MIXTURE):
        here, probabilities = _pick(scores, said, split, TIERS if tier == MIXTURE else (tier,))
        tiers[tier] = _figures(_metrics(limits.ai_generated), here, probabilities, rounds)
    clean, probabilities = _pick(scores, said, split, ("clean",))
    return {
        "tiers": tiers,
        "groups": {name: _groups(clean, probabilities, limits, key) for name, key in GROUPS.items()},
        "stability": _stability(scores, said, limits, split),
        "worst": _worst(clean, probabilities, limits),
    }


def _judge_expert(scores: Scores, said: Floats, split: str, rounds: int) -> dict[str, Any]:
    chosen: dict[str, Metric] = {"auc": auc, "tpr_at_1": partial(tpr_at_fpr, budget=0.01)}
    return {tier: _figures(chosen, *_pick(scores, said, split, (tier,)), rounds) for tier in TIERS}


def _metrics(threshold: float) -> dict[str, Metric]:
    return {
        "auc": auc,
        "tpr_at_1": partial(tpr_at_fpr, budget=0.01),
        "tpr_at_5": partial(tpr_at_fpr, budget=0.05),
        "fpr": partial(fpr, threshold=threshold),
        "tpr": partial(tpr, threshold=threshold),
        "balanced_accuracy": partial(balanced_accuracy, threshold=threshold),
        "ece": ece,
        "log_loss": log_loss,
    }


def _figures(chosen: Mapping[str, Metric], scores: Scores, said: Floats, rounds: int) -> dict[str, Any]:
    truth, sources = scores.labels, scores.sources
    return {name: asdict(bootstrap(metric, truth, said, sources, rounds)) for name, metric in chosen.items()}


def _pick(scores: Scores, said: Floats, split: str, variants: Sequence[str]) -> tuple[Scores, Floats]:
    """Rows of a split and some variants with what was said of them."""
    places = [place for place, row in enumerate(scores.rows) if row.photo.split == split and row.variant in variants]
    return replace(scores, rows=tuple(scores.rows[place] for place in places)), said[places]


def _groups(clean: Scores, said: Floats, limits: Thresholds, key: Callable[[Photo], str]) -> dict[str, dict[str, Any]]:
    """How the photos of each source, generator, category or style fare; a photo without one is in none.

    The AUC of a group sets it against all photos of the other class, where it lacks one itself.
    """
    truth, names = clean.labels, np.array([key(row.photo) for row in clean.rows])
    groups = {}
    for name in sorted(set(names.tolist()) - {""}):
        here = names == name
        against = here if 0 < truth[here].sum() < here.sum() else here | (truth != truth[here][0])
        groups[name] = {
            "auc": auc(truth[against], said[against]),
            "real": _verdicts(said[here & (truth == 0)], limits),
            "ai": _verdicts(said[here & (truth == 1)], limits),
        }
    return groups


def _verdicts(said: Floats, limits: Thresholds) -> dict[str, Any]:
    flagged = int((said >= limits.ai_generated).sum())
    low, high = clopper_pearson(flagged, said.size)
    passed = int((said < limits.real).sum())
    share = flagged / max(1, said.size)
    return {
        "photos": said.size,
        "flagged": {"hits": flagged, "share": share, "low": low, "high": high},
        "called_real": passed,
        "uncertain": said.size - flagged - passed,
    }


def _stability(scores: Scores, said: Floats, limits: Thresholds, split: str) -> dict[str, Any]:
    """How often another save of a photo changes its label, and by how much its probability moves."""
    clean, before = _pick(scores, said, split, ("clean",))
    known = {row.photo.path: float(probability) for row, probability in zip(clean.rows, before, strict=True)}
    moved = {}
    for variant in (*RESAVES, *TIERS[1:]):
        there, after = _pick(scores, said, split, (variant,))
        pairs = [
            (known[row.photo.path], float(probability)) for row, probability in zip(there.rows, after, strict=True)
        ]
        if pairs:
            verdicts = [(label(first, limits), label(second, limits)) for first, second in pairs]
            moved[variant] = {
                "photos": len(pairs),
                "changed": float(np.mean([first != second for first, second in verdicts])),
                "reversed": float(np.mean([set(pair) == {"real", "ai_generated"} for pair in verdicts])),
                "moved": float(np.mean([abs(first - second) for first, second in pairs])),
            }
    return moved


def _worst(clean: Scores, said: Floats, limits: Thresholds) -> dict[str, Any]:
    """The surest wrong verdicts of each class, the worst first."""
    wrong = {
        "real": [
            place for place in np.argsort(-said) if not clean.labels[place] and said[place] >= limits.ai_generated
        ],
        "ai": [place for place in np.argsort(said) if clean.labels[place] and said[place] < limits.real],
    }
    return {
        name: [
            {
                "path": clean.rows[place].photo.path.as_posix(),
                "source": clean.rows[place].photo.source,
                "generator": clean.rows[place].photo.generator,
                "probability": float(said[place]),
            }
            for place in places[:WORST]
        ]
        for name, places in wrong.items()
    }


def _interval(found: Mapping[str, float | None]) -> str:
    """A figure of a report with its interval, to read."""
    value, low, high = (found[name] for name in ("value", "low", "high"))
    if value is None:
        return "none"
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} ({low:.3f} .. {high:.3f})"


def _percent(found: Mapping[str, float | None]) -> str:
    return "none" if found["value"] is None else f"{found['value']:.1%}"
