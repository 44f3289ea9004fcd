"""What a file's claims do to the label that its pixels got. The probability is never touched."""

from dataclasses import dataclass
from typing import Literal

from detector.provenance.judge import standing
from detector.provenance.vocabulary import AI_CLAIMS
from detector.schema import Confidence, DecidedBy, Evidence, Finding, Label

Accusing = Literal["decides", "raises", "reports"]  # ai_generated | at least uncertain | no effect
Unsigned = Literal["raises", "reports"]
Clearing = Literal["decides", "lowers", "reports"]  # real | at most uncertain | no effect


@dataclass(frozen=True)
class Policy:
    """signed_*: of an intact signature whose signer is trusted. Everything else counts as unsigned."""

    signed_generation: Accusing = "decides"
    signed_edit: Accusing = "raises"
    unsigned_claim: Unsigned = "raises"
    signed_capture: Clearing = "reports"


@dataclass(frozen=True)
class Ruling:
    label: Label
    confidence: Confidence
    decided_by: DecidedBy = "pixels"
    reason: str | None = None


def rule(evidence: Evidence, label: Label, confidence: Confidence, policy: Policy) -> Ruling:
    """label, confidence: what the pixels say. A trusted claim of generation goes before one of capture."""
    for finding in evidence.findings:
        effect = _effect(finding, policy)
        if effect == "decides" and finding.claim in AI_CLAIMS:
            return _decided("ai_generated", finding)
    capture = next((one for one in evidence.findings if one.claim == "captured" and standing(one) == "trusted"), None)
    if capture and policy.signed_capture == "decides":
        return _decided("real", capture)
    if label == "ai_generated" and capture and policy.signed_capture == "lowers":
        return Ruling("uncertain", "low", "provenance", f"{_speaker(capture)} says the photo was captured by a camera.")
    raising = next((one for one in evidence.findings if _effect(one, policy) == "raises"), None)
    if label == "real" and raising:
        return Ruling("uncertain", "low", "provenance", _raised(raising))
    return Ruling(label, confidence)


def _effect(finding: Finding, policy: Policy) -> str:
    if finding.claim not in AI_CLAIMS:
        return "reports"
    if standing(finding) != "trusted":
        return policy.unsigned_claim
    return policy.signed_generation if finding.claim == "generated" else policy.signed_edit


def _decided(label: Label, finding: Finding) -> Ruling:
    what = "captured by a camera" if label == "real" else "made or changed by a generator"
    return Ruling(label, "high", "provenance", f"{_speaker(finding)} says the photo was {what}.")


def _raised(finding: Finding) -> str:
    if standing(finding) == "trusted":
        return f"{_speaker(finding)} says the photo was changed by a generator."
    return f"The file says of itself that a generator was used ({finding.detail}), which no trusted signature supports."


def _speaker(finding: Finding) -> str:
    signer = finding.signature.signer if finding.signature else None
    return f"A trusted signature of {signer}" if signer else "A trusted signature"
