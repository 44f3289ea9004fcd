"""China's implicit label of generated content (GB 45438-2025, TC260): a small JSON record in XMP, PNG text or EXIF."""

import html
import json

from detector.provenance.vocabulary import clean
from detector.schema import Finding

_STRENGTHS = {"1": "generated", "2": "possibly generated", "3": "suspected to be generated"}
_REQUIRED = ("Label", "ContentProducer", "ProduceID")
_COMPANIES = {"91110108MA01KP2T5U": "Zhipu"}  # unified social credit codes inside ContentProducer


def read(stated: list[str]) -> list[Finding]:
    """stated: the texts that may hold a label."""
    for text in stated:
        record = _record(html.unescape(text[:65_536]))
        label = str(record.get("Label", ""))
        if label in _STRENGTHS:
            producer = clean(str(record.get("ContentProducer", "")))
            return [
                Finding(
                    source="tc260",
                    claim="generated",
                    detail=f"AIGC label {label}: {_STRENGTHS[label]}",
                    vendor=next((name for code, name in _COMPANIES.items() if code in producer), None),
                    generator=f"producer {producer}" if producer else None,
                    lacking=tuple(name for name in _REQUIRED if not record.get(name)),
                )
            ]
    return []


def _record(text: str) -> dict[str, object]:
    """The innermost record with a Label, wherever in the text it stands."""
    at = text.find('"Label"')
    try:
        record = json.loads(text[max(text.rfind("{", 0, at), 0) : text.find("}", at) + 1]) if at >= 0 else {}
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}
