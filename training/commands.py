"""The steps behind `python -m training`: each reads its photos and folders, does one thing, says what it made.

Arguments come from `__main__`; whatever is worth a test of its own lives in the module that a step calls.
"""

import json
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from detector import __version__
from detector.artefact import Artefact, load, seal
from detector.errors import DetectorError, InvalidImage
from detector.networks import PATCH, Clip, ClipExpert, ConvExpert
from detector.runtime import find_device
from training import (
    assemble,
    baseline,
    calibrate,
    card,
    data,
    evaluate,
    features,
    feedback,
    fuse,
    overrun,
    plots,
    probe,
    promote,
    scores,
    train,
    tune,
)
from training.augment import TIERS, write_sheet
from training.data import LABELS, InvalidDataset, Photo
from training.metrics import auc, tpr_at_fpr
from training.recipe import Recipe
from training.tracking import tracking


class InvalidRun(ValueError):
    """What training or its inputs were given can't be used; one line that says why."""


FAULTS = (
    DetectorError,
    assemble.InvalidExperts,
    data.InvalidDataset,
    promote.InvalidGate,
    scores.InvalidScores,
    tune.InvalidSearch,
    InvalidRun,
)
T = TypeVar("T")
CHECKED = 16  # photos on which torch and OpenVINO are compared
RESAVED = 4  # every which photo of a split is also scored as saved again, for stability
SHOWN = 20  # broken photos that are named; the others are counted


def inspect(given: Namespace) -> int:
    photos, _ = _photos(given.data)
    if given.sheet:
        plots.contact_sheet(_examples(photos), given.sheet)
        print(f"Photos of every split and class: {given.sheet}")
    found = data.inspect(photos)
    print(found)
    print("Sound." if found.sound else "Not sound: mend what is named above, or figures on these photos flatter.")
    return 0 if found.sound else 1


def show_degradations(given: Namespace) -> int:
    photos, _ = _photos(given.data)
    given.sheet.parent.mkdir(parents=True, exist_ok=True)
    write_sheet([data.read_photo(photo) for photo in _readable(photos, given.photos)], given.sheet)
    print(f"A row for every tier and degradation: {given.sheet}")
    return 0


def extract_features(given: Namespace) -> int:
    photos, _ = _photos(given.data)
    showings = features.plan(photos, given.copies)
    if (given.size or given.side) % given.side or given.side % PATCH:
        raise InvalidRun(f"the views' side must be a multiple of {given.side}, and that one of {PATCH}")
    clip = Clip(tuple(sorted(given.taps)), given.side)
    broken = features.extract(showings, clip, given.folder, lessons=given.lessons, size=given.size)
    print(f"Features: {given.folder}; photos that can't be read, counted once a showing: {broken}. Next: probe.")
    return 0


def fit_probe(given: Namespace) -> int:
    """A linear head on cached features, and cross-fitted probabilities that teach another expert."""
    photos, _ = _photos(given.data)
    known = _told(features.read, given.features)
    taps = tuple(given.taps or known.clip.taps)
    taught, held_out = data.in_split(photos, "train"), data.in_split(photos, "val")
    variants = [variant for variant in dict.fromkeys(variant for _, variant in known.rows) if _is_taught(variant)]
    head = probe.fit(known, taught, variants, taps, given.strength, given.share)
    for tier in TIERS:
        said = head.logits(known.of(held_out, tier, taps))
        print(f"val, {tier}: {_worth(held_out, said)}")
    given.folder.mkdir(parents=True, exist_ok=True)
    probe.save(head, given.folder / "head.safetensors")
    logits = probe.cross_fit(known, taught, variants, taps, given.strength, given.share)
    print(f"train, sources left out: {_worth(taught, logits)}")
    probe.teach(taught, logits, given.folder / "teacher.json")
    print(f"Head and teacher: {given.folder}. Next: train, with --head or --teacher.")
    return 0


def _worth(photos: Sequence[Photo], logits: NDArray[np.float64]) -> str:
    labels = [photo.label for photo in photos]
    return f"AUC {auc(labels, logits):.4f}, TPR at 1 % FPR {tpr_at_fpr(labels, logits, 0.01):.3f}"


