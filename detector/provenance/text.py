"""What generators write into PNG texts and EXIF comments: their settings, workflows and names.

Each program is told by the shape of its record, not by a word in it; the key `prompt` alone is no evidence.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from detector.provenance.vocabulary import claim_of_credit, clean, is_generator, vendor_of
from detector.schema import EvidenceSource, Finding

MAX_PROMPT = 2_000  # characters
MAX_JSON = 1_048_576  # characters
_INVOKE_KEYS = {"invokeai_metadata", "invokeai_graph", "invokeai_workflow", "sd-metadata"}
_PROGRAM_KEYS, _CREDIT_KEYS = {"software", "creator tool", "generator"}, {"source", "credit"}
_JOB = re.compile(r"\bJob ID: [0-9a-f]{8}-[0-9a-f-]{27}", re.IGNORECASE)
_FIELD = r"(?:^|[,\n] ?){name}: ?([^,\n]{{1,160}})"


def read(texts: list[tuple[str, str]], comments: list[str], prompts: bool) -> list[Finding]:
    """texts: a PNG's keyed texts. comments: EXIF's free texts. At most one finding a program."""
    found: dict[str, Finding] = {}
    for source, key, text in _statements(texts, comments):
        one = _recognise(source, key, text.strip(), prompts)
        if one:
            found.setdefault(one.detail.partition(":")[0], one)
    return list(found.values())


def _statements(texts: list[tuple[str, str]], comments: list[str]) -> Iterator[tuple[EvidenceSource, str, str]]:
    yield from (("png_text", key, text) for key, text in texts)
    for text in filter(None, comments):
        key = re.match(r"(prompt|workflow):", text, re.IGNORECASE)  # as ComfyUI's nodes write into WebP and JPEG
        yield "exif", key.group(1).casefold() if key else "comment", text[key.end() :] if key else text


def _recognise(source: EvidenceSource, key: str, text: str, prompts: bool) -> Finding | None:
    if key in _INVOKE_KEYS or (key == "Dream" and " -s" in text):
        return _finding(source, "InvokeAI", key, None, _pick(_parsed(text), "positive_prompt") if prompts else None)
    if key == "fooocus_scheme":
        return _finding(source, "Fooocus", key)
    if key == "sui_image_params" or '"sui_image_params"' in text[:200]:
        inner = _parsed(text).get("sui_image_params", _parsed(text))
        return _finding(source, "SwarmUI", key, _pick(inner, "model"), _pick(inner, "prompt") if prompts else None)
    if key.casefold() == "description" and _JOB.search(text):
        return _finding(source, "Midjourney", key, None, text if prompts else None)
    if (key.casefold() in _PROGRAM_KEYS and is_generator(text)) or (
        key.casefold() in _CREDIT_KEYS and claim_of_credit(text) == "generated"
    ):
        return _finding(source, clean(text), key)
    return _settings(source, key, text, prompts)


def _settings(source: EvidenceSource, key: str, text: str, prompts: bool) -> Finding | None:
    if text.startswith("{"):
        return _record(source, key, text, prompts)
    if _setting(text, "Steps") and (_setting(text, "Sampler") or _setting(text, "CFG scale")):
        prompt = re.split(r"\n(?:Negative prompt|Steps):", text, maxsplit=1)[0] if prompts else None
        return _finding(source, "A1111", key, _setting(text, "Model") or _setting(text, "Version"), prompt)
    return None


def _record(source: EvidenceSource, key: str, text: str, prompts: bool) -> Finding | None:
    """Records in JSON, told apart by the fields they hold."""
    if "mflux_version" in text[:MAX_JSON]:
        record = _parsed(text)
        model = _pick(record, "model") or _quoted(text, "model")
        return _finding(source, "MFLUX", key, model, _pick(record, "prompt") if prompts else None)
    record = _parsed(text)
    nodes = [node for node in record.values() if isinstance(node, dict)]
    if key == "prompt" and any("class_type" in node for node in nodes):
        inputs = [node["inputs"] for node in nodes if isinstance(node.get("inputs"), dict)]
        model = next((name for each in inputs for name in map(each.get, ("ckpt_name", "unet_name")) if name), None)
        prompt = next((each["text"] for each in inputs if isinstance(each.get("text"), str)), None)
        return _finding(source, "ComfyUI", key, str(model) if model else None, prompt if prompts else None)
    if key == "workflow" and isinstance(record.get("nodes"), list) and {"links", "last_node_id"} & record.keys():
        return _finding(source, "ComfyUI", key)
    if {"steps", "sampler", "uc"} <= record.keys():
        return _finding(source, "NovelAI", key, None, _pick(record, "prompt") if prompts else None)
    return None


def _finding(
    source: EvidenceSource, program: str, key: str, model: str | None = None, prompt: str | None = None
) -> Finding:
    named = clean(f"{program}, {model}") if model else program
    return Finding(
        source=source,
        claim="generated",
        detail=f"{program}: {clean(key, 40)}",
        vendor=vendor_of(program) or (vendor_of(model) if model else None),
        generator=named,
        prompt=clean(prompt, MAX_PROMPT) if prompt else None,
    )


def _parsed(text: str) -> dict[str, Any]:
    if len(text) > MAX_JSON:
        return {}
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _pick(record: Any, name: str) -> str | None:
    value = record.get(name) if isinstance(record, dict) else None
    return value if isinstance(value, str) else None


def _setting(text: str, name: str) -> str | None:
    """The value of a setting in the last lines of an A1111 record."""
    found = re.search(_FIELD.format(name=re.escape(name)), text[-8_192:])
    return clean(found.group(1)) if found else None


def _quoted(text: str, name: str) -> str | None:
    """A value in the form Python prints a dictionary."""
    found = re.search(rf"'{name}': '([^']{{1,160}})'", text[:8_192])
    return found.group(1) if found else None
