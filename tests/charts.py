"""The chart as Helm's own engine renders it; what the manifests must say is the tests' business.

The engine is a Go library, which ended the test process when it came after enough other native code; so it runs in a
process of its own.
"""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import yaml

from deploy.render import CHART

T = TypeVar("T")

CASES: dict[str, dict[str, Any]] = {
    "default": {},
    **{
        path.name.removesuffix("-values.yaml"): yaml.safe_load(path.read_text("utf-8"))
        for path in sorted((CHART / "ci").glob("*-values.yaml"))
    },
}
Manifest = dict[str, Any]


class Refused(Exception):
    """What the engine has to say against a chart or its values."""


def render(values: dict[str, Any], name: str = "demo") -> dict[str, str]:
    """Texts by template, as `helm install NAME` in the namespace `shop` would make them."""
    return _apart(_render, CHART, values, name)


def lint(values: dict[str, Any]) -> list[str]:
    """What `helm lint --strict` complains of."""
    return _apart(_lint, values)


def check(values: dict[str, Any]) -> None:
    """Refused where the schema does not take the values."""
    _apart(_check, values)


def pack(folder: Path, values: dict[str, Any]) -> tuple[set[str], dict[str, str]]:
    """The files of the chart as packed into `folder`, and what it renders from there."""
    return _apart(_pack, folder, values)


def write(path: Path, out: Path) -> list[str]:
    """What `make helm` does with one file of values; its complaints."""
    return _apart(_write, path, out)


@cache
def _engine() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, get_context("spawn"))


def _apart(work: Callable[..., T], *given: Any) -> T:
    return _engine().submit(work, *given).result(timeout=120)


def _render(place: Path, values: dict[str, Any], name: str) -> dict[str, str]:
    import helm_python

    with helm_python.Chart.load(place) as chart:
        try:
            texts: dict[str, str] = chart.render(values, name=name, namespace="shop")
        except helm_python.HelmError as error:
            raise Refused(str(error)) from None
    return texts


def _lint(values: dict[str, Any]) -> list[str]:
    import helm_python

    report = helm_python.lint(CHART, values, strict=True)
    return [message["error"] for message in report["messages"] if message["severity"] > 1] + report["errors"]


def _check(values: dict[str, Any]) -> None:
    import helm_python

    with helm_python.Chart.load(CHART) as chart:
        try:
            chart.validate_schema(values)
        except helm_python.HelmValuesError as error:
            raise Refused(str(error)) from None


def _pack(folder: Path, values: dict[str, Any]) -> tuple[set[str], dict[str, str]]:
    import helm_python

    archive = helm_python.package(CHART, destination=folder)
    with helm_python.Chart.load(archive) as chart:
        held = {file["name"] for file in chart.files}
    return held, _render(archive, values, "demo")


def _write(path: Path, out: Path) -> list[str]:
    import helm_python

    from deploy.render import render as render_file

    with helm_python.Chart.load(CHART) as chart:
        return render_file(chart, path, out)


def manifests(values: dict[str, Any], name: str = "demo") -> list[Manifest]:
    texts = [text for template, text in render(values, name).items() if template.endswith(".yaml")]
    return [document for text in texts for document in yaml.safe_load_all(text) if document]


@cache
def case(name: str) -> list[Manifest]:
    """The manifests of one file under ci/; do not write to them."""
    return manifests(CASES[name])


def of_kind(found: list[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in found if manifest["kind"] == kind]


def named(found: list[Manifest], kind: str, suffix: str = "") -> Manifest:
    """The one of this kind whose name is the release's with `suffix`."""
    wanted = f"demo-product-photo-detector{suffix}"
    (only,) = [manifest for manifest in of_kind(found, kind) if manifest["metadata"]["name"] == wanted]
    return only


def pods(found: list[Manifest]) -> list[Manifest]:
    """Every pod specification, the test's too."""
    templates = [manifest["spec"]["template"]["spec"] for manifest in of_kind(found, "Deployment")]
    return templates + [manifest["spec"] for manifest in of_kind(found, "Pod")]


def container(found: list[Manifest], suffix: str = "") -> Manifest:
    (only,) = named(found, "Deployment", suffix)["spec"]["template"]["spec"]["containers"]
    assert isinstance(only, dict)
    return only


def environment(of: Manifest) -> dict[str, str]:
    """A container's environment, with something likely in place of what comes from elsewhere."""
    elsewhere = {"PPD_REDIS__URL": "redis://:password@redis.example:6379/0", "PPD_MODEL__THREADS": "2"}
    return {entry["name"]: entry.get("value") or elsewhere.get(entry["name"], "secret") for entry in of.get("env", [])}
