"""A key is known by its hash alone, ends when it should, and its file may change under a running service."""

import json
import os
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector import keyring
from detector.errors import InvalidSettings
from detector.keyring import Key, Keyring, find, mint, now


def ring(folder: Path, *keys: Key) -> Path:
    path = folder / "keys.json"
    keyring.write(path, {key.id: key for key in keys})
    return path


def test_only_the_minted_text_is_the_key() -> None:
    text, kept = mint("desk", ["predict"], now())
    keys = {kept.id: kept}
    assert find(text, keys) == kept
    for wrong in (text[:-1], text + "A", text.swapcase(), f"ppd_{kept.id}_{'A' * 43}", kept.hash, "", "ppd__"):
        assert find(wrong, keys) is None


@settings(deadline=None)
@given(st.text(max_size=80))
def test_no_other_text_is_a_key(text: str) -> None:
    _, kept = mint("desk", ["predict"], now())
    assert find(text, {kept.id: kept}) is None


def test_two_keys_of_one_name_are_kept_apart_by_salt() -> None:
    (one, first), (two, second) = (mint("desk", ["predict"], now()) for _ in range(2))
    assert len({first.id, second.id}) == len({first.salt, second.salt}) == len({one, two}) == 2


def test_the_file_holds_no_key_and_is_its_owner_s_alone(tmp_path: Path) -> None:
    text, kept = mint("desk", ["predict", "batch"], now(), days=3)
    path = ring(tmp_path, kept)
    assert text.split("_", 2)[2] not in path.read_text()
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert keyring.read(path) == {kept.id: kept}


def test_a_key_is_valid_until_it_expires_or_is_revoked() -> None:
    start = now()
    _, key = mint("desk", ["predict"], start, days=1)
    assert key.state(start) == "valid"
    assert key.state(start + timedelta(days=1)) == "expired"
    assert key.model_copy(update={"revoked": start}).state(start) == "revoked"
    assert mint("desk", ["predict"], start)[1].state(start + timedelta(days=9999)) == "valid"


def test_a_changed_file_counts_after_the_interval_and_a_damaged_one_keeps_the_keys(tmp_path: Path) -> None:
    clock = [0.0]
    (old, first), (new, second) = (mint("desk", ["predict"], now()) for _ in range(2))
    path = ring(tmp_path, first)
    held = Keyring(path, 1.0, lambda: clock[0])
    ring(tmp_path, first, second)
    assert (held.find(old), held.find(new)) == (first, None)
    clock[0] = 1.0
    assert (held.find(old), held.find(new)) == (first, second)
    path.write_text("{")
    clock[0] = 2.0
    assert held.find(new) == second
    path.unlink()
    clock[0] = 3.0
    assert held.find(new) == second


@pytest.mark.parametrize("text", ["", "{", "[]", '{"keys": [{"id": "x"}]}', '{"keys": [], "other": 1}'])
def test_what_is_no_key_file_is_named_at_the_start(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys.json").write_text(text)
    with pytest.raises(InvalidSettings, match=r"keys\.json"):
        Keyring(tmp_path / "keys.json")


def test_a_time_without_zone_is_refused(tmp_path: Path) -> None:
    path = ring(tmp_path, mint("desk", ["predict"], now())[1])
    tree = json.loads(path.read_text())
    tree["keys"][0]["expires"] = "2030-01-01T00:00:00"
    path.write_text(json.dumps(tree))
    with pytest.raises(InvalidSettings):
        keyring.read(path)
