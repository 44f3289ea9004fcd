"""training.tracking: runs are kept in one local file, with how they ended."""

from pathlib import Path

import pytest

from training.tracking import runs, tracking


def test_a_run_keeps_its_settings_its_last_figures_and_how_it_ended(tmp_path: Path) -> None:
    store = tmp_path / "runs" / "mlflow.db"
    with tracking(store, "train", "first", {"steps": 5, "degradation": {"blur": 0.5}}) as run:
        run.log(1, {"auc_hard": 0.6, "auc_clean": 0.7})
        run.log(2, {"auc_hard": 0.65})
    with pytest.raises(RuntimeError), tracking(store, "train", "second", {}):
        raise RuntimeError
    with pytest.raises(KeyboardInterrupt), tracking(store, "train", "third", {}):
        raise KeyboardInterrupt
    first, second, third = runs(store, "train")
    assert first == {
        "name": "first",
        "status": "FINISHED",
        "settings": {"steps": "5", "degradation.blur": "0.5"},
        "figures": {"auc_hard": 0.65, "auc_clean": 0.7},
    }
    assert (second["status"], third["status"]) == ("FAILED", "KILLED")
    assert runs(store, "elsewhere") == []
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["mlflow.db"]
