"""The chart: Helm's engine renders it, Kubernetes takes what comes out, and it agrees with the service it runs."""

import copy
import json
import os
import re
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import pytest
import yaml
from bentoml._internal.container.generate import BENTO_UID_GID
from prometheus_client.metrics import MetricWrapperBase

from benchmarks import capacity
from deploy.render import CHART, ROOT
from detector import __version__, asgi, assembly, metrics, openapi
from detector.config import Settings, load_settings
from gradio_app.__main__ import MAX_UPLOAD
from tests import charts, serving
from tests.charts import CASES, Manifest

CHART_FILE: dict[str, Any] = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
CUSTOM = {"ServiceMonitor", "PrometheusRule"}  # kinds of an operator, whose schemas Kubernetes does not hold
every_case = pytest.mark.parametrize("case", CASES)


def settings_of(found: list[Manifest], folder: Path, environ: dict[str, str] | None = None) -> Settings:
    """The settings as a pod reads them: the ConfigMap's file, and its environment over it."""
    path = folder / "configuration.yaml"
    path.write_text(charts.named(found, "ConfigMap")["data"]["configuration.yaml"], encoding="utf-8")
    return load_settings(path, environ or {})


def with_values(**values: Any) -> list[Manifest]:
    return charts.manifests(values)


# What Helm and Kubernetes say


@every_case
def test_helm_has_nothing_to_complain_of(case: str) -> None:
    assert charts.lint(CASES[case]) == []


@every_case
def test_kubernetes_takes_every_manifest(case: str) -> None:
    oldest = re.search(r"\d+\.\d+", CHART_FILE["kubeVersion"])
    assert oldest
    for manifest in charts.case(case):
        if manifest["kind"] not in CUSTOM:
            for version in (oldest[0], kubernetes_validate.latest_version()):
                checked(json.dumps(manifest), version)


@cache
def checked(manifest: str, version: str) -> None:
    """Raises where the manifest is none; most are the same in several cases, and reading the schemas takes a while."""
    kubernetes_validate.validate(json.loads(manifest), version, strict=True)


@every_case
def test_manifests_have_the_standard_labels_and_names_of_their_own(case: str) -> None:
    names = [(found["kind"], found["metadata"]["name"]) for found in charts.case(case)]
    assert len(names) == len(set(names))
    wanted = {"name", "instance", "version", "component", "managed-by", "part-of"}
    for manifest in charts.case(case):
        labels = manifest["metadata"]["labels"]
        assert {f"app.kubernetes.io/{name}" for name in wanted} | {"helm.sh/chart"} <= labels.keys()


@every_case
def test_whoever_selects_pods_finds_some(case: str) -> None:
    found = charts.case(case)
    pods = [it["spec"]["template"]["metadata"]["labels"] for it in charts.of_kind(found, "Deployment")]
    selectors = [it["spec"]["selector"] for it in charts.of_kind(found, "Service")]
    selectors += [it["spec"]["selector"]["matchLabels"] for it in charts.of_kind(found, "PodDisruptionBudget")]
    selectors += [it["spec"]["podSelector"]["matchLabels"] for it in charts.of_kind(found, "NetworkPolicy")]
    for selector in selectors:
        assert [selector.items() <= labels.items() for labels in pods].count(True) == 1


def test_a_long_release_name_leaves_names_that_kubernetes_takes() -> None:
    for manifest in charts.manifests({}, name="a-release-name-as-long-as-helm-lets-a-release-be-named"[:53]):
        assert len(manifest["metadata"]["name"]) <= 63


def test_a_packed_chart_holds_what_its_links_lead_to(tmp_path: Path) -> None:
    packed, texts = charts.pack(tmp_path, CASES["production"])
    assert {f"files/{path.name}" for path in (CHART / "files").iterdir()} <= packed
    assert texts == charts.render(CASES["production"])


def test_rendering_writes_a_file_a_template(tmp_path: Path) -> None:
    assert charts.write(CHART / "ci" / "minimal-values.yaml", tmp_path) == []
    written = {path.name for path in (tmp_path / "minimal-values").iterdir()}
    assert written == {"NOTES.txt", "configmap.yaml", "deployment.yaml", "service.yaml", "serviceaccount.yaml"}


def test_rendering_says_which_file_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("replicas: 3")
    (complaint, *_) = charts.write(tmp_path / "wrong.yaml", tmp_path)
    assert complaint.startswith("wrong.yaml: ")
    assert "replicas" in complaint


# What the service says


