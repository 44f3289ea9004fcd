"""The chart as Helm's own engine renders it; what the manifests must say is the tests' business."""

from functools import cache
from typing import Any

import helm_python
import yaml

from deploy.render import CHART

CASES: dict[str, dict[str, Any]] = {
    "default": {},
    **{
        path.name.removesuffix("-values.yaml"): yaml.safe_load(path.read_text("utf-8"))
        for path in sorted((CHART / "ci").glob("*-values.yaml"))
    },
}
Manifest = dict[str, Any]


def render(values: dict[str, Any], name: str = "demo") -> dict[str, str]:
    """Texts by template, as `helm install NAME` in the namespace `shop` would make them."""
    with helm_python.Chart.load(CHART) as chart:
        texts: dict[str, str] = chart.render(values, name=name, namespace="shop")
    return texts


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
