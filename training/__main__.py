"""`python -m training <command>`: the way from photos to the default model, a command a step.

Reads the command line and turns every fault into one line; the steps themselves are `commands`.
"""

import argparse
import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

DEFAULT = Path("detector/default_model")
RUNS = Path("runs")
DATA = "TRAINING_DATA"  # not PPD_...: the service refuses what is none of its settings
FAULT, INTERRUPTED = 2, 130  # exit statuses


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    given = _parser().parse_args(arguments)
    before = {sent: signal.signal(sent, _interrupt) for sent in (signal.SIGINT, signal.SIGTERM)}
    try:
        from training import commands  # after the arguments, for it loads torch

        status: int = commands.COMMANDS[given.command](given)
        return status
    except KeyboardInterrupt:
        print("\nInterrupted; the same command goes on where it was.", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        line = _sentence(error)
        if line is None:
            raise
        print(f"training {given.command}: {line}", file=sys.stderr)
        return FAULT
    finally:
        for sent, handler in before.items():
            signal.signal(sent, handler)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _sentence(error: BaseException) -> str | None:
    """A foreseeable fault in one line; None for what is a mistake of ours and deserves its traceback."""
    from training.commands import FAULTS

    if _is_full(error):
        return "the disk is full; free some space and run the same command again"
    if isinstance(error, FAULTS):
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return None


def _is_full(error: BaseException | None) -> bool:
    """safetensors and SQLite say it in words of their own."""
    while error is not None:
        words = str(error)
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in words or "disk is full" in words:
            return True
        error = error.__cause__ or error.__context__
    return False


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description="From photos to the default model.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    def add(name: str, meaning: str, *options: Callable[[argparse.ArgumentParser], None]) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=meaning, description=f"{meaning[0].upper()}{meaning[1:]}.")
        for option in options:
            option(command)
        return command

    inspected = add("data", "check photos: unreadable ones, twins, leaks, balance", _data)
    inspected.add_argument("--sheet", type=Path, help="also write a picture with photos of every split and class")
    sheet = add("augment", "write a picture of what every degradation does", _data)
    sheet.add_argument("--sheet", type=Path, default=RUNS / "augment.png", help="the picture")
    sheet.add_argument("--photos", type=int, default=6, help="columns of the picture")
    cached = add("features", "what the frozen CLIP trunk says of every photo, kept on disk", _data)
    cached.add_argument("--taps", type=int, nargs="+", default=[6, 8, 10], help="blocks after which it is read")
    cached.add_argument("--side", type=int, default=224, help="of what the trunk looks at, in pixels")
    cached.add_argument("--size", type=int, help="of the views, a multiple of the side; the same if not given")
    cached.add_argument("--copies", type=int, default=3, help="degraded copies of each training photo")
    cached.add_argument("--lessons", action="store_true", help="also keep what `train --lessons` learns from")
    cached.add_argument("--folder", type=Path, default=RUNS / "features")
    probed = add("probe", "a linear head on the features, and probabilities that teach another expert", _data)
    probed.add_argument("--features", type=Path, default=RUNS / "features")
    probed.add_argument("--taps", type=int, nargs="+", help="of those in the features; all if not given")
    probed.add_argument("--strength", type=float, default=0.001, help="C of the logistic regression")
    probed.add_argument("--share", type=float, default=0.4, help="what a degraded copy counts beside the photo")
    probed.add_argument("--folder", type=Path, default=RUNS / "probe", help="where head and teacher go")
    weighed = add("overrun", "how often a threshold overruns its budget on sources that did not set it", _data)
    weighed.add_argument("--teacher", type=Path, default=RUNS / "probe" / "teacher.json", help="see probe")
    weighed.add_argument("--photos", type=int, default=550, help="real photos that set a threshold")
    weighed.add_argument("--budget", type=float, default=0.01, help="share of real photos that may be flagged")
    trained = add("train", "fine-tune an expert by a recipe; goes on from its last checkpoint", _data, _runs, _taught)
    trained.add_argument("recipe", type=Path, help="YAML, such as training/recipes/b0.yaml")
    trained.add_argument("--lessons", type=Path, help="features taken with --lessons, for a student of the trunk")
    trained.add_argument("--further", type=Path, help="a finished convolutional expert's safetensors, to go on from")
    trained.add_argument("--folder", type=Path, help="where checkpoints go; RUNS/<name of the recipe> if not given")
    tuned = add("tune", "search recipes; goes on with the search in its folder", _data, _taught)
    tuned.add_argument("recipe", type=Path, help="the recipe that is varied")
    tuned.add_argument("--space", type=Path, default=Path(__file__).parent / "space.yaml")
    tuned.add_argument("--trials", type=int, default=20, help="finished or pruned trials to come to")
    tuned.add_argument("--folder", type=Path, default=RUNS / "tune")
    exported = add("export", "trained experts to a model folder, checked against torch", _data, _model)
    exported.add_argument("experts", type=Path, help="YAML that lists the experts, their weights and views")
    exported.add_argument("--fast", help="the expert that is the profile fast; the first one if not given")
    scored = add("score", "what every expert says of every photo, in every tier", _data, _model, _runs)
    scored.add_argument("--splits", nargs="+", default=["val"], help="which photos")
    settled = add("calibrate", "fuse and calibrate a model on val, and write its baseline", _data, _model, _runs)
    settled.add_argument("--split", default="val", help="the photos to fit on")
    settled.add_argument("--accurate", nargs="+", help="the experts of the profile accurate; all if not given")
    settled.add_argument("--fast", help="the expert of the profile fast; as the folder has it if not given")
    settled.add_argument("--budget", type=float, default=0.01, help="share of real photos that may be flagged")
    settled.add_argument("--misses", type=float, default=0.05, help="share of ai photos that may be called real")
    settled.add_argument("--confidence", type=float, default=0.9, help="that others keep the budget (0 .. 1)")
    judged = add("evaluate", "judge a calibrated model; writes its report.json and pictures", _data, _model, _runs)
    judged.add_argument("--splits", nargs="+", default=["val"], help="the last one is quoted in the model's labels")
    judged.add_argument("--rounds", type=int, default=500, help="resamples of the sources behind an interval")
    judged.add_argument("--notes", type=Path, help="text for the card: what the worst errors have in common")
    pulled = add("feedback", "photos that people labelled through the service, as a manifest for the next run")
    pulled.add_argument("records", type=Path, help="the service's file of decision records (decisions.path)")
    pulled.add_argument("--photos", type=Path, required=True, help="decisions.photos, or a folder of your own photos")
    pulled.add_argument("--out", type=Path, default=RUNS / "feedback", help="where photos and manifest.csv go")
    card = add("card", "write the model card from a model's report")
    card.add_argument("--model", type=Path, default=DEFAULT, help="the model folder")
    card.add_argument("--out", type=Path, default=Path("docs/model-card.md"), help="the page")
    promoted = add(
        "promote", "put a model into the Bento store and in the default's place, past the gate", _data, _model
    )
    promoted.add_argument("--gate", type=Path, default=Path(__file__).parent / "gate.yaml")
    promoted.add_argument("--default", type=Path, default=DEFAULT, help="the folder of the default model")
    promoted.add_argument("--version", help="the model's version; the product's own if not given")
    return parser


def _data(command: argparse.ArgumentParser) -> None:
    given = os.environ.get(DATA)
    meaning = f"manifest.csv, or a folder of real/ and ai/ (default: ${DATA})"
    command.add_argument("--data", type=Path, default=given and Path(given), required=not given, help=meaning)


def _model(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", type=Path, default=RUNS / "model", help="the model folder")


def _taught(command: argparse.ArgumentParser) -> None:
    command.add_argument("--teacher", type=Path, help="probabilities to learn from beside the labels; see probe")
    command.add_argument("--head", type=Path, help="a probe's head that a CLIP trunk begins with")
    command.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto", help="what learns")


def _runs(command: argparse.ArgumentParser) -> None:
    command.add_argument("--runs", type=Path, default=RUNS, help="where scores and pictures go")


if __name__ == "__main__":
    sys.exit(main())
