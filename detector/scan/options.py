"""The options of `detector scan`, and nothing heavier: a client's command line imports this."""

import argparse
from pathlib import Path
from typing import get_args

from detector.schema import Label

EPILOG = """Exit codes: 0 finished (broken photos are rows with an error code), 1 a label that --fail-on names, 2 wrong
usage or a folder of another scan, 3 finished, but photos could not be fetched (run again with --retry), 4 the model
can't be used, 130 interrupted: the same command goes on where it was."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument("source", metavar="SOURCE", help="a folder, a glob, a manifest (.csv, .parquet) or one photo")
    parser.add_argument("--out", required=True, metavar="RESULTS", help="folder of this scan; an earlier one goes on")
    parser.add_argument("--format", choices=("parquet", "csv", "jsonl"), default="parquet", help="of the results")
    parser.add_argument("--dry-run", action="store_true", help="list, judge a few photos, estimate; write nothing")
    parser.add_argument("--fail-on", action="append", choices=get_args(Label), default=[], help="exit 1 on this label")
    parser.add_argument("--retry", action="store_true", help="judge parts again whose photos could not be fetched")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    _add_reading(parser.add_argument_group("reading"))
    _add_judging(parser.add_argument_group("judging"))
    _add_reporting(parser.add_argument_group("reporting"))
    _add_fleet(parser.add_argument_group("fleet"))


def _add_reading(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--column", help="the manifest's column of paths or addresses (path, url, image, ...)")
    group.add_argument("--source-column", help="whom a photo is counted for (source; else its folder or server)")
    group.add_argument("--id-column", help="a name of your own, kept beside the verdict (id)")
    group.add_argument("--allow-http", action="store_true", help="fetch web addresses that the manifest names")
    group.add_argument("--allow-private", action="store_true", help="even such that lead into a private network")
    group.add_argument("--readers", type=_count, help="photos fetched at once (8; 32 from elsewhere)")


def _add_judging(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--model", type=Path, help="a model folder (the embedded one)")
    group.add_argument("--config", type=Path, help="a configuration.yaml (PPD_CONFIG, else the defaults)")
    group.add_argument("--part-size", type=_count, default=500, help="photos in one file of results (500)")
    group.add_argument("--workers", type=_count, help="threads that decode (one a core)")
    group.add_argument("--near-duplicates", action="store_true", help="group photos that look alike")


def _add_reporting(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--report", type=Path, help="write a page of HTML that needs nothing else")
    group.add_argument("--thumbnails", type=int, default=0, metavar="N", help="show so many of the flagged in it (0)")


def _add_fleet(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--engine", choices=("local", "ray"), default="local", help="this machine, or a Ray cluster")
    group.add_argument("--ray-address", help="the cluster (RAY_ADDRESS; else one is started on this machine)")
    group.add_argument("--min-workers", type=_count, default=1, help="Ray workers to begin with (1)")
    group.add_argument("--max-workers", type=_count, help="Ray workers at most (as many as fit)")
    group.add_argument("--worker-cpus", type=_count, default=2, help="cores of one Ray worker (2)")
    group.add_argument("--worker-gpus", type=float, default=0.0, help="GPUs of one Ray worker, .5 for two on one (0)")


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number
