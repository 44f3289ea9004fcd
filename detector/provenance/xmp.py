"""XMP packets: the few properties that speak of where a picture came from.

A pull parser that refuses any document type, so no entity is ever declared or expanded, and that stops after
MAX_ELEMENTS. A packet that breaks off yields what stood before the break.
"""

import re
from contextlib import suppress
from typing import NamedTuple
from xml.parsers import expat

from detector.provenance.vocabulary import (
    AI_CLAIMS,
    WEIGHT,
    claim_of,
    claim_of_credit,
    clean,
    is_generator,
    term,
    vendor_of,
)
from detector.schema import Claim, Finding

MAX_ELEMENTS = 20_000  # of all packets of a file; 20,000 take 30 ms
MAX_VALUE = 65_536  # characters of one property
_NAMESPACES = {
    "http://iptc.org/std/Iptc4xmpExt/2008-02-29/": "Iptc4xmpExt",
    "http://ns.adobe.com/photoshop/1.0/": "photoshop",
    "http://ns.adobe.com/xap/1.0/": "xmp",
    "http://purl.org/dc/elements/1.1/": "dc",
    "http://purl.org/dc/terms/": "dcterms",
}
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_TC260 = re.compile(r"tc260\.org\.cn/ns/AIGC", re.IGNORECASE)
_JOB = re.compile(r"Job ID: [0-9a-f-]{36}", re.IGNORECASE)
TYPE = "Iptc4xmpExt:DigitalSourceType"
Properties = dict[str, list[str]]  # "prefix:Name" -> its values in the order they stand


class _Statement(NamedTuple):
    claim: Claim
    field: str
    value: str


_NOTHING = _Statement("none", "", "")


class _Enough(Exception):
    """More elements than a photo's packet has, or a document type."""


class _Collector:
    """Follows one packet; attributes and text become values of the nearest property around them."""

    def __init__(self, found: Properties, budget: int) -> None:
        self._found, self.budget = found, budget
        self._open: list[str | None] = []
        self._text: list[str] = []
        self._size = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.budget -= 1 + len(attributes)
        if self.budget < 0:
            raise _Enough
        self._flush()
        here = _known(name) or (self._open[-1] if self._open and name.startswith(_RDF) else None)
        self._open.append(here)
        for attribute, value in attributes.items():
            known = here if attribute == f"{_RDF} resource" else _known(attribute)
            self._keep(known, value)

    def end(self, _: str) -> None:
        self._flush()
        self._open.pop()

    def text(self, text: str) -> None:
        if self._open and self._open[-1] and self._size < MAX_VALUE:
            self._size += len(text)
            self._text.append(text)

    def refuse(self, *_: object) -> None:
        raise _Enough

    def _flush(self) -> None:
        if self._text:
            self._keep(self._open[-1], "".join(self._text))
            self._text, self._size = [], 0

    def _keep(self, name: str | None, value: str) -> None:
        if name and value.strip():
            self._found.setdefault(name, []).append(value.strip()[:MAX_VALUE])


def _known(name: str) -> str | None:
    space, _, local = name.rpartition(" ")
    if _TC260.search(space):
        return f"TC260:{local}"
    prefix = _NAMESPACES.get(space)
    return f"{prefix}:{local}" if prefix else None


def parse(packets: list[bytes]) -> Properties:
    """The known properties of all packets together."""
    found: Properties = {}
    budget = MAX_ELEMENTS
    for packet in packets:
        collector = _Collector(found, budget)
        wide = packet[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in packet[:4]
        parser = expat.ParserCreate("utf-16" if wide else "utf-8", " ")
        parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
        parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = collector.refuse
        parser.StartElementHandler, parser.EndElementHandler = collector.start, collector.end
        parser.CharacterDataHandler = collector.text
        with suppress(_Enough, expat.ExpatError):
            parser.Parse(packet.rstrip(b"\0"), True)
        budget = max(collector.budget, 0)
    return found


def read(found: Properties, prompts: bool) -> list[Finding]:
    """The AI label, credit and tool named; nothing where the packets speak of neither generation nor capture."""
    names = _names(found)
    typed = _weightiest([(claim_of(value), TYPE, value) for value in found.get(TYPE, [])])
    named = _weightiest([(_claim_of_name(field, value), field, value) for field, value in names])
    if typed.claim in AI_CLAIMS:  # one statement, said twice
        named = _NOTHING
    return [
        Finding(
            source="xmp",
            claim=stated.claim,
            detail=f"{stated.field}: {term(stated.value) if stated.field == TYPE else clean(stated.value)}",
            vendor=_vendor(found, names) if stated.claim in AI_CLAIMS else None,
            generator=_generator(found, names) if stated.claim in AI_CLAIMS else None,
            digital_source_type=term(stated.value) if stated.field == TYPE else None,
            prompt=_prompt(found) if prompts and stated.claim in AI_CLAIMS else None,
        )
        for stated in (typed, named)
        if stated.claim != "none"
    ]


def remote_manifest(found: Properties) -> bool:
    """Whether the packet says that a C2PA manifest lies at an address."""
    return any(value.startswith(("http:", "https:")) for value in found.get("dcterms:provenance", []))


def labels(found: Properties) -> list[str]:
    """China's AIGC label, as its JSON text."""
    return found.get("TC260:AIGC", [])


def _weightiest(statements: list[tuple[Claim, str, str]]) -> _Statement:
    return min((_Statement(*one) for one in statements), key=lambda one: WEIGHT.index(one.claim), default=_NOTHING)


def _claim_of_name(field: str, value: str) -> Claim:
    if field == "Iptc4xmpExt:AISystemUsed":
        return "generated"
    if field == "xmp:CreatorTool":
        return "generated" if is_generator(value) else "none"
    return claim_of_credit(value)


def _names(found: Properties) -> list[tuple[str, str]]:
    fields = ("xmp:CreatorTool", "photoshop:Credit", "photoshop:Source", "Iptc4xmpExt:AISystemUsed")
    return [(field, value) for field in fields for value in found.get(field, [])]


def _vendor(found: Properties, names: list[tuple[str, str]]) -> str | None:
    if any(_JOB.search(value) for value in found.get("dc:description", [])):
        return "Midjourney"
    return next((vendor for _, value in names if (vendor := vendor_of(value))), None)


def _generator(found: Properties, names: list[tuple[str, str]]) -> str | None:
    used = found.get("Iptc4xmpExt:AISystemUsed")
    if used:
        return clean(" ".join([used[0], *found.get("Iptc4xmpExt:AISystemVersionUsed", [])[:1]]))
    return next((clean(value) for field, value in names if field == "xmp:CreatorTool" and is_generator(value)), None)


def _prompt(found: Properties) -> str | None:
    stated = [*found.get("Iptc4xmpExt:AIPromptInformation", []), *found.get("dc:description", [])]
    return clean(stated[0], 2_000) if stated else None
