"""The record that Samsung's photo editor leaves behind the picture when generative editing was used."""

import re

from detector.schema import Finding

_TYPE = re.compile(rb'"genAIType"\s*:\s*"?(\d{1,6})')


def read(records: list[bytes]) -> list[Finding]:
    for record in records:
        found = _TYPE.search(record)
        if found and int(found.group(1)):
            detail = f"editor's record: genAIType {int(found.group(1))}"
            return [
                Finding(
                    source="samsung", claim="generative_edit", detail=detail, vendor="Samsung", generator="Galaxy AI"
                )
            ]
    return []
