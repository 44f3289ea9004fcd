"""Rows of a scan: which columns there are, and a part of them as the bytes of a Parquet, CSV or JSONL file.

Knows neither how a photo was judged nor where parts are kept.
"""

import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, Literal

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from detector import facts
from detector.errors import DetectorError
from detector.schema import ImageFacts, Verdict

Format = Literal["parquet", "csv", "jsonl"]
Row = dict[str, Any]
Outcome = dict[str, Any]  # the columns that the photo's content alone decides
FACTS = tuple(name for name in facts.EDGES if name not in ("width", "height", "probability"))

SCHEMA = pa.schema(
    [
        ("index", pa.int64()),  # position in the catalogue, from 0
        ("address", pa.string()),
        ("source", pa.string()),
        ("id", pa.string()),
        ("verdict", pa.string()),  # real | ai_generated | uncertain; empty where there is an error
        ("probability", pa.float64()),
        ("confidence", pa.string()),
        ("decided_by", pa.string()),
        ("reason", pa.string()),
        ("error", pa.string()),
        ("error_detail", pa.string()),
        ("reused", pa.bool_()),  # the same content had been judged before in this run
        ("sha256", pa.string()),
        ("format", pa.string()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("bytes", pa.int64()),
        ("animated", pa.bool_()),
        *((name, pa.float64()) for name in FACTS),
        ("perceptual_hash", pa.string()),  # 16 hex digits, where asked for
        ("claim", pa.string()),  # what the file says of itself
        ("standing", pa.string()),
        ("generator", pa.string()),
        ("evidence", pa.string()),  # all of it, as the service's JSON
        ("model_hash", pa.string()),
        ("profile", pa.string()),
    ]
)


def of_verdict(verdict: Verdict, measured: Mapping[str, Any]) -> Outcome:
    """measured: the columns of FACTS, and perceptual_hash where wanted."""
    evidence = verdict.evidence
    generators = [finding.generator or finding.vendor for finding in evidence.findings] if evidence else []
    return {
        "verdict": verdict.label,
        "probability": verdict.probability,
        "confidence": verdict.confidence,
        "decided_by": verdict.decided_by,
        "reason": verdict.reason,
        **_image(verdict.image),
        **measured,
        "claim": evidence.claim if evidence else None,
        "standing": evidence.standing if evidence else None,
        "generator": next((name for name in generators if name), None),
        "evidence": evidence.model_dump_json(exclude_none=True) if evidence and evidence.findings else None,
    }


def of_error(error: DetectorError, sha256: str | None = None, size: int | None = None) -> Outcome:
    return {"error": error.code, "error_detail": error.detail, "sha256": sha256, "bytes": size}


def encode(rows: Sequence[Row], format: Format) -> bytes:
    """One part's file."""
    if format == "jsonl":
        lines = (json.dumps({name: row.get(name) for name in SCHEMA.names}, ensure_ascii=False) for row in rows)
        return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
    table = pa.Table.from_pylist([_clean(row) for row in rows], SCHEMA)
    buffer = BytesIO()
    if format == "csv":
        pa.csv.write_csv(table, buffer)
    else:
        pa.parquet.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def decode(file: Any, format: Format, columns: Sequence[str]) -> pa.Table:
    """Some columns of a part's file."""
    if format == "parquet":
        return pa.parquet.read_table(file, columns=list(columns))
    if format == "csv":
        types = {field.name: field.type for field in SCHEMA}
        convert = pa.csv.ConvertOptions(
            include_columns=list(columns),
            column_types=types,
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )
        parse = pa.csv.ParseOptions(newlines_in_values=True)
        return pa.csv.read_csv(file, convert_options=convert, parse_options=parse)
    rows = (json.loads(line) for line in file)
    wanted = pa.schema([SCHEMA.field(name) for name in columns])
    return pa.Table.from_pylist([{name: row[name] for name in columns} for row in rows], wanted)


def _image(image: ImageFacts) -> Outcome:
    return {
        "sha256": image.sha256,
        "format": image.format,
        "width": image.width,
        "height": image.height,
        "bytes": image.bytes,
        "animated": image.animated,
    }


def _clean(row: Row) -> Row:
    """File names may hold bytes that are no UTF-8; they are shown, not lost."""
    address: str = row["address"]
    try:
        address.encode("utf-8")
    except UnicodeEncodeError:
        return row | {"address": address.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")}
    return row