def weigh_budgets(given: Namespace) -> int:
    """What a confidence in the false-positive budget is worth on sources that set no threshold."""
    photos, _ = _photos(given.data)
    taught, teacher = data.in_split(photos, "train"), _read_teacher(given.teacher)
    known = [photo for photo in taught if str(photo.path) in teacher]
    said, labels = (
        np.array(values) for values in ([teacher[str(photo.path)] for photo in known], [p.label for p in known])
    )
    sources = [photo.source for photo in known]
    for found in _told(overrun.trials, said, labels, sources, given.photos, given.budget):
        print(
            f"confidence {found.confidence:g}: {found.flagged:.2%} of other sources' real photos flagged, "
            f"budget overrun in {found.overrun:.0%} of deals, {found.caught:.1%} of ai photos caught"
        )
    return 0


def train_expert(given: Namespace) -> int:
    photos, _ = _photos(given.data)
    wanted = _told(Recipe.read, given.recipe)
    folder = given.folder or given.runs / given.recipe.stem
    teacher = _read_teacher(given.teacher)
    taught, held_out = data.in_split(photos, "train"), data.in_split(photos, "val")
    device = find_device(given.device, "--device")
    expert = _start(wanted, given.head, given.further)
    lessons = _told(features.read_lessons, given.lessons) if given.lessons else None
    with tracking(given.runs / "mlflow.db", "train", folder.name, wanted.model_dump(mode="json")) as run:
        _told(train.train, taught, held_out, expert, wanted, folder, teacher, run.log, lessons, device)
    print(f"The best checkpoint: {folder}. Next: list it in a YAML of experts, and export.")
    return 0


def search(given: Namespace) -> int:
    photos, _ = _photos(given.data)
    base, space, teacher = (
        _told(Recipe.read, given.recipe),
        tune.read_space(given.space),
        _read_teacher(given.teacher),
    )
    taught, held_out = data.in_split(photos, "train"), data.in_split(photos, "val")
    device = find_device(given.device, "--device")

    def worth(recipe: Recipe, folder: Path, log: train.Log) -> float:
        best = train.train(taught, held_out, _start(recipe, given.head), recipe, folder, teacher, log, device=device)
        return min(train.judge(best.to(device), held_out, recipe).values())

    best = tune.tune(worth, base, space, given.trials, given.folder)
    print(tune.describe(given.folder))
    print(f"The best is trial {best.number}, worst tier's AUC {best.value:.4f}: {given.folder / 'best.yaml'}")
    return 0


def export(given: Namespace) -> int:
    photos, _ = _photos(given.data)
    experts, size = assemble.read_experts(given.experts)
    assemble.remake(given.model)
    made = assemble.draft(experts, size, given.model, given.fast)
    _check_agreement(made, {expert.name: expert.module for expert in experts}, photos)
    print(f"A draft of a model: {given.model}. Next: calibrate.")
    return 0


def score(given: Namespace) -> int:
    artefact = load(given.model)
    photos, root = _photos(given.data)
    _fill(given.runs, artefact, photos, root, given.splits)
    print(f"Scores: {_table(given.runs, artefact)}")
    return 0


def settle(given: Namespace) -> int:
    artefact = load(given.model)
    photos, root = _photos(given.data)
    _fill(given.runs, artefact, photos, root, [given.split])
    held_out = scores.read(_table(given.runs, artefact), artefact).of(given.split)
    profiles = _profiles(artefact, given)
    documents = calibrate.settle(artefact, held_out, profiles, given.budget, given.misses, given.confidence)
    settled = assemble.write(given.model, "calibrated", documents)
    settled = assemble.write(given.model, "calibrated", {"baseline": baseline.baseline(settled, held_out, root)})
    report = documents["report"]
    for profile in profiles:
        print(f"{profile}: {fuse.describe(report['fusion'][profile])}")
        print(calibrate.describe(profile, report["calibration"][profile], settled.calibrations[profile]))
    for picture in calibrate.draw(report, _table(given.runs, artefact).parent):
        print(f"Reliability: {picture}")
    print(f"Calibrated: {given.model}. Next: evaluate.")
    return 0