def test_the_chart_is_of_this_release() -> None:
    assert CHART_FILE["appVersion"] == __version__


def test_the_pods_read_the_settings_of_the_repository(tmp_path: Path) -> None:
    assert settings_of(charts.case("default"), tmp_path) == Settings()


def test_what_the_values_set_is_laid_over_them(tmp_path: Path) -> None:
    wanted = load_settings(ROOT / "configuration.yaml", {}).model_dump(mode="json")
    for section, body in CASES["production"]["configuration"].items():
        wanted[section] |= body
    assert settings_of(charts.case("production"), tmp_path) == Settings.model_validate(wanted)


@every_case
def test_every_variable_of_the_pods_is_a_setting(case: str, tmp_path: Path) -> None:
    """A name that is none would stop the service's start; load_settings says so."""
    for deployment in charts.of_kind(charts.case(case), "Deployment"):
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        settings_of(charts.case(case), tmp_path, charts.environment(container))


def test_secrets_reach_the_settings_by_reference_alone(tmp_path: Path) -> None:
    found = charts.case("production")
    assert charts.of_kind(found, "Secret") == []
    settings = settings_of(found, tmp_path, charts.environment(charts.container(found)))
    mounts = {mount["mountPath"] for mount in charts.container(found)["volumeMounts"]}
    for path in (settings.auth.keys_file, settings.jwt.secret_file, settings.provenance.trust_anchors):
        assert path
        assert str(path.parent) in mounts


def test_the_key_file_is_mounted_so_that_a_change_comes_through() -> None:
    """A file mounted by subPath is never updated."""
    mounts = {mount["name"]: mount for mount in charts.container(charts.case("production"))["volumeMounts"]}
    assert "subPath" not in mounts["keys"]


def test_no_variable_of_another_service_reaches_the_pods() -> None:
    """Kubernetes would give a pod beside a Service `ppd` the variable PPD_PORT, which is no setting."""
    assert all(pod["enableServiceLinks"] is False for pod in charts.pods(charts.case("default")))


