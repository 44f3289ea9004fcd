"""The command line mints, lists and revokes, and says what was wrong."""

from pathlib import Path

import pytest

from detector import keyring, keys


def test_rotation_is_a_second_key_and_a_revocation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "keys.json"
    texts = []
    for _ in range(2):
        assert keys.main([str(path), "mint", "desk", "--scopes", "predict,batch", "--days", "90"]) == 0
        texts.append(capsys.readouterr().out.strip())
    held = keyring.read(path)
    found = [keyring.find(text, held) for text in texts]
    assert [key and (key.name, key.scopes, key.state(keyring.now())) for key in found] == [
        ("desk", ("predict", "batch"), "valid")
    ] * 2
    assert keys.main([str(path), "revoke", texts[0].split("_")[1]]) == 0
    capsys.readouterr()
    assert keys.main([str(path), "list"]) == 0
    listed = capsys.readouterr().out
    assert (listed.count("revoked"), listed.count("valid")) == (1, 1)
    assert all(text.split("_", 2)[2] not in listed for text in texts)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["mint", "desk", "--scopes", "everything"], "scopes are predict, batch, explain, feedback, drift, admin"),
        (["mint", "a b"], "A name has letters"),
        (["revoke", "0" * 12], "can't be read"),
        (["list"], "can't be read"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert keys.main([str(tmp_path / "keys.json"), *arguments]) == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "keys.json").exists()


@pytest.mark.parametrize("days", ["0", "-1", "many", "99999"])
def test_days_are_a_positive_number(tmp_path: Path, days: str) -> None:
    with pytest.raises(SystemExit):
        keys.main([str(tmp_path / "keys.json"), "mint", "desk", "--days", days])