def judge(given: Namespace) -> int:
    artefact = load(given.model)
    photos, root = _photos(given.data)
    notes = given.notes.read_text(encoding="utf-8").strip().split("\n\n") if given.notes else ()
    broken = _fill(given.runs, artefact, photos, root, given.splits)
    table = _table(given.runs, artefact)
    found = scores.read(table, artefact)
    report = evaluate.evaluate(
        artefact,
        found,
        photos,
        root,
        given.splits,
        broken=broken,
        commit=_commit(),
        notes=notes,
        rounds=given.rounds,
    )
    assemble.write(given.model, "evaluated", {"report": report})
    print(evaluate.describe(report))
    for split in given.splits:
        for picture in evaluate.draw(artefact, found, report, split, table.parent):
            print(f"Picture: {picture}")
        for profile in artefact.spec.profiles:
            out = table.parent / f"worst-{profile}-{split}.png"
            evaluate.show_worst(report, profile, split, root, out)
            print(f"Worst errors: {out}")
    print(f"Judged: {given.model / 'report.json'}. Next: promote.")
    return 0


def write_card(given: Namespace) -> int:
    report = load(given.model).document("report.json")
    if "profiles" not in report:
        raise scores.InvalidScores(f"{given.model}: is not judged yet; run `python -m training evaluate` first")
    given.out.write_text(card.write_card(report), encoding="utf-8")
    print(f"Model card: {given.out}")
    return 0


def promote_model(given: Namespace) -> int:
    candidate, gate = load(given.model), promote.Gate.read(given.gate)
    checks = promote.check(gate, candidate, promote.present_default(given.default))
    print(promote.table(checks))
    if not all(check.passed for check in checks):
        raise promote.InvalidGate("the model stays where it is; the default is unchanged")
    _check_agreement(candidate, assemble.rebuild(candidate), _photos(given.data)[0])
    seal(given.model, given.version or __version__)
    candidate = load(given.model)
    print(_store(given.model))
    promote.install(candidate, given.default)
    print(f"The default: {given.default}. Next: make card, and commit both.")
    return 0


def pull_feedback(given: Namespace) -> int:
    print(feedback.pull(given.records, given.photos, given.out))
    return 0


COMMANDS: dict[str, Callable[[Namespace], int]] = {
    "feedback": pull_feedback,
    "data": inspect,
    "augment": show_degradations,
    "features": extract_features,
    "probe": fit_probe,
    "overrun": weigh_budgets,
    "train": train_expert,
    "tune": search,
    "export": export,
    "score": score,
    "calibrate": settle,
    "evaluate": judge,
    "card": write_card,
    "promote": promote_model,
}


def _photos(path: Path) -> tuple[list[Photo], Path]:
    """All photos, in splits, and the folder that their places are told from."""
    photos = data.load(path)
    if not any(photo.split for photo in photos):
        photos = data.assign_splits(photos)
        print("The photos name no splits; they were split by source, 5 : 1 : 1, the same way each time.")
    return photos, path if path.is_dir() else path.parent


def _table(runs: Path, artefact: Artefact) -> Path:
    """Where the scores of these networks lie, whatever their fusion and calibration."""
    return Path(runs / "judged" / scores.fingerprint(artefact)[:12] / "scores.csv")


def _fill(
    runs: Path, artefact: Artefact, photos: Sequence[Photo], root: Path, splits: Sequence[str]
) -> Mapping[str, str]:
    """Every photo in every tier, and a sample of them as saved again, which halves the time."""
    chosen = [photo for split in splits for photo in data.in_split(photos, split)]
    table = _table(runs, artefact)
    broken = scores.fill(table, artefact, chosen, root, TIERS)
    scores.fill(table, artefact, chosen[::RESAVED], root, scores.RESAVES)
    if broken:
        print(f"Left out, for they can't be read: {len(broken)}")
    for path, reason in list(broken.items())[:SHOWN]:
        print(f"  {path}: {reason}")
    return broken


