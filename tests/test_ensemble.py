"""A profile runs just the experts it names, and fuses them at the logit."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from detector.ensemble import Spec
from tests.conftest import SPEC


def changed(**changes: Any) -> dict[str, Any]:
    return SPEC | changes


def test_a_plan_keeps_only_what_its_profile_needs() -> None:
    plan = Spec.model_validate(SPEC).plan("fast")
    assert [expert.name for expert in plan.experts] == ["b"]
    assert plan.views == (Spec.model_validate(SPEC).views[0],)
    assert plan.width == 16


def test_views_are_renumbered_to_match() -> None:
    spec = Spec.model_validate(changed(experts=[SPEC["experts"][0], SPEC["experts"][1] | {"views": [2]}]))
    assert spec.plan("fast").experts[0].views == (0,)
    assert spec.plan("fast").views == (spec.views[2],)


def test_the_fused_logit_is_the_weighted_sum_of_map_means() -> None:
    plan = Spec.model_validate(SPEC).plan("accurate")
    evidence = np.concatenate([np.full(48, 2.0), np.full(16, -1.0)]).astype(np.float32)
    assert plan.width == 64
    assert plan.logits(evidence) == {"a": 2.0, "b": -1.0}
    assert plan.fuse(evidence) == pytest.approx(0.25 + 1.0 * 2.0 + 0.5 * -1.0)


def test_maps_come_back_in_the_order_they_were_laid() -> None:
    plan = Spec.model_validate(SPEC).plan("accurate")
    maps = plan.split(np.arange(64, dtype=np.float32))
    assert maps["a"].shape == (3, 4, 4)
    assert maps["a"][1, 0, 0] == 16
    assert maps["b"][0, 0, 0] == 48


@pytest.mark.parametrize(
    "broken",
    [
        changed(profiles={"fast": {"weights": {"nobody": 1.0}}}),
        changed(experts=[SPEC["experts"][0] | {"views": [7]}], profiles={"p": {"weights": {"a": 1.0}}}),
        changed(experts=[SPEC["experts"][0], SPEC["experts"][0]]),
        changed(colour="blue"),
    ],
    ids=["unknown expert", "unknown view", "two of a name", "unknown field"],
)
def test_a_spec_that_contradicts_itself_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Spec.model_validate(broken)
