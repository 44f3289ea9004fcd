"""Rules and dashboard: right by promtool, of metrics that exist, with a runbook for every alert."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.test_metrics import named

ROOT = Path(__file__).parent.parent
RULES = [ROOT / "deploy/prometheus" / name for name in ("alerts.yaml", "recording.yaml")]
BOARD = json.loads((ROOT / "deploy/grafana/product-photo-detector.json").read_text())


def rules(kind: str) -> list[dict[str, Any]]:
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


def queries() -> dict[str, str]:
    """Every expression that is evaluated, by who asks it."""
    asked = {rule.get("alert") or rule["record"]: rule["expr"] for rule in rules("expr")}
    for panel in BOARD["panels"]:
        asked |= {f"{panel['title']} {target['refId']}": target["expr"] for target in panel.get("targets", ())}
    return asked


def read(expression: str) -> set[str]:
    """The service's own series that an expression reads."""
    return set(re.findall(r"\bppd_[a-z0-9_]+", expression))


def series() -> set[str]:
    """Every name a metric of the code has in Prometheus."""
    plain = named()
    parts = ("_bucket", "_sum", "_count")
    return {name + part for name, one in plain.items() for part in (parts if one._type == "histogram" else ("",))}


def promtool(*arguments: str) -> None:
    binary = shutil.which("promtool")
    assert binary, "promtool is not installed; the tests need it (Debian: apt-get install prometheus)."
    result = subprocess.run([binary, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_rules_are_well_formed() -> None:
    promtool("check", "rules", *map(str, RULES))


def test_every_rule_does_what_its_unit_test_says() -> None:
    promtool("test", "rules", "tests/prometheus/rules_test.yaml")


def test_every_alert_has_a_unit_test_in_which_it_fires() -> None:
    groups = yaml.safe_load((ROOT / "tests/prometheus/rules_test.yaml").read_text())["tests"]
    fired = {case["alertname"] for group in groups for case in group.get("alert_rule_test", ()) if case["exp_alerts"]}
    assert fired == {rule["alert"] for rule in rules("alert")}


@pytest.mark.parametrize(("asker", "expression"), queries().items(), ids=list(queries()))
def test_a_query_reads_what_the_code_writes(asker: str, expression: str) -> None:
    recorded = {rule["record"] for rule in rules("record")}
    assert set(re.findall(r"\bppd:[a-z0-9_:]+", expression)) <= recorded
    assert read(expression) <= series()


def test_every_alert_says_where_to_read_on() -> None:
    headings = re.findall(r"^### (.+)$", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)
    linked = {rule["alert"]: rule["annotations"]["runbook_url"] for rule in rules("alert")}
    assert linked == {alert: f"docs/operations.md#{alert.lower()}" for alert in linked}
    assert linked.keys() <= set(headings)


def test_every_metric_of_the_code_is_on_the_dashboard_or_in_a_rule() -> None:
    seen = set().union(*(read(expression) for expression in queries().values()))
    unseen = {name for name in named() if not any(one.startswith(name) for one in seen)}
    assert unseen == set()
