"""A model folder -> the local Bento store, once per content.

Needs no torch: `make serve` runs it. The version in the store is the head of the model's own hash, so the same
folder is never stored twice and a changed one never takes another's place.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

import bentoml
from bentoml.exceptions import NotFound

from detector.artefact import MANIFEST, Artefact, load
from detector.errors import InvalidArtefact


def store(folder: Path) -> str:
    """Put a verified model folder into the store and return its tag; InvalidArtefact where it can't be trusted."""
    artefact = load(folder)
    tag = f"{artefact.spec.name}:{artefact.manifest.hash[:12]}"
    try:
        return str(bentoml.models.get(tag).tag)
    except NotFound:
        pass
    # Custom objects would be pickled; the folder's own JSON carries everything, so there are none.
    with bentoml.models.create(tag, module="detector.artefact", labels=_labels(artefact)) as model:
        for name in (MANIFEST, *artefact.manifest.files):
            shutil.copyfile(folder / name, Path(model.path) / name)
    return str(model.tag)


def _labels(artefact: Artefact) -> dict[str, str]:
    return {
        "version": artefact.manifest.version,
        "hash": artefact.manifest.hash[:12],
        "experts": ".".join(expert.name for expert in artefact.spec.experts),
        **{
            name: str(value)
            for name, value in json.loads((artefact.folder / "report.json").read_bytes())["labels"].items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.store", description=__doc__)
    parser.add_argument("folder", type=Path, help="a sealed model folder")
    try:
        print(f"Model in the Bento store: {store(parser.parse_args().folder)}")
    except InvalidArtefact as error:
        sys.exit(error.detail)


if __name__ == "__main__":
    main()
