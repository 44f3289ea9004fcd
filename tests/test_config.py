"""Settings are strict, and say which one is wrong."""

from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from detector.config import Settings, load_settings
from detector.errors import InvalidSettings
from detector.provenance.policy import Policy

ROOT = Path(__file__).parent.parent


def write(folder: Path, text: str) -> Path:
    path = folder / "configuration.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_file_in_the_repository_holds_every_setting_at_its_default() -> None:
    tree = yaml.safe_load((ROOT / "configuration.yaml").read_text())
    assert tree == Settings().model_dump(mode="json")


def test_every_setting_is_commented() -> None:
    for line in (ROOT / "configuration.yaml").read_text().splitlines():
        if line.startswith("  "):
            assert " # " in line, line


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "photo: {max_bytes: 5000, min_side: 32}")
    settings = load_settings(path, {"PPD_PHOTO__MAX_BYTES": "6000", "PPD_PHOTO__FORMATS": "[PNG]", "HOME": "/"})
    assert settings.photo.max_bytes == 6000
    assert settings.photo.min_side == 32
    assert settings.photo.formats == ("PNG",)


def test_a_threshold_can_be_set_and_unset(tmp_path: Path) -> None:
    path = write(tmp_path, "verdict: {thresholds: {real: 0.1, ai_generated: 0.8}}")
    assert load_settings(path, {}).verdict.thresholds is not None
    assert load_settings(path, {"PPD_VERDICT__THRESHOLDS": "null"}).verdict.thresholds is None


@pytest.mark.parametrize(
    ("text", "environ", "sentence"),
    [
        ("photo: {max_byte: 1}", {}, "photo.max_byte is not a known setting"),
        ("foto: {}", {}, "foto is not a known setting"),
        ("photo: {max_bytes: many}", {}, "photo.max_bytes"),
        ("photo: [", {}, "not valid YAML"),
        ("just text", {}, "must hold sections"),
        ("", {"PPD_PHOTO__MAX_BYTE": "1"}, "photo.max_byte is not a known setting"),
        ("", {"PPD_FOTO__MAX_BYTES": "1"}, "PPD_FOTO__MAX_BYTES names no setting"),
        ("", {"PPD_PHOTO": "1"}, "PPD_PHOTO names no setting"),
        ("verdict: {medium_confidence: 0.99}", {}, "medium_confidence must not be above"),
        ("limits: {predict: often}", {}, "limits.predict"),
        ("limits: {predict: 0/minute}", {}, "limits.predict"),
        ("limits: {trusted_proxies: [10.0.0.1/8]}", {}, "limits.trusted_proxies"),
        ("rollout: {mode: canary}", {}, "rollout.mode"),
        ("", {"PPD_ROLLOUT__SPLIT_SHARE": "10"}, "rollout.split_share"),
        ("drift: {watch: 0.3}", {}, "watch must not be above"),
        ("drift: {bucket: 3600, span: 7200}", {}, "ten buckets for every window"),
        ("drift: {bucket: 1}", {}, "no more than 5000 buckets"),
        ("jwt: {key_set: https://id.example/keys}", {}, "issuer and audience must be set"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(InvalidSettings, match=sentence):
        load_settings(write(tmp_path, text), environ)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match=r"nowhere\.yaml can't be read"):
        load_settings(tmp_path / "nowhere.yaml", {})


def test_a_trust_list_is_read_as_text(tmp_path: Path) -> None:
    (tmp_path / "anchors.pem").write_text("-----BEGIN CERTIFICATE-----")
    provenance = load_settings(None, {"PPD_PROVENANCE__TRUST_ANCHORS": str(tmp_path / "anchors.pem")}).provenance
    assert provenance.read_trust_anchors() == "-----BEGIN CERTIFICATE-----"
    assert Settings().provenance.read_trust_anchors() is None


def test_a_missing_trust_list_is_named(tmp_path: Path) -> None:
    provenance = load_settings(None, {"PPD_PROVENANCE__TRUST_ANCHORS": str(tmp_path / "none.pem")}).provenance
    with pytest.raises(InvalidSettings, match=r"provenance\.trust_anchors: .*none\.pem can't be read"):
        provenance.read_trust_anchors()


def test_a_drift_baseline_that_is_no_report_is_named(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text("{}")
    for name in ("b.json", "none.json"):
        drift = load_settings(None, {"PPD_DRIFT__BASELINE": str(tmp_path / name)}).drift
        with pytest.raises(InvalidSettings, match=r"drift\.baseline: .* is no report"):
            drift.read_baseline()
    assert Settings().drift.read_baseline() is None


def test_the_policy_s_settings_are_the_policy_s() -> None:
    named = {field.name: field.default for field in fields(Policy)}
    assert named == Settings().provenance.model_dump(include=set(named))
    with pytest.raises(InvalidSettings, match="unsigned_claim"):
        load_settings(None, {"PPD_PROVENANCE__UNSIGNED_CLAIM": "decides"})


def test_a_candidate_is_on_trial_unless_switched_off() -> None:
    named = {"PPD_ROLLOUT__CANDIDATE": "m:1"}
    assert load_settings(None, {}).rollout.tried is None
    assert load_settings(None, named).rollout.tried == "m:1"
    assert load_settings(None, named | {"PPD_ROLLOUT__MODE": "off"}).rollout.tried is None


def test_settings_can_not_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().photo.max_bytes = 1  # type: ignore[misc]


def test_a_secret_is_not_shown() -> None:
    settings = load_settings(None, {"PPD_REDIS__URL": "redis://:hunter2@localhost:6379/0"})
    assert settings.redis.url
    assert settings.redis.url.get_secret_value().startswith("redis://:hunter2@")
    assert "hunter2" not in repr(settings) + settings.model_dump_json()
