"""deploy/compose.yaml is valid, closed to other machines, hardened, and agrees with the service it runs."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from detector.config import load_settings

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def test_compose_is_what_the_specification_allows() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    result = subprocess.run([*command, DEPLOY / "compose.yaml"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_may_write_to_nothing_but_its_own_and_gain_nothing(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_is_published_beyond_this_machine(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_has_a_version(name: str) -> None:
    assert re.search(r":v?\d|:\$\{PPD_VERSION:-\d", SERVICES[name]["image"])


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_says_whether_it_is_well(name: str) -> None:
    files = {"api": "Dockerfile", "ui": "ui.Dockerfile"}
    assert "healthcheck" in SERVICES[name] or "HEALTHCHECK" in (DEPLOY / files[name]).read_text(encoding="utf-8")


def test_the_settings_of_the_service_exist() -> None:
    environ = SERVICES["api"]["environment"] | {"PPD_REDIS__URL": "redis://:x@redis:6379/0"}
    settings = load_settings(ROOT / "configuration.yaml", environ)
    assert settings.redis.url and settings.auth.keys_file and settings.decisions.path


def test_the_redis_of_the_service_is_the_one_that_runs() -> None:
    assert re.findall(r"@(\w+):6379", SERVICES["api"]["command"][0]) == ["redis"]


def test_a_stopped_container_has_longer_than_requests_in_flight() -> None:
    grace = load_settings(ROOT / "configuration.yaml", {}).api.shutdown_grace
    assert int(SERVICES["api"]["stop_grace_period"].removesuffix("s")) > grace


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_from_the_repository_exists(name: str) -> None:
    for mount in SERVICES[name].get("volumes", []):
        source = mount.split(":")[0]
        assert not source.startswith(".") or (DEPLOY / source).is_dir(), source


def test_secrets_are_files_that_git_never_sees() -> None:
    assert all(secret["file"].startswith("./secrets/") for secret in COMPOSE["secrets"].values())
    assert "deploy/secrets/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_prometheus_asks_the_service_on_its_port() -> None:
    prometheus = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text(encoding="utf-8"))
    targets = prometheus["scrape_configs"][0]["static_configs"][0]["targets"]
    assert targets == [f"api:{SERVICES['api']['ports'][0].split(':')[-1]}"]


def test_grafana_asks_the_prometheus_that_runs() -> None:
    sources = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text(encoding="utf-8"))
    port = SERVICES["prometheus"]["ports"][0].split(":")[-1]
    assert sources["datasources"][0]["url"] == f"http://prometheus:{port}"


def test_grafana_finds_its_dashboards_where_they_are_mounted() -> None:
    folder = DEPLOY / "grafana" / "provisioning" / "dashboards" / "dashboards.yaml"
    provider = yaml.safe_load(folder.read_text(encoding="utf-8"))["providers"][0]
    assert f"./grafana:{provider['options']['path']}:ro" in SERVICES["grafana"]["volumes"]
