"""Machine-readable AI labels as three rules speak of them. Facts about the file, not legal advice.

Covered: marks in metadata. Not covered: invisible watermarks, visible labels, whether a rule applies to the sender.
"""

from collections.abc import Iterable

from detector.provenance.judge import standing
from detector.provenance.vocabulary import AI_CLAIMS
from detector.schema import Evidence, Finding, Label, LabelCheck, LabelState, Regime


def check(evidence: Evidence, pixels: Label, verdict: Label) -> tuple[LabelCheck, ...]:
    """pixels: the label by the probability alone. verdict: the label as answered."""
    marks = [one for one in evidence.findings if one.claim in AI_CLAIMS]
    typed = [one for one in marks if one.source == "xmp" and one.digital_source_type]
    chinese = [one for one in marks if one.source == "tc260"]
    signed = any(standing(one) != "unsigned" for one in marks)
    return (
        _check("eu_ai_act_article_50", marks, () if signed else ("an intact signature",), pixels, verdict),
        _check("google_merchant_center", typed, () if typed else ("Iptc4xmpExt:DigitalSourceType",), pixels, verdict),
        _check("gb_45438", chinese, _lacking(chinese), pixels, verdict),
    )


def _check(regime: Regime, marks: list[Finding], lacking: Iterable[str], pixels: Label, verdict: Label) -> LabelCheck:
    state: LabelState = "missing" if not marks else "contradicts_pixels" if pixels == "real" else "present"
    return LabelCheck(
        regime=regime,
        label=state,
        expected=None if verdict == "uncertain" else verdict == "ai_generated",
        found=tuple(dict.fromkeys(one.source for one in marks)),
        lacking=tuple(lacking),
    )


def _lacking(labels: list[Finding]) -> tuple[str, ...]:
    return labels[0].lacking if labels else ("AIGC",)
