"""Findings become one summary, a label by policy, and facts about marking; all pure."""

import pytest
from hypothesis import given, seed
from hypothesis import strategies as st

from detector.provenance.compliance import check
from detector.provenance.judge import judge
from detector.provenance.policy import Policy, Ruling, rule
from detector.provenance.vocabulary import AI_CLAIMS, WEIGHT
from detector.schema import Claim, Evidence, Finding, Label, Signature

TRUSTED = Signature(intact=True, trusted=True, signer="Maker Inc.")
INTACT = Signature(intact=True, trusted=False, signer="Stranger")
BROKEN = Signature(intact=False, trusted=False, problems=("assertion.dataHash.mismatch",))


def finding(claim: Claim, signature: Signature | None = None, **more: object) -> Finding:
    values: dict[str, object] = {"source": "c2pa" if signature else "xmp", "claim": claim, "detail": "said so"}
    return Finding.model_validate(values | {"signature": signature} | more)


def evidence(*findings: Finding) -> Evidence:
    return judge(findings)


def test_nothing_said_is_nothing_known() -> None:
    empty = evidence()
    assert (empty.claim, empty.standing, empty.clashes) == ("none", "none", ())


def test_a_trusted_claim_outweighs_an_unsigned_one() -> None:
    fused = evidence(finding("generated"), finding("captured", TRUSTED))
    assert (fused.claim, fused.standing) == ("captured", "trusted")


@pytest.mark.parametrize(("signature", "standing"), [(TRUSTED, "trusted"), (INTACT, "intact"), (BROKEN, "unsigned")])
def test_a_claim_stands_on_its_signature(signature: Signature, standing: str) -> None:
    assert evidence(finding("generated", signature)).standing == standing


def test_two_vendors_clash() -> None:
    fused = evidence(finding("generated", vendor="Google"), finding("generated", vendor="OpenAI"))
    assert [(clash.kind, clash.detail) for clash in fused.clashes] == [("generators_differ", "Google and OpenAI")]


def test_one_vendor_named_twice_does_not_clash() -> None:
    assert evidence(finding("generated", vendor="Google"), finding("generated", TRUSTED, vendor="Google")).clashes == ()


def test_a_camera_and_a_generator_clash() -> None:
    fused = evidence(finding("captured", device="Nikon"), finding("generated", generator="ComfyUI"))
    assert [clash.kind for clash in fused.clashes] == ["camera_and_generator"]


@pytest.mark.parametrize("claim", ["partly_generated", "generative_edit", "enhanced"])
def test_an_edited_photo_may_well_name_its_camera(claim: Claim) -> None:
    assert evidence(finding("captured", device="Nikon"), finding(claim)).clashes == ()


@pytest.mark.parametrize("label", ["real", "uncertain", "ai_generated"])
def test_a_trusted_claim_of_generation_decides(label: Label) -> None:
    ruling = rule(evidence(finding("generated", TRUSTED)), label, "low", Policy())
    assert (ruling.label, ruling.confidence, ruling.decided_by) == ("ai_generated", "high", "provenance")
    assert ruling.reason == "A trusted signature of Maker Inc. says the photo was made or changed by a generator."


@pytest.mark.parametrize("signature", [None, INTACT, BROKEN])
@pytest.mark.parametrize("claim", AI_CLAIMS)
def test_any_other_claim_raises_to_uncertain_and_never_convicts(claim: Claim, signature: Signature | None) -> None:
    said = evidence(finding(claim, signature))
    raised = rule(said, "real", "high", Policy())
    assert (raised.label, raised.confidence, raised.decided_by) == ("uncertain", "low", "provenance")
    assert raised.reason
    for label in ("uncertain", "ai_generated"):
        assert rule(said, label, "medium", Policy()) == Ruling(label, "medium")


@pytest.mark.parametrize("claim", ["partly_generated", "generative_edit"])
def test_a_trusted_claim_of_an_edit_raises(claim: Claim) -> None:
    ruling = rule(evidence(finding(claim, TRUSTED)), "real", "high", Policy())
    assert (ruling.label, ruling.reason) == (
        "uncertain",
        "A trusted signature of Maker Inc. says the photo was changed by a generator.",
    )


@pytest.mark.parametrize("label", ["real", "uncertain", "ai_generated"])
def test_a_trusted_capture_overrides_no_pixels(label: Label) -> None:
    said = evidence(finding("captured", TRUSTED))
    assert (said.claim, said.standing) == ("captured", "trusted")
    assert rule(said, label, "medium", Policy()) == Ruling(label, "medium")


