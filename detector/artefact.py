"""The model folder: spec, networks, weights, calibration, baseline, report; read, verified, sealed.

Knows neither the Bento store (service.py and training do) nor how a network runs. Nothing here unpickles:
weights are safetensors, the rest is JSON and OpenVINO IR.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from detector.calibration import Calibration
from detector.ensemble import Spec
from detector.errors import InvalidArtefact
from detector.schema import ModelInfo

MANIFEST = "manifest.json"
DOCUMENTS = ("spec.json", "calibration.json", "baseline.json", "report.json")


class Manifest(BaseModel):
    """manifest.json: SHA-256 of every other file of the folder, by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    files: dict[str, str]

    @property
    def hash(self) -> str:
        """One SHA-256 for the whole model; a changed byte anywhere changes it."""
        return hashlib.sha256(json.dumps(self.files, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Artefact:
    """A verified model folder."""

    folder: Path
    spec: Spec
    calibrations: dict[str, Calibration]
    manifest: Manifest

    def document(self, name: str) -> Any:
        """The content of baseline.json or report.json."""
        return json.loads((self.folder / name).read_bytes())

    def info(self, profile: str) -> ModelInfo:
        return ModelInfo(name=self.spec.name, version=self.manifest.version, hash=self.manifest.hash, profile=profile)


def seal(folder: Path, version: str) -> Manifest:
    """Write the manifest of a finished folder and return it."""
    names = sorted(path.name for path in folder.iterdir() if path.name != MANIFEST)
    manifest = Manifest(version=version, files={name: _sha256(folder / name) for name in names})
    (folder / MANIFEST).write_text(json.dumps(manifest.model_dump(), indent=1) + "\n", encoding="utf-8")
    return manifest


def load(folder: Path) -> Artefact:
    """Read a model folder and check every hash; InvalidArtefact, in one line, where parts are missing or altered."""
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except OSError:
        raise InvalidArtefact(f"There is no model in {folder} ({MANIFEST} is missing).") from None
    except ValidationError:
        raise InvalidArtefact(f"The model's {MANIFEST} is damaged.") from None
    for name in (*DOCUMENTS, *manifest.files):
        _verify(folder, name, manifest)
    spec, calibrations = _parse(folder)
    for name in (name for expert in spec.experts for name in (expert.network, *expert.weights)):
        if name not in manifest.files:
            raise InvalidArtefact(f"The model's {name} is named in spec.json but not in {MANIFEST}.")
    if spec.profiles.keys() != calibrations.keys():
        raise InvalidArtefact("The model's spec.json and calibration.json name different profiles.")
    return Artefact(folder, spec, calibrations, manifest)


def _verify(folder: Path, name: str, manifest: Manifest) -> None:
    try:
        intact = _sha256(folder / name) == manifest.files.get(name)
    except OSError:
        raise InvalidArtefact(f"The model's {name} is missing.") from None
    if not intact:
        raise InvalidArtefact(f"The model's {name} is not the file it was when the model was made (hash differs).")


def _parse(folder: Path) -> tuple[Spec, dict[str, Calibration]]:
    try:
        spec = Spec.model_validate_json((folder / "spec.json").read_bytes())
        calibrations = TypeAdapter(dict[str, Calibration]).validate_json((folder / "calibration.json").read_bytes())
    except ValidationError as error:
        raise InvalidArtefact(f"The model's {error.title} does not have the form this version reads.") from None
    return spec, calibrations


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
