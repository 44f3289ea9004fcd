"""The arrows of docs/architecture.md: imports point down, and heavy engines stay in their rooms."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = (
    {"words"},
    {"errors", "schema", "metrics", "address", "shutdown", "logs", "rows"},
    {
        "config",
        "container",
        "preprocess",
        "calibration",
        "networks",
        "facts",
        "divergence",
        "link",
        "keyring",
        "tokens",
        "stages",
    },
    {
        "image",
        "ensemble",
        "provenance",
        "auth",
        "cache",
        "ratelimit",
        "keys",
        "decisions",
        "photos",
        "windows",
        "comparison",
    },
    {"artefact", "runtime", "explain", "drift"},
    {"pipeline", "client", "problems", "watch", "stream"},
    {"forms", "exchange", "openapi", "rollout"},
    {"asgi"},
    {"assembly"},
    {"scan"},
    {"cli"},
)
SCAN = (
    {"options", "storage", "results", "progress"},
    {"web", "sources", "register", "run"},
    {"fetch", "listing", "summary"},
    {"engine", "report", "likeness"},
    {"job", "local"},
    {"fleet"},
    {"command"},
)
PROVENANCE = (
    {"vocabulary", "blocks"},
    {"xmp", "iptc", "exif", "text", "tc260", "samsung", "manifest"},
    {"judge", "reading"},
    {"policy", "compliance"},
)
HEIGHT = {name: height for height, names in enumerate(LAYERS) for name in names}
INNER_HEIGHT = {name: height for height, names in enumerate(PROVENANCE) for name in names}
OWNERS = {
    "c2pa": {"manifest"},
    "torch": {"runtime", "networks"},
    "openvino": {"runtime", "stream"},
    "starlette": {"asgi", "exchange", "forms", "problems"},
    "redis": {"link"},
    "sqlite3": {"decisions", "register", "summary"},
    "jwt": {"tokens"},
    "limits": {"ratelimit"},
    "prometheus_client": {"metrics", "comparison"},
    "structlog": {"logs"},
    "opentelemetry": {"logs", "stages"},
    "psutil": {"shutdown"},
    "httpx": {"client", "cli", "comparison", "web"},
    "fsspec": {"storage", "sources"},
    "ray": {"fleet"},
    "rich": {"cli", "progress", "report"},
    "jinja2": {"report"},
}
PROVENANCE_MODULES = sorted(path for path in (ROOT / "detector/provenance").glob("*.py") if path.stem != "__init__")
SCAN_MODULES = sorted(path for path in (ROOT / "detector/scan").glob("*.py") if path.stem != "__init__")
PACKAGES = {"detector", "client", "scan"}
MODULES = sorted(path for path in (ROOT / "detector").rglob("*.py") if path.parent.name in PACKAGES)
MODULES = [path for path in MODULES if path.parent.name != "detector" or not path.stem.startswith("__")]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def part_of(path: Path) -> str:
    """The module's part: its package, or itself."""
    return path.parent.name if path.parent.name != "detector" else path.stem


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{part_of(path)}.{path.stem}")
def test_a_module_imports_only_from_lower_layers(path: Path) -> None:
    parts = {name.split(".")[1] for name in imports(path) if name.startswith("detector.")}
    for part in parts & HEIGHT.keys() - {part_of(path)}:
        assert HEIGHT[part] < HEIGHT[part_of(path)], f"{path.stem} imports {part}"


@pytest.mark.parametrize("path", PROVENANCE_MODULES, ids=lambda path: path.stem)
def test_a_part_of_provenance_imports_only_from_its_lower_layers(path: Path) -> None:
    names = imports(path)
    inner = {name.split(".")[2] for name in names if name.startswith("detector.provenance.")}
    outer = {name.split(".")[1] for name in names if name.startswith("detector.")} - {"provenance"}
    for part in inner & INNER_HEIGHT.keys():
        assert INNER_HEIGHT[part] < INNER_HEIGHT[path.stem], f"{path.stem} imports {part}"
    assert all(HEIGHT[part] < HEIGHT["provenance"] for part in outer)


@pytest.mark.parametrize("path", SCAN_MODULES, ids=lambda path: path.stem)
def test_a_part_of_a_scan_imports_only_from_its_lower_layers(path: Path) -> None:
    height = {name: height for height, names in enumerate(SCAN) for name in names}
    names = {name.removeprefix("detector.scan.").split(".")[0] for name in imports(path) if ".scan." in name}
    for part in names & height.keys():
        assert height[part] < height[path.stem], f"{path.stem} imports {part}"


@pytest.mark.parametrize("path", MODULES + PROVENANCE_MODULES, ids=lambda path: f"{part_of(path)}.{path.stem}")
def test_a_module_stays_out_of_rooms_that_are_not_its_own(path: Path) -> None:
    roots = {name.split(".")[0] for name in imports(path)}
    assert not roots & {"bentoml", "gradio", "training", "gradio_app", "service"}
    for engine, owners in OWNERS.items():
        assert engine not in roots or {part_of(path), path.stem} & owners, f"{path.stem} imports {engine}"


@pytest.mark.parametrize("module", ["detector.schema", "detector.errors", "detector.client", "detector.cli"])
def test_what_a_client_imports_loads_nothing_heavy(module: str) -> None:
    heavy = {"torch", "bentoml", "gradio", "openvino", "numpy", "PIL", "starlette", "yaml", "pyarrow", "fsspec", "ray"}
    code = f"import sys, {module}; print(sorted({heavy} & sys.modules.keys()))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("path", sorted((ROOT / "gradio_app").glob("*.py")), ids=lambda path: path.stem)
def test_the_page_knows_the_service_through_the_client_alone(path: Path) -> None:
    parts = {name.split(".")[1] for name in imports(path) if name.startswith("detector.")}
    assert parts <= {"client", "errors", "schema", "words"}
    roots = {name.split(".")[0] for name in imports(path)}
    assert not roots & {"bentoml", "torch", "httpx", "service", "training"}
    assert "gradio" not in roots or path.stem in {"page", "look"}
