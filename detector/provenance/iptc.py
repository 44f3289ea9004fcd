"""IPTC-IIM, the older form of a caption's fields: credit, source and originating program.

Only whole fields that are a statement by their own wording count; a caption may hold any word.
"""

from collections.abc import Iterator

from detector.provenance.vocabulary import claim_of_credit, clean, is_generator, vendor_of
from detector.schema import Finding

MAX_DATASETS = 1_000
_FIELDS = {(2, 110): "Credit", (2, 115): "Source", (2, 65): "Originating Program"}  # IIM 4.2, record 2


def read(resources: list[bytes]) -> list[Finding]:
    """resources: runs of Photoshop image resources (8BIM)."""
    for field, value in (pair for block in resources for pair in _fields(block)):
        claim = claim_of_credit(value)
        if field == "Originating Program" and is_generator(value):
            claim = "generated"
        if claim != "none":
            return [Finding(source="iptc", claim=claim, detail=f"{field}: {clean(value)}", vendor=vendor_of(value))]
    return []


def _fields(block: bytes) -> Iterator[tuple[str, str]]:
    for records in _resources(block):
        at = 0
        for _ in range(MAX_DATASETS):
            if at + 5 > len(records) or records[at] != 0x1C:
                break
            length = int.from_bytes(records[at + 3 : at + 5])
            field = _FIELDS.get((records[at + 1], records[at + 2]))
            if field:
                yield field, records[at + 5 : at + 5 + length].decode("utf-8", "replace")
            at += 5 + length


def _resources(block: bytes) -> Iterator[bytes]:
    """The IIM resource (0x0404) of a run of 8BIM resources; a name is padded to even, so is the data."""
    at = 0
    for _ in range(MAX_DATASETS):
        if block[at : at + 4] != b"8BIM" or at + 12 > len(block):
            return
        name = 1 + block[at + 6]
        start = at + 6 + name + name % 2
        length = int.from_bytes(block[start : start + 4])
        if block[at + 4 : at + 6] == b"\x04\x04":
            yield block[start + 4 : start + 4 + length]
        at = start + 4 + length + length % 2
