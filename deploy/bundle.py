"""bentofile.yaml -> a folder with the Bento, its model and its lock: all that an image needs, and its build context.

Images are deploy/Dockerfile's. BentoML's own containerize is left alone: it installs a compiler into the image,
without hashes, and BentoML 1.4.39 takes no Dockerfile of ours for it.
"""

import argparse
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import bentoml
import yaml
from bentoml.models import BentoModel

ROOT = Path(__file__).parent.parent
LOCKS = {"cpu": "requirements-serve.lock", "gpu": "requirements-gpu.lock"}


def bundle(flavour: str, folder: Path) -> str:
    """Build the Bento of a flavour, lay it out in `folder` (emptied first) and return its tag."""
    with TemporaryDirectory() as scratch:
        definition = Path(scratch) / "bentofile.yaml"
        definition.write_text(yaml.safe_dump(_definition(flavour)), encoding="utf-8")
        bento = bentoml.bentos.build_bentofile(str(definition), build_ctx=str(ROOT))
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(bento.path, folder)
    models = folder / "models"
    models.mkdir()
    for model in bento.info.all_models:
        BentoModel(model.tag).resolve(models)
    shutil.copyfile(ROOT / LOCKS[flavour], folder / "requirements.lock")  # BentoML's copy has lost a hash
    _open_to_readers(folder)
    return str(bento.tag)


def _definition(flavour: str) -> dict[str, Any]:
    definition: dict[str, Any] = yaml.safe_load((ROOT / "bentofile.yaml").read_text(encoding="utf-8"))
    definition["python"]["requirements_txt"] = f"./{LOCKS[flavour]}"
    definition["labels"]["flavour"] = flavour
    return definition


def _open_to_readers(folder: Path) -> None:
    """The store keeps its files from other users; an image's user owns none of them, reads all and writes none."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.bundle", description=__doc__)
    parser.add_argument("flavour", choices=LOCKS)
    parser.add_argument("folder", type=Path, help="where it goes; what is there is removed")
    options = parser.parse_args()
    print(f"Bento {bundle(options.flavour, options.folder)} in {options.folder}")


if __name__ == "__main__":
    main()
