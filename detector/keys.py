"""Mint, list and revoke API keys: `python -m detector.keys keys.json mint desk --scopes predict,batch --days 90`.

A command line over `keyring`; a running service takes a change within a second. Rotation is a second key of the same
name, and a revocation of the first once nobody uses it.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from detector import keyring
from detector.errors import InvalidSettings


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        said = {"mint": _mint, "list": _list, "revoke": _revoke}[options.command](options)
    except InvalidSettings as error:
        print(error.detail, file=sys.stderr)
        return 1
    print(said)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m detector.keys", description="API keys of the service")
    parser.add_argument("file", type=Path, help="the key file (auth.keys_file)")
    commands = parser.add_subparsers(dest="command", required=True)
    mint = commands.add_parser("mint", help="make a key and print it, this once")
    mint.add_argument("name", help="whose it is; keys of one name share one budget")
    mint.add_argument("--scopes", default="predict", help="of " + ",".join(get_args(keyring.Scope)))
    mint.add_argument("--days", type=_days, help="until it expires; without, it does not")
    commands.add_parser("list", help="names, scopes and state; never a key")
    commands.add_parser("revoke", help="end a key now").add_argument("id")
    return parser


def _days(text: str) -> int:
    days = int(text)
    if not 1 <= days <= 3650:
        raise ValueError
    return days


def _mint(options: argparse.Namespace) -> str:
    keys = keyring.read(options.file) if options.file.exists() else {}
    try:
        text, kept = keyring.mint(options.name, options.scopes.split(","), keyring.now(), options.days)
    except ValidationError:
        raise InvalidSettings(
            "A name has letters, digits, `.`, `_` and `-`, at most 64; scopes are "
            f"{', '.join(get_args(keyring.Scope))}, with commas between."
        ) from None
    keyring.write(options.file, keys | {kept.id: kept})
    return text


def _list(options: argparse.Namespace) -> str:
    now, lines = (
        keyring.now(),
        ["id            state    expires     scopes                                        name"],
    )
    for key in keyring.read(options.file).values():
        expires = f"{key.expires:%Y-%m-%d}" if key.expires else "never"
        lines.append(f"{key.id}  {key.state(now):7}  {expires:10}  {','.join(key.scopes):44}  {key.name}")
    return "\n".join(lines)


def _revoke(options: argparse.Namespace) -> str:
    keys = keyring.read(options.file)
    key = keys.get(options.id)
    if key is None:
        raise InvalidSettings(f"There is no key with id {options.id}.")
    keyring.write(options.file, keys | {key.id: key.model_copy(update={"revoked": keyring.now()})})
    return f"{key.id} ({key.name}) is revoked."


if __name__ == "__main__":
    sys.exit(main())
