"""A signer that the readers here trust, one that no one trusts, and the original files."""

import csv
import os
from pathlib import Path

import pytest

from detector.provenance.reading import FileReader
from tests.provenance.signing import Authority, Signing

ROOT = Path(__file__).parents[2]


def originals() -> Path | None:
    """The folder of original files, where this machine has it."""
    folder = Path(os.environ.get("PPD_DATA", ROOT.parent / "shared/data")) / "provenance"
    return folder if (folder / "table.csv").exists() else None


def table() -> list[dict[str, str]]:
    folder = originals()
    if not folder:
        return []
    with (folder / "table.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="session")
def maker(authority: Authority) -> Signing:
    return authority.issue("Maker Inc.")


@pytest.fixture(scope="session")
def stranger() -> Signing:
    """A signer whose root is on no list."""
    return Authority("Unknown root").issue("Stranger")


@pytest.fixture(scope="session")
def reader(authority: Authority) -> FileReader:
    return FileReader(authority.root)
