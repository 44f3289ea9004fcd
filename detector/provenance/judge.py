"""Findings -> one summary with its clashes. A pure function; what it does to a label is `policy`'s."""

from detector.provenance.manifest import pixels_changed
from detector.provenance.vocabulary import AI_CLAIMS, WEIGHT
from detector.schema import Clash, Evidence, Finding, Standing

_STANDINGS: tuple[Standing, ...] = ("trusted", "intact", "unsigned", "none")


def judge(findings: tuple[Finding, ...]) -> Evidence:
    """The weightiest claim is the best supported one, and among equals the one that says most of generation."""
    claims = [one for one in findings if one.claim != "none"]
    best = min(claims, key=_rank, default=None)
    return Evidence(
        claim=best.claim if best else "none",
        standing=standing(best) if best else "none",
        findings=findings,
        clashes=tuple(_clashes(findings)),
    )


def standing(finding: Finding) -> Standing:
    """A signature that does not hold supports no more than none."""
    if finding.signature and finding.signature.intact:
        return "trusted" if finding.signature.trusted else "intact"
    return "unsigned"


def _rank(finding: Finding) -> tuple[int, int]:
    return _STANDINGS.index(standing(finding)), WEIGHT.index(finding.claim)


def _clashes(findings: tuple[Finding, ...]) -> list[Clash]:
    clashes = []
    vendors = list(dict.fromkeys(one.vendor for one in findings if one.vendor and one.claim in AI_CLAIMS))
    if len(vendors) > 1:
        clashes.append(Clash(kind="generators_differ", detail=" and ".join(vendors[:3])))
    camera = next((one for one in findings if one.claim == "captured"), None)
    generator = next((one for one in findings if one.claim == "generated"), None)
    if camera and generator:
        detail = f"{camera.device or camera.source} says captured, {generator.generator or generator.source} generated"
        clashes.append(Clash(kind="camera_and_generator", detail=detail))
    if any(pixels_changed(one) for one in findings):
        clashes.append(Clash(kind="pixels_changed", detail="a signature holds, but over another picture than this"))
    return clashes