def _profiles(artefact: Artefact, given: Namespace) -> dict[str, list[str]]:
    names = [expert.name for expert in artefact.spec.experts]
    profiles = {
        "accurate": given.accurate or names,
        "fast": [given.fast] if given.fast else list(artefact.spec.profiles["fast"].weights),
    }
    unknown = sorted({name for chosen in profiles.values() for name in chosen} - set(names))
    if unknown:
        raise assemble.InvalidExperts(f"there is no expert {unknown[0]}; there are {', '.join(names)}")
    return profiles


def _check_agreement(artefact: Artefact, modules: Mapping[str, nn.Module], photos: Sequence[Photo]) -> None:
    pictures = [data.read_photo(photo) for photo in _readable(photos, CHECKED)]
    apart = assemble.agreement(artefact, modules, pictures)
    told = ", ".join(f"{profile} {difference:.1e}" for profile, difference in apart.items())
    print(f"OpenVINO against torch on {len(pictures)} photos, largest difference in probability: {told}")
    if max(apart.values()) > assemble.AGREED:
        raise assemble.InvalidExperts(f"OpenVINO and torch differ by more than {assemble.AGREED:g} in probability")


def _readable(photos: Sequence[Photo], count: int) -> list[Photo]:
    """Some photos that can be read, both classes in turn, the same each time."""
    rng = np.random.default_rng(0)
    turns = [rng.permutation([place for place, photo in enumerate(photos) if photo.label == label]) for label in (0, 1)]
    found: list[Photo] = []
    for place in (int(place) for pair in zip(*turns, strict=False) for place in pair):
        if len(found) == count:
            break
        try:
            data.read_photo(photos[place])
        except (InvalidImage, OSError):
            continue
        found.append(photos[place])
    if not found:
        raise InvalidDataset("no photo can be read")
    return found


def _examples(photos: Sequence[Photo], count: int = 12) -> list[tuple[str, Image.Image]]:
    """Photos of every split and class with their captions."""
    shown = []
    for split in sorted({photo.split for photo in photos}):
        here = [photo for photo in photos if photo.split == split]
        for photo in sorted(_readable(here, 2 * count), key=lambda photo: photo.label):
            caption = f"{split} {LABELS[photo.label]}\n{photo.source[:32]}\n{photo.generator[:32]}"
            shown.append((caption, data.read_photo(photo)))
    return shown


def _told(step: Callable[..., T], *given: Any) -> T:
    """Call a step whose ValueErrors are sentences for the person who gave it its arguments."""
    try:
        return step(*given)
    except FAULTS:
        raise
    except ValueError as error:
        raise InvalidRun(str(error)) from error


def _start(recipe: Recipe, head: Path | None, finished: Path | None = None) -> ConvExpert | ClipExpert:
    """A pretrained expert, or a finished one; a CLIP trunk begins from a probe's head where one is given."""
    expert: ConvExpert | ClipExpert = _told(train.start, recipe, finished)
    if head is not None:
        found = _told(probe.read, head)
        if not isinstance(expert, ClipExpert) or expert.clip != found.clip:
            raise InvalidRun(f"{head}: a head for {found.clip} does not fit {recipe.architecture}")
        probe.install(found, expert)
    return expert


def _read_teacher(path: Path | None) -> dict[str, float]:
    """Probabilities by photo path, as `probe` writes them; none without a file."""
    if path is None:
        return {}
    try:
        return {str(name): float(value) for name, value in json.loads(path.read_text(encoding="utf-8")).items()}
    except (ValueError, AttributeError, TypeError):
        raise InvalidRun(f"{path}: is not what `python -m training probe` writes") from None


def _is_taught(variant: str) -> bool:
    return variant == "clean" or variant.startswith("degraded-")


def _store(folder: Path) -> str:
    """The line that `training.store` ends in; its own process, for BentoML is nothing to load beside torch."""
    command = [sys.executable, "-m", "training.store", str(folder.resolve())]
    found = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent)  # noqa: S603 # ours
    if found.returncode:
        raise promote.InvalidGate(f"the Bento store did not take the model: {found.stderr.strip()[-200:]}")
    return found.stdout.strip()


def _commit() -> str:
    """The code's commit, with a mark where the working tree differs from it; `unknown` outside a repository."""
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent)  # noqa: S603 # a fixed command
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()
