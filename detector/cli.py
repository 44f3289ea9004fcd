"""`detector`: the service from a shell. Prints tables for people and JSON for scripts; talks through the client alone.
`detector scan` needs no service; its own package does it.

Exit codes: 0 every photo judged, 1 a label that --fail-on names or a drift, 2 wrong usage, 3 a photo that could not be
judged, 4 the service does not answer or refuses the caller.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import get_args

import httpx

from detector import words
from detector.client import Client, Retry, Source
from detector.errors import DetectorError
from detector.scan.options import add_options
from detector.schema import BatchVerdict, Colormap, Label, OverlayFormat

FOUND, WRONG_USAGE, UNJUDGED, NO_SERVICE = 1, 2, 3, 4
_NO_ANSWER = {401, 403, 404, 429, 503}


def main(
    arguments: Sequence[str] | None = None,
    environ: Mapping[str, str] | None = None,
    transport: httpx.BaseTransport | None = None,
) -> int:
    """Run one command and return its exit code; `transport` is for tests."""
    options = _parser().parse_args(arguments)
    if options.command == "scan":
        return _scan(options)
    client = Client(
        options.address,
        timeout=options.timeout,
        retry=Retry(deadline=options.timeout),
        environ=environ,
        transport=transport,
    )
    run: Callable[[Client, argparse.Namespace], int] = options.run
    try:
        with client:
            return run(client, options)
    except DetectorError as error:
        print(f"{error.detail} [{error.code}]", file=sys.stderr)
        return NO_SERVICE if error.status in _NO_ANSWER else UNJUDGED
    except OSError as error:
        print(f"{error.filename or 'The file'}: {error.strerror}", file=sys.stderr)
        return UNJUDGED


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--address", help="the service (PPD_ADDRESS; else http://localhost:3000)")
    shared.add_argument("--timeout", type=float, default=60.0, help="seconds until giving up (60)")
    shared.add_argument("--json", action="store_true", help="print the service's answer as JSON")
    parser = argparse.ArgumentParser(
        prog="detector",
        description="Tell AI-generated product photos from photographs. A verdict is an estimate, not proof.",
        epilog="The API key is read from PPD_API_KEY. " + (__doc__ or "").split("\n\n")[1].replace("\n", " "),
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    check = commands.add_parser("check", parents=[shared], help="judge photos")
    check.add_argument("photos", nargs="+", metavar="PHOTO", help="a file, a web address, or - for standard input")
    check.add_argument("--fail-on", action="append", choices=get_args(Label), default=[], help="exit 1 on this label")
    check.set_defaults(run=_check)
    explain = commands.add_parser("explain", parents=[shared], help="draw where in a photo the evidence lies")
    explain.add_argument("photo", metavar="PHOTO")
    explain.add_argument("-o", "--output", type=Path, required=True, help="the overlay's file, .png or .jpg")
    explain.add_argument("--alpha", type=float, help="opacity of the heat map, 0..1")
    explain.add_argument("--colormap", choices=get_args(Colormap))
    explain.set_defaults(run=_explain)
    health = commands.add_parser("health", parents=[shared], help="ask the service how it is")
    health.set_defaults(run=_health)
    drift = commands.add_parser("drift", parents=[shared], help="ask whether photos are still as the model knows them")
    drift.set_defaults(run=_drift)
    scan = commands.add_parser("scan", help="judge a whole catalogue here or on a Ray cluster, without a service")
    add_options(scan)
    return parser


def _scan(options: argparse.Namespace) -> int:
    """Imported here, for a client has neither the networks' engine nor the tables'."""
    try:
        from detector.scan import command
    except ImportError as error:
        print(f"This needs the extra `scan` ({error.name} is not installed).", file=sys.stderr)
        return WRONG_USAGE
    code: int = command.main(options)
    return code


def _source(name: str) -> Source:
    return sys.stdin.buffer if name == "-" else name


def _check(client: Client, options: argparse.Namespace) -> int:
    answer = client.predict_batch([_source(name) for name in options.photos])
    if options.json:
        print(answer.model_dump_json(indent=2))
    else:
        _print_table(["photo", "verdict", "AI probability", "confidence"], _rows(options.photos, answer))
    errors = [item.error for item in answer.items if item.error]
    if errors:
        return NO_SERVICE if any(error.status in _NO_ANSWER for error in errors) else UNJUDGED
    found = any(item.verdict and item.verdict.label in options.fail_on for item in answer.items)
    return FOUND if found else 0


def _rows(names: Sequence[str], answer: BatchVerdict) -> list[list[str]]:
    rows = []
    for name, item in zip(names, answer.items, strict=True):
        verdict = item.verdict
        if verdict:
            rows.append([name, words.headline(verdict.label), words.percent(verdict.probability), verdict.confidence])
        else:
            rows.append([name, str(item.error), "", ""])
    return rows


def _explain(client: Client, options: argparse.Namespace) -> int:
    form: OverlayFormat = "jpeg" if options.output.suffix.lower() in {".jpg", ".jpeg"} else "png"
    answer = client.explain(_source(options.photo), alpha=options.alpha, colormap=options.colormap, format=form)
    answer.overlay.save(options.output)
    if options.json:
        pictures = {"overlay": {"data"}, "heatmap": {"data"}}
        print(answer.model_dump_json(indent=2, exclude=pictures))
    else:
        print(f"{answer}\n{options.output} shows where.")
    return 0


def _health(client: Client, options: argparse.Namespace) -> int:
    answer = client.health()
    if options.json:
        print(answer.model_dump_json(indent=2))
    else:
        model = answer.model
        named = f"{model.name} {model.version} ({model.profile})" if model else "none"
        rows = [[answer.status, named, answer.device or "none", f"{answer.uptime:.0f} s"]]
        _print_table(["status", "model", "device", "uptime"], rows)
    return 0 if answer.status == "ok" else NO_SERVICE


def _drift(client: Client, options: argparse.Namespace) -> int:
    """Exit code 1 is the alarm."""
    answer = client.drift()
    print(answer.model_dump_json(indent=2) if options.json else answer)
    return FOUND if answer.verdict == "drifted" else 0


def _print_table(header: list[str], rows: list[list[str]]) -> None:
    """With rich where it is installed (the `cli` extra), else in plain columns; control characters are made visible."""
    rows = [[_visible(cell) for cell in row] for row in rows]
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
        for row in [header, *rows]:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        return
    table = Table(*header)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def _visible(text: str) -> str:
    """A file's name may hold escape sequences that would write over a terminal."""
    return "".join(sign if sign.isprintable() else json.dumps(sign)[1:-1] for sign in text)


if __name__ == "__main__":
    sys.exit(main())
