"""The gate between a model and the default: floors, ceilings, and no step back from the present default.

Judges report.json alone; what its figures mean is `evaluate`'s.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from detector.artefact import MANIFEST, Artefact, load
from detector.errors import InvalidArtefact

Report = Mapping[str, Any]
SOURCES = "source_fpr"  # pseudo-figure: the highest share of flagged photos of any real source large enough


class InvalidGate(ValueError):
    """A gate's recipe that can't be used; one line that says why."""


class Gate(BaseModel):
    """What a model must reach on one split; figures are `<profile>.<tier>.<figure>` or `<profile>.source_fpr`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    split: str = "test"
    floors: dict[str, float] = {}
    ceilings: dict[str, float] = {}
    no_worse: tuple[str, ...] = Field((), description="figures in which the present default must not be better")
    slack: float = Field(0.002, ge=0, description="by which it may be better all the same")
    smallest_source: int = Field(20, ge=1, description="real photos that a source needs to count in source_fpr")
    largest: float = Field(80.0, gt=0, description="megabytes of the whole folder")

    @classmethod
    def read(cls, path: Path) -> "Gate":
        """A gate from YAML."""
        try:
            return cls.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
        except OSError:
            raise InvalidGate(f"{path}: there is no such gate, or it can't be read") from None
        except yaml.YAMLError:
            raise InvalidGate(f"{path.name}: is not YAML") from None
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise InvalidGate(f"{path.name}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


@dataclass(frozen=True)
class Check:
    """One thing asked of a model."""

    name: str
    wanted: str
    found: str
    passed: bool


def check(gate: Gate, candidate: Artefact, present: Artefact | None) -> list[Check]:
    """Everything the gate asks, in its order; `present` is the default as it stands, None where there is none."""
    report = candidate.document("report.json")
    checks = [_size(gate, candidate), _used(candidate)]
    for name, floor in gate.floors.items():
        value = figure(report, gate, name)
        checks.append(Check(name, f">= {floor:g}", _tell(value), value is not None and value >= floor))
    for name, ceiling in gate.ceilings.items():
        value = figure(report, gate, name)
        checks.append(Check(name, f"<= {ceiling:g}", _tell(value), value is not None and value <= ceiling))
    if present is not None:
        checks += _compare(gate, report, present.document("report.json"))
    return checks


def figure(report: Report, gate: Gate, name: str) -> float | None:
    """A figure by its name; None where the report has none. InvalidGate where it could never have one."""
    profile, *path = name.split(".")
    judged = report.get("profiles", {}).get(profile, {}).get("splits", {}).get(gate.split)
    if path == [SOURCES]:
        groups = judged["groups"]["sources"].values() if judged else ()
        large = [group["real"] for group in groups if group["real"]["photos"] >= gate.smallest_source]
        return max((float(group["flagged"]["share"]) for group in large), default=None)
    if len(path) != 2:
        raise InvalidGate(f"{name}: names no figure; write <profile>.<tier>.<figure> or <profile>.{SOURCES}")
    tier, wanted = path
    found = judged["tiers"].get(tier, {}).get(wanted) if judged else None
    return None if found is None else found["value"]


def table(checks: Sequence[Check]) -> str:
    """The checks as lines to read, what failed first."""
    width = max(len(check.name) for check in checks)
    ordered = sorted(checks, key=lambda check: check.passed)
    return "\n".join(
        f"{'ok  ' if check.passed else 'FAIL'} {check.name:<{width}}  wanted {check.wanted}, is {check.found}"
        for check in ordered
    )


def install(candidate: Artefact, default: Path) -> None:
    """Put a model's files in the place of the default, whole or not at all."""
    default.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=default.parent, prefix=".promoting-") as scratch:
        fresh, old = Path(scratch) / "new", Path(scratch) / "old"
        fresh.mkdir()
        for name in (MANIFEST, *candidate.manifest.files):
            shutil.copyfile(candidate.folder / name, fresh / name)
        load(fresh)
        if default.exists():
            default.rename(old)
        try:
            fresh.rename(default)
        except BaseException:  # an interruption must not leave no default at all
            if old.exists():
                old.rename(default)
            raise


def present_default(default: Path) -> Artefact | None:
    """The default as it stands; None where there is none that can be trusted."""
    try:
        return load(default)
    except InvalidArtefact:
        return None


def _size(gate: Gate, candidate: Artefact) -> Check:
    megabytes = sum((candidate.folder / name).stat().st_size for name in candidate.manifest.files) / 1e6
    return Check("megabytes", f"<= {gate.largest:g}", f"{megabytes:.1f}", megabytes <= gate.largest)


def _used(candidate: Artefact) -> Check:
    """An expert that no profile asks would be carried and loaded for nothing."""
    used = {name for fusion in candidate.spec.profiles.values() for name in fusion.weights}
    idle = [expert.name for expert in candidate.spec.experts if expert.name not in used]
    return Check("experts without a profile", "none", ", ".join(idle) or "none", not idle)


def _compare(gate: Gate, report: Report, present: Report) -> Iterator[Check]:
    """Against the default, where both were judged by the same photos."""
    if not present.get("profiles"):
        return  # a default that was never judged can't be better
    same = report.get("data", {}).get("hash") == present.get("data", {}).get("hash")
    if gate.no_worse and not same:
        yield Check("photos judged by", "the default's", "others: evaluate the default on these", False)
        return
    for name in gate.no_worse:
        mine, theirs = figure(report, gate, name), figure(present, gate, name)
        if theirs is None:
            continue
        rises = not name.endswith((SOURCES, ".fpr", ".ece", ".log_loss"))
        bound = theirs - gate.slack if rises else theirs + gate.slack
        passed = mine is not None and (mine >= bound if rises else mine <= bound)
        wanted = f"{'>=' if rises else '<='} {bound:.4f}, the default's"
        yield Check(f"{name} (default)", wanted, _tell(mine), passed)


def _tell(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