@pytest.mark.parametrize(
    ("policy", "said", "pixels", "label"),
    [
        (Policy(signed_generation="raises"), finding("generated", TRUSTED), "real", "uncertain"),
        (Policy(signed_generation="reports"), finding("generated", TRUSTED), "real", "real"),
        (Policy(signed_edit="decides"), finding("generative_edit", TRUSTED), "real", "ai_generated"),
        (Policy(signed_edit="reports"), finding("generative_edit", TRUSTED), "real", "real"),
        (Policy(unsigned_claim="reports"), finding("generated"), "real", "real"),
        (Policy(signed_capture="lowers"), finding("captured", TRUSTED), "ai_generated", "uncertain"),
        (Policy(signed_capture="lowers"), finding("captured", TRUSTED), "uncertain", "uncertain"),
        (Policy(signed_capture="decides"), finding("captured", TRUSTED), "ai_generated", "real"),
        (Policy(signed_capture="decides"), finding("captured", INTACT), "ai_generated", "ai_generated"),
        (Policy(signed_capture="decides"), finding("captured"), "ai_generated", "ai_generated"),
    ],
)
def test_each_setting_has_its_effect(policy: Policy, said: Finding, pixels: Label, label: Label) -> None:
    assert rule(evidence(said), pixels, "low", policy).label == label


FINDINGS = st.builds(
    finding,
    claim=st.sampled_from(WEIGHT),
    signature=st.sampled_from([None, TRUSTED, INTACT, BROKEN]),
    vendor=st.sampled_from([None, "Google", "OpenAI"]),
)


@seed(9)
@given(st.lists(FINDINGS, max_size=6), st.sampled_from(["real", "uncertain", "ai_generated"]))
def test_only_a_trusted_claim_of_generation_convicts_and_nothing_acquits(said: list[Finding], label: Label) -> None:
    ruling = rule(judge(tuple(said)), label, "low", Policy())
    if ruling.label == "ai_generated" and label != "ai_generated":
        assert any(one.claim == "generated" and one.signature == TRUSTED for one in said)
    assert ruling.label != "real" or label == "real"
    assert (ruling.decided_by == "pixels") == (ruling.reason is None)


@seed(9)
@given(st.permutations([finding("generated"), finding("captured", TRUSTED), finding("partly_generated", INTACT)]))
def test_the_order_of_findings_does_not_change_the_summary(said: list[Finding]) -> None:
    fused = judge(tuple(said))
    assert (fused.claim, fused.standing, len(fused.clashes)) == ("captured", "trusted", 1)


def labels(said: Evidence, pixels: Label, verdict: Label) -> dict[str, tuple[str, bool | None]]:
    return {one.regime: (one.label, one.expected) for one in check(said, pixels, verdict)}


def test_a_label_is_missing_where_none_stands() -> None:
    assert labels(evidence(), "ai_generated", "ai_generated") == {
        "eu_ai_act_article_50": ("missing", True),
        "google_merchant_center": ("missing", True),
        "gb_45438": ("missing", True),
    }
    assert labels(evidence(), "real", "real")["gb_45438"] == ("missing", False)
    assert labels(evidence(), "uncertain", "uncertain")["gb_45438"] == ("missing", None)


def test_each_rule_has_its_own_mark() -> None:
    typed = finding("generated", digital_source_type="trainedAlgorithmicMedia")
    signed = finding("generated", INTACT, digital_source_type="trainedAlgorithmicMedia")
    chinese = finding("generated", source="tc260", lacking=("ProduceID",))
    present = {
        name: {one.regime for one in check(evidence(said), "ai_generated", "ai_generated") if one.found}
        for name, said in (("typed", typed), ("signed", signed), ("chinese", chinese))
    }
    assert present == {
        "typed": {"eu_ai_act_article_50", "google_merchant_center"},
        "signed": {"eu_ai_act_article_50"},
        "chinese": {"eu_ai_act_article_50", "gb_45438"},
    }
    lacking = {one.regime: one.lacking for one in check(evidence(chinese), "ai_generated", "ai_generated")}
    assert lacking["gb_45438"] == ("ProduceID",)
    assert lacking["google_merchant_center"] == ("Iptc4xmpExt:DigitalSourceType",)
    assert lacking["eu_ai_act_article_50"] == ("an intact signature",)


def test_a_label_on_pixels_that_look_real_contradicts_them() -> None:
    said = evidence(finding("generated", digital_source_type="trainedAlgorithmicMedia"))
    assert labels(said, "real", "uncertain")["google_merchant_center"] == ("contradicts_pixels", None)
    assert labels(said, "ai_generated", "ai_generated")["google_merchant_center"] == ("present", True)


def test_a_capture_is_no_ai_label() -> None:
    assert {one.label for one in check(evidence(finding("captured", TRUSTED)), "real", "real")} == {"missing"}