@every_case
def test_ports_and_probes_are_those_of_the_service(case: str) -> None:
    api = charts.container(charts.case(case))
    (port,) = api["ports"]
    assert port == {"name": "http", "containerPort": 3000, "protocol": "TCP"}
    assert charts.environment(api)["BENTOML_PORT"] == "3000"
    probes = [api[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")]
    assert {probe["path"] for probe in probes} <= asgi.PROBES
    assert {probe["port"] for probe in probes} == {"http"}


def test_the_page_is_started_with_options_it_knows() -> None:
    page = charts.container(charts.case("default"), "-ui")
    command = [sys.executable, *page["command"][1:], *page["args"], "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert str(page["ports"][0]["containerPort"]) in page["args"]


def test_the_page_asks_the_service_where_it_listens() -> None:
    found = charts.case("default")
    service = charts.named(found, "Service")
    address = f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    assert charts.environment(charts.container(found, "-ui"))["PPD_ADDRESS"] == address


@every_case
def test_a_pod_may_end_as_slowly_as_the_service_does(case: str, tmp_path: Path) -> None:
    found = charts.case(case)
    pod = charts.named(found, "Deployment")["spec"]["template"]["spec"]
    pause = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pause >= 1
    assert pod["terminationGracePeriodSeconds"] > pause + settings_of(found, tmp_path).api.shutdown_grace


def test_the_ingress_lets_through_what_the_service_takes_and_no_more(tmp_path: Path) -> None:
    found = charts.case("production")
    annotations = charts.named(found, "Ingress")["metadata"]["annotations"]
    largest = max(door.max_body for door in assembly.doors(settings_of(found, tmp_path)).values())
    assert annotations["nginx.ingress.kubernetes.io/proxy-body-size"] == str(largest)


def test_the_ingress_waits_longer_than_the_service_does(tmp_path: Path) -> None:
    found = charts.case("production")
    annotations = charts.named(found, "Ingress")["metadata"]["annotations"]
    backstop = settings_of(found, tmp_path).api.timeout + 5  # service.py's
    for name in ("proxy-read-timeout", "proxy-send-timeout"):
        assert int(annotations[f"nginx.ingress.kubernetes.io/{name}"]) > backstop


def test_the_ingress_leads_to_every_route_and_to_no_probe() -> None:
    rules = charts.named(charts.case("production"), "Ingress")["spec"]["rules"]
    prefixes = [path["path"] for path in rules[0]["http"]["paths"]]
    routes = {*openapi.document(20, Settings().explain.model_dump())["paths"], *assembly.doors(Settings())}
    reached = {route for route in routes | asgi.PROBES if any(f"{route}/".startswith(f"{it}/") for it in prefixes)}
    assert reached == routes - asgi.PROBES


def test_the_ingress_of_the_page_takes_the_largest_upload() -> None:
    annotations = charts.named(charts.case("production"), "Ingress", "-ui")["metadata"]["annotations"]
    size = annotations["nginx.ingress.kubernetes.io/proxy-body-size"]
    assert int(size[:-1]) * 1024 >= int(MAX_UPLOAD.removesuffix("mb"))
    assert size.endswith("g")


def test_threads_follow_the_cores_a_pod_asks_for() -> None:
    (threads,) = [entry for entry in charts.container(charts.case("default"))["env"] if "THREADS" in entry["name"]]
    assert threads["valueFrom"]["resourceFieldRef"]["resource"] == "requests.cpu"


def test_threads_that_are_configured_stay() -> None:
    found = with_values(configuration={"model": {"threads": 3}})
    assert "PPD_MODEL__THREADS" not in charts.environment(charts.container(found))


def test_a_changed_setting_rolls_the_pods() -> None:
    def mark(found: list[Manifest]) -> str:
        annotations = charts.named(found, "Deployment")["spec"]["template"]["metadata"]["annotations"]
        return str(annotations["checksum/configuration"])

    changed = with_values(configuration={"photo": {"max_bytes": 5_000_000}})
    assert mark(charts.case("default")) == mark(with_values()) != mark(changed)


def test_a_gpu_is_asked_for_and_used(tmp_path: Path) -> None:
    found = charts.case("gpu")
    api = charts.container(found)
    assert api["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert api["image"].endswith("-gpu")
    assert settings_of(found, tmp_path).model.device == "cuda"


def test_a_volume_stands_in_for_the_models_of_the_image(tmp_path: Path) -> None:
    found = charts.case("gpu")
    mounts = {mount["name"]: mount for mount in charts.container(found)["volumeMounts"]}
    assert mounts["model-store"]["mountPath"] == "/home/bentoml/bento/models"
    assert mounts["model-store"]["readOnly"]


@pytest.mark.parametrize(
    ("case", "address"),
    [
        ("default", "redis://:$(REDIS_PASSWORD)@demo-product-photo-detector-redis:6379/0"),
        ("no-redis", None),
        ("external-redis", {"name": "shared-redis", "key": "address"}),
    ],
)
def test_redis_is_the_charts_own_none_or_another(case: str, address: object) -> None:
    entries = {entry["name"]: entry for entry in charts.container(charts.case(case))["env"]}
    entry = entries.get("PPD_REDIS__URL", {})
    assert entry.get("value") == address or entry["valueFrom"]["secretKeyRef"] == address


def test_the_command_of_redis_starts_one_that_asks_for_the_password(tmp_path: Path) -> None:
    """The container's own shell command, on a free port; the password comes in on standard input."""
    redis = charts.container(charts.case("default"), "-redis")
    port = serving.free_port()
    script = redis["args"][0].replace("dir /tmp", f"dir {tmp_path}\nport {port}\nbind 127.0.0.1")
    environ = {"PATH": os.environ["PATH"], "REDISCLI_AUTH": "a-password"}
    command = [*redis["command"], script]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            assert any("Ready to accept" in line for line in server.stdout)
            assert talk(port, "PING", "AUTH a-password", "PING", "CONFIG GET maxmemory-policy") == (
                "-NOAUTH Authentication required. +OK +PONG *2 $16 maxmemory-policy $11 allkeys-lru"
            )
        finally:
            server.terminate()
        assert server.wait(20) == 0


def talk(port: int, *commands: str) -> str:
    """What a Redis answers to some commands, its lines joined."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection, connection.makefile("rwb") as stream:
        stream.write("".join(f"{command}\r\n" for command in (*commands, "QUIT")).encode())
        stream.flush()
        return " ".join(stream.read().decode().split("\r\n")).removesuffix(" +OK ")


def test_the_password_of_redis_is_new_for_every_release() -> None:
    secrets = [charts.named(with_values(), "Secret", "-redis")["data"]["password"] for _ in range(2)]
    assert secrets[0] != secrets[1]


# What is watched


def known_metrics() -> set[str]:
    kept = [it for it in vars(metrics).values() if isinstance(it, MetricWrapperBase)]
    names = {family.name for metric in kept for family in metric.describe()}
    return {name + ending for name in names for ending in ("", "_total", "_bucket", "_sum", "_count")}


def test_pods_are_added_by_metrics_that_exist() -> None:
    scaler = charts.named(charts.case("production"), "HorizontalPodAutoscaler")
    asked = {it["pods"]["metric"]["name"] for it in scaler["spec"]["metrics"] if it["type"] == "Pods"}
    assert asked
    assert asked <= known_metrics()


@pytest.mark.parametrize("case", ["default", "production"])
def test_pods_are_added_by_cpu_and_memory(case: str) -> None:
    scaler = charts.named(charts.case(case), "HorizontalPodAutoscaler")["spec"]
    asked = {it["resource"]["name"] for it in scaler["metrics"] if it["type"] == "Resource"}
    assert asked == {"cpu", "memory"}
    assert "replicas" not in charts.named(charts.case(case), "Deployment")["spec"]


def test_the_rules_are_the_repositorys_word_for_word() -> None:
    """Their annotations hold templates of Prometheus, which Helm must leave alone."""
    files = [ROOT / "deploy/prometheus" / name for name in ("recording.yaml", "alerts.yaml")]
    groups = [group for file in files for group in yaml.safe_load(file.read_text("utf-8"))["groups"]]
    assert charts.named(charts.case("production"), "PrometheusRule")["spec"]["groups"] == groups


def test_the_dashboard_is_the_repositorys() -> None:
    data = charts.named(charts.case("production"), "ConfigMap", "-dashboard")["data"]
    original = (ROOT / "deploy/grafana/product-photo-detector.json").read_text("utf-8")
    assert json.loads(data["product-photo-detector.json"]) == json.loads(original)


def test_prometheus_finds_the_service_and_its_metrics() -> None:
    found = charts.case("production")
    monitor = charts.named(found, "ServiceMonitor")["spec"]
    service = charts.named(found, "Service")
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["endpoints"]
    assert endpoint["port"] == service["spec"]["ports"][0]["name"]
    assert endpoint["path"] in asgi.PROBES


def test_what_an_operator_defines_is_there_only_where_it_is_wanted() -> None:
    assert {manifest["kind"] for manifest in charts.case("default")} & CUSTOM == set()


# What was measured


def test_a_pod_asks_for_more_memory_than_was_measured() -> None:
    seen, values = capacity.measured(), capacity.chart_values()
    target = values["autoscaling"]["targetMemoryUtilizationPercentage"] / 100
    assert max(seen.idle_memory, seen.storm_memory) < target * capacity.pod(values).memory


def test_a_pod_in_a_storm_is_not_taken_for_dead() -> None:
    probe = charts.container(charts.case("default"))["livenessProbe"]
    assert probe["timeoutSeconds"] > 2 * capacity.measured().storm_probe


def test_redis_has_room_for_what_it_may_keep() -> None:
    redis = capacity.chart_values()["redis"]
    assert float(redis["maxmemory"].removesuffix("mb")) < capacity.mebibytes(redis["resources"]["requests"]["memory"])


# What a pod may do


@every_case
def test_pods_run_without_rights(case: str) -> None:
    for pod in charts.pods(charts.case(case)):
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}


@every_case
def test_pods_write_to_bounded_volumes_alone(case: str) -> None:
    for pod in charts.pods(charts.case(case)):
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        for mount in [mount for container in pod["containers"] for mount in container.get("volumeMounts", [])]:
            assert mount.get("readOnly") or volumes[mount["name"]]["emptyDir"]["sizeLimit"]


@every_case
def test_pods_say_what_they_need(case: str) -> None:
    for container in [container for pod in charts.pods(charts.case(case)) for container in pod["containers"]]:
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert "memory" in container["resources"]["limits"]


def test_the_service_runs_as_the_user_of_bento_images() -> None:
    pod = charts.named(charts.case("default"), "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsUser"] == BENTO_UID_GID


def test_every_pod_of_a_release_has_a_network_policy() -> None:
    found = charts.case("default")
    policies = {it["metadata"]["name"] for it in charts.of_kind(found, "NetworkPolicy")}
    assert policies == {it["metadata"]["name"] for it in charts.of_kind(found, "Deployment")}


def test_only_the_service_reaches_redis_and_redis_reaches_nobody() -> None:
    found = charts.case("default")
    policy = charts.named(found, "NetworkPolicy", "-redis")["spec"]
    (rule,) = policy["ingress"]
    selector = charts.named(found, "Deployment")["spec"]["selector"]
    assert rule["from"] == [{"podSelector": selector}]
    assert "Egress" in policy["policyTypes"]
    assert "egress" not in policy


# The release's test, and its notes


def test_the_test_of_a_release_gets_a_verdict(service: httpx.Client) -> None:
    pod = charts.named(charts.case("default"), "Pod", "-test")["spec"]["containers"][0]
    environ = serving.environment(ROOT, PPD_ADDRESS=str(service.base_url), PYTHONPATH=str(ROOT))
    command = [sys.executable, *pod["command"][1:], *pod["args"]]
    done = subprocess.run(command, env=environ, cwd="/", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert re.match(r"(real|ai_generated|uncertain), probability 0\.\d{3}, model ", done.stdout)


def test_the_test_of_a_release_fails_where_nobody_answers(tmp_path: Path) -> None:
    pod = charts.named(charts.case("default"), "Pod", "-test")["spec"]["containers"][0]
    environ = serving.environment(tmp_path, PPD_ADDRESS=f"http://127.0.0.1:{serving.free_port()}", PYTHONPATH=str(ROOT))
    script = pod["args"][0].replace("attempts=4", "attempts=1")
    done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "model_unavailable" in done.stderr


def test_the_test_of_a_release_is_left_out_where_it_has_no_key() -> None:
    values = copy.deepcopy(CASES["production"])
    del values["tests"]
    assert charts.of_kind(charts.manifests(values), "Pod") == []
    assert "tests.apiKey names no key" in charts.render(values)["product-photo-detector/templates/NOTES.txt"]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, "Authentication is off"),
        ({"ingress": {"enabled": True, "host": "a.example"}}, "all callers without a key share one budget"),
        ({"redis": {"enabled": False}}, "Without Redis each pod counts"),
    ],
)
def test_the_notes_warn(values: dict[str, Any], sentence: str) -> None:
    assert sentence in charts.render(values)["product-photo-detector/templates/NOTES.txt"]


EXAMPLES = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/kubernetes.md").read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_values_in_the_documents_render(example: str) -> None:
    values = yaml.safe_load(example.replace("sha256:...", f"sha256:{0:064}"))
    assert charts.manifests(values)


# Values that are wrong


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"replicas": 3}, "replicas"),
        ({"replicaCount": 0}, "replicaCount"),
        ({"image": {"digest": "sha256:abc"}}, "digest"),
        ({"image": {"tag": "a b"}}, "tag"),
        ({"configuration": {"photo": 5}}, "configuration"),
        ({"configuration": {"redis": {"url": "redis://:password@host:6379/0"}}}, "url"),
        ({"configuration": {"jwt": {"secret_file": "/etc/secret"}}}, "secret_file"),
        ({"autoscaling": {"maxReplicas": "many"}}, "maxReplicas"),
        ({"autoscaling": {"targetCPUUtilizationPercentage": 170}}, "targetCPUUtilizationPercentage"),
        ({"resources": {"requests": {"memory": "lots"}}}, "memory"),
        ({"ingress": {"enabled": True}}, "host"),
        ({"ingress": {"paths": ["/metrics"]}}, "paths"),
        ({"service": {"port": 70000}}, "port"),
        ({"gpu": {"count": -1}}, "gpu"),
        ({"podSecurityContext": {"runAsNonRoot": False}}, "runAsNonRoot"),
        ({"securityContext": {"allowPrivilegeEscalation": True}}, "allowPrivilegeEscalation"),
        ({"livenessProbe": {"timeout": 1}}, "livenessProbe"),
        ({"metrics": {"serviceMonitor": {"interval": 30}}}, "interval"),
    ],
)
def test_the_schema_refuses_what_is_wrong_and_names_it(values: dict[str, Any], named: str) -> None:
    with pytest.raises(charts.Refused, match=named):
        charts.check(values)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"configuration": {"foto": {}}}, "configuration.foto is not a known section"),
        ({"configuration": {"photo": {"max_byte": 1}}}, "configuration.photo.max_byte is not a known setting"),
        ({"configuration": {"api": {"timeout": 90}}}, "shutdown_grace must be above"),
        ({"redis": {"external": {"existingSecret": "there"}}}, "exclude each other"),
        ({"jwt": {"existingSecret": "there"}}, "needs configuration.jwt.issuer"),
        ({"modelStore": {"existingClaim": "models"}}, "needs configuration.model.tag with a version"),
        ({"autoscaling": {"minReplicas": 4, "maxReplicas": 3}}, "minReplicas must not be above"),
    ],
)
def test_values_that_contradict_each_other_render_nothing(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(charts.Refused, match=sentence):
        charts.render(values)
