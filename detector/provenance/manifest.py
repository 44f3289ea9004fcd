"""C2PA manifests: what is claimed, whether the signature holds, whether the signer is trusted.

Never goes to the network: a manifest kept elsewhere is not fetched, revocation is not asked. Claims are read by
the C2PA signal rubric of August 2026, along the chain of parents as far as MAX_CHAIN manifests.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from c2pa import C2paError, Context, Reader, Settings

from detector.errors import InvalidSettings
from detector.provenance.vocabulary import AI_CLAIMS, claim_of, clean, term, vendor_of
from detector.schema import Claim, Finding, Signature

MAX_CHAIN = 32  # manifests
MAX_REPORT = 8 * 1024 * 1024  # characters of the reader's JSON
MAX_PROBLEMS = 12
_MIMES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "AVIF": "image/avif"}
_EDIT_TYPES = {
    "trainedalgorithmicmedia",
    "compositewithtrainedalgorithmicmedia",
    "compositesynthetic",
    "trainedalgorithmicdata",
}
_INCEPTIONS = {"c2pa.created", "c2pa.opened"}
_NOT_EDITORIAL = {
    "c2pa.converted",
    "c2pa.published",
    "c2pa.repackaged",
    "c2pa.transcoded",
    "c2pa.resized.proportional",
    "c2pa.enhanced",
    "c2pa.edited.metadata",
    "c2pa.watermarked",
    "c2pa.watermarked.bound",
    "c2pa.watermarked.unbound",
    "c2pa.redacted",
}
_PIXELS_CHANGED = {"assertion.dataHash.mismatch", "assertion.boxesHash.mismatch", "assertion.bmffHash.mismatch"}
_LIBRARIES = ("c2pa", "google c2pa")  # name a signing library, not what made the picture
Manifest = dict[str, Any]


@dataclass(frozen=True)
class _Statement:
    """A claim, the action that makes it, and the manifests it rests on (their labels, the active one first)."""

    claim: Claim
    action: dict[str, Any]
    manifest: Manifest
    path: tuple[str, ...]


class ManifestReader:
    """Reads with one trust list; safe to use from several threads."""

    def __init__(self, trust_anchors: str | None = None) -> None:
        """trust_anchors: root certificates as PEM text; None trusts no one. Raises InvalidSettings."""
        settings: dict[str, Any] = {
            "verify": {"verify_trust": True, "remote_manifest_fetch": False, "ocsp_fetch": False},
            "core": {"allowed_network_hosts": []},
        }
        if trust_anchors is not None:
            settings["trust"] = {"trust_anchors": trust_anchors}
        try:
            self._context = Context(Settings.from_dict(settings))
        except C2paError:
            raise InvalidSettings("Configuration: provenance.trust_anchors holds no certificates in PEM.") from None

    def read(self, kind: str, data: bytes) -> Finding:
        """kind: JPEG | PNG | WEBP | AVIF. For a file that holds a manifest; an illegible one is a finding too."""
        try:
            store = self._store(kind, data)
            statement, problems = _statement(store), _problems(store)
            active = store["manifests"][store["active_manifest"]]
            signature = _signature(store, active, statement, problems)
        except Exception:  # hostile manifests find errors that the library names nowhere; its words stay here
            return illegible("a manifest that can't be read")
        return _finding(statement, signature)

    def _store(self, kind: str, data: bytes) -> Manifest:
        reader = Reader.try_create(_MIMES[kind], BytesIO(data), context=self._context)
        if reader is None:
            raise ValueError("no manifest")
        with reader:
            report = reader.json()
        if len(report) > MAX_REPORT:
            raise ValueError("report too long")
        store: Manifest = json.loads(report)
        return store


def illegible(detail: str) -> Finding:
    return Finding(source="c2pa", claim="none", detail=detail, signature=Signature(intact=False, trusted=False))


def pixels_changed(finding: Finding) -> bool:
    """Whether the signature holds and the picture under it is another."""
    problems = finding.signature.problems if finding.signature else ()
    return bool(_PIXELS_CHANGED & set(problems)) and "claimSignature.mismatch" not in problems


def _chain(store: Manifest) -> Iterator[tuple[tuple[str, ...], Manifest]]:
    """(path, manifest) from the active manifest along its parents; a ring ends where it closes."""
    label: Any = store.get("active_manifest")
    path: tuple[str, ...] = ()
    while isinstance(label, str) and label in store["manifests"] and label not in path and len(path) < MAX_CHAIN:
        manifest = store["manifests"][label]
        path = (*path, label)
        yield path, manifest
        label = next((one.get("active_manifest") for one in _ingredients(manifest, parent=True)), None)


def _ingredients(manifest: Manifest, parent: bool) -> Iterator[dict[str, Any]]:
    for one in manifest.get("ingredients", []):
        if isinstance(one, dict) and (one.get("relationship") == "parentOf") == parent:
            yield one


def _actions(manifest: Manifest) -> Iterator[dict[str, Any]]:
    for assertion in manifest.get("assertions", []):
        if str(assertion.get("label", "")).startswith("c2pa.actions"):
            yield from (one for one in assertion.get("data", {}).get("actions", []) if isinstance(one, dict))


def _type_of(action: dict[str, Any]) -> str:
    return str(action.get("digitalSourceType", ""))


def _inception(manifest: Manifest) -> tuple[Claim, dict[str, Any]]:
    for action in _actions(manifest):
        if action.get("action") == "c2pa.created":
            claim = claim_of(_type_of(action))
            return claim if claim in (*AI_CLAIMS, "captured") else "none", action
    return "none", {}


def _generative_edit(manifest: Manifest) -> dict[str, Any] | None:
    for action in _actions(manifest):
        name = action.get("action")
        if name in _INCEPTIONS or name in _NOT_EDITORIAL:
            continue
        if term(_type_of(action)).casefold() in _EDIT_TYPES:
            return action
    return None


def _statement(store: Manifest) -> _Statement:
    """How the picture began outweighs what was done to it, unless it began without a generator."""
    chain = list(_chain(store))
    last = chain[-1][1]
    claim, action = _inception(last)
    if claim in ("generated", "partly_generated"):
        return _Statement(claim, action, last, chain[-1][0])
    for path, manifest in chain:
        edit = _generative_edit(manifest)
        if edit:
            return _Statement("generative_edit", edit, manifest, path)
    for path, manifest in chain:
        for one in _ingredients(manifest, parent=False):
            label = str(one.get("active_manifest"))
            part = store["manifests"].get(label, {})
            if _inception(part)[0] in ("generated", "partly_generated"):
                return _Statement("partly_generated", _inception(part)[1], part, (*path, label))
    return _Statement(claim, action, last, chain[-1][0])


def _problems(store: Manifest) -> list[tuple[str, str]]:
    """(code, address) of every check that failed, in the active manifest and its ingredients."""
    failed = list(store.get("validation_status") or [])
    results = store.get("validation_results") or {}
    failed += (results.get("activeManifest") or {}).get("failure", [])
    for delta in results.get("ingredientDeltas") or []:
        failed += (delta.get("validationDeltas") or {}).get("failure", [])
    return list(dict.fromkeys((str(one.get("code")), str(one.get("url"))) for one in failed))


def _signature(store: Manifest, active: Manifest, statement: _Statement, problems: list[tuple[str, str]]) -> Signature:
    """Trust and expiry tell nothing of intactness; a claim of an ingredient needs its whole path to hold."""
    passed = (store.get("validation_results") or {}).get("activeManifest", {}).get("success", [])
    passed_codes = {one.get("code") for one in passed}
    concerned = [code for code, url in problems if any(label in url for label in statement.path) or "/c2pa/" not in url]
    intact = "claimSignature.validated" in passed_codes and all(
        code.startswith("signingCredential.") for code in concerned
    )
    trusted = intact and not concerned and "signingCredential.trusted" in passed_codes
    info = active.get("signature_info") or {}
    return Signature(
        intact=intact,
        trusted=trusted,
        signer=clean(str(info.get("issuer") or info.get("common_name") or "")) or None,
        time=clean(str(info.get("time") or ""), 40) or None,
        problems=tuple(dict.fromkeys(clean(code, 80) for code, _ in problems))[:MAX_PROBLEMS],
    )


def _finding(statement: _Statement, signature: Signature) -> Finding:
    made_by = _agent(statement)
    issuer = str((statement.manifest.get("signature_info") or {}).get("issuer", ""))
    generative = statement.claim in AI_CLAIMS
    what = (
        f"{clean(str(statement.action['action']), 40)}: {term(_type_of(statement.action))}"
        if statement.action
        else "no claim"
    )
    return Finding(
        source="c2pa",
        claim=statement.claim,
        detail=clean(f"{what} (of an ingredient)" if len(statement.path) > 1 else what),
        vendor=(vendor_of(made_by) or vendor_of(issuer) or _maker(issuer)) if generative else None,
        generator=made_by or None if generative else None,
        device=made_by or None if statement.claim == "captured" else None,
        digital_source_type=term(_type_of(statement.action)) or None,
        signature=signature,
    )


def _agent(statement: _Statement) -> str:
    """What made the picture: the action's software, its wording, or the claim's generator unless a mere library."""
    agent = statement.action.get("softwareAgent")
    if isinstance(agent, dict):
        agent = " ".join(str(agent[key]) for key in ("name", "version") if agent.get(key))
    if agent:
        return clean(str(agent))
    wording = clean(str(statement.action.get("description", "")))
    if wording.startswith("Created by "):
        return wording.removeprefix("Created by ").rstrip(".")
    named = [str(one.get("name", "")) for one in statement.manifest.get("claim_generator_info") or []]
    named = [name for name in named if not name.casefold().startswith(_LIBRARIES)]
    return clean(named[0] if named else str(statement.manifest.get("claim_generator") or ""))


def _maker(issuer: str) -> str | None:
    """A signer by its first word, for one who signs what its own generator made."""
    known = {"google": "Google", "openai": "OpenAI", "adobe": "Adobe", "black": "Black Forest Labs", "amazon": "Amazon"}
    return known.get(issuer.casefold().split(" ")[0])
