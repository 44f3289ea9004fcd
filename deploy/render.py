"""`python -m deploy.render [VALUES.yaml ...]`: lint the chart and write what it renders to, with Helm's own engine.

Without a file every one under ci/ is taken. Reaches no cluster; tests/test_helm.py asks whether manifests are right.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import helm_python

ROOT = Path(__file__).parent.parent
CHART = ROOT / "deploy" / "helm" / "product-photo-detector"
OUT = ROOT / "build" / "helm"


def main() -> None:
    import helm_python  # its Go runtime starts with the import

    files = [Path(name) for name in sys.argv[1:]] or sorted((CHART / "ci").glob("*-values.yaml"))
    with helm_python.Chart.load(CHART) as chart:
        complaints = [line for path in files for line in render(chart, path, OUT)]
    raise SystemExit("\n".join(complaints) or None)


def render(chart: "helm_python.Chart", path: Path, out: Path) -> list[str]:
    """Write the manifests of one values file under `out`; returns what is wrong, one line each."""
    import helm_python

    try:
        values = helm_python.values_from_yaml(path.read_text("utf-8"))
        report = helm_python.lint(CHART, values, strict=True)
        found = [message["error"] for message in report["messages"] if message["severity"] > 1] + report["errors"]
        if not found:
            write(chart.render(values, name="release", namespace="default"), out / path.stem)
    except (OSError, helm_python.HelmError) as error:
        found = [str(error)]
    return [f"{path.name}: {line}" for line in found]


def write(texts: dict[str, str], folder: Path) -> None:
    """One file a template; templates that render to nothing have none."""
    kept = {name.split("/templates/")[1]: text for name, text in texts.items() if text.strip()}
    for name, text in kept.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text.strip() + "\n", encoding="utf-8")
    print(f"{folder}: {len(kept)} files")


if __name__ == "__main__":
    main()
