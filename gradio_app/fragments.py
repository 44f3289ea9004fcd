"""The page's own HTML: verdict, heat map, banner, history. Text in, text out; everything from outside is escaped."""

from collections.abc import Mapping
from html import escape
from typing import Any

from pydantic import BaseModel

from detector import words
from detector.schema import Explanation, Health, Problem, Verdict
from gradio_app.records import Record

_MARKS = {"real": "●", "ai_generated": "▲", "uncertain": "◆", "error": "✕"}
_DEPTH, _LENGTH = 4, 500  # of data shown as it comes


def verdict(answer: Verdict, name: str) -> str:
    """A verdict in plain words, with its place between the thresholds."""
    limits = answer.thresholds
    return (
        f'<section class="verdict {answer.label}" aria-live="polite">'
        f'<p class="file">{escape(name)}</p>'
        f'<h2><span aria-hidden="true">{_MARKS[answer.label]}</span> {escape(words.headline(answer.label))}</h2>'
        f'<p class="number"><b>{words.percent(answer.probability)}</b> probability that it is AI-generated, '
        f"{escape(answer.confidence)} confidence</p>"
        f"{_meter(answer.probability, limits.real, limits.ai_generated)}"
        f"<p>{escape(words.meaning(answer.label, limits.real, limits.ai_generated))}</p>"
        f"{_copyable('Decision id', answer.decision_id or answer.request_id)}</section>"
    )


def problem(refusal: Problem, name: str, waiting: bool = False) -> str:
    """The service's own sentence; `waiting` says that the page asks again by itself."""
    again = "<p>This page asks again by itself as soon as the service answers.</p>" if waiting else ""
    file = f'<p class="file">{escape(name)}</p>' if name else ""
    return (
        f'<section class="verdict error" role="alert">{file}'
        f'<h2><span aria-hidden="true">{_MARKS["error"]}</span> {escape(refusal.title)}</h2>'
        f"<p>{escape(refusal.detail)}</p>{again}"
        f'<p class="quiet">{escape(refusal.code)}</p>{_copyable("Request id", refusal.request_id)}</section>'
    )


def _copyable(title: str, value: str) -> str:
    return (
        f'<p class="copyable">{title} <code>{escape(value)}</code> '
        f'<button type="button" class="copy" data-copy="{escape(value)}">Copy</button></p>'
    )


def _meter(probability: float, real: float, ai_generated: float) -> str:
    told = (
        f"{words.percent(probability)}; real below {words.threshold(real)}, "
        f"AI-generated from {words.threshold(ai_generated)}, uncertain between"
    )
    low, high, here = (f"{100 * value:.1f}%" for value in (real, ai_generated, probability))
    return (
        f'<div class="meter" role="img" aria-label="{escape(told)}">'
        f'<div class="scale"><i class="real" style="width:{low}"></i>'
        f'<i class="uncertain" style="left:{low};right:calc(100% - {high})"></i>'
        f'<i class="ai_generated" style="left:{high}"></i><b style="left:{here}"></b></div>'
        f'<div class="legend"><span>real, below {words.threshold(real)}</span><span>uncertain</span>'
        f"<span>AI, from {words.threshold(ai_generated)}</span></div></div>"
    )


def figure(answer: Explanation, photo: str) -> str:
    """The photo and the heat map over it, side by side; opacity and zoom are the properties --heat and --zoom.

    `answer` is drawn at alpha 1, so its overlay is the heat map in colours alone; `photo` is a data address.
    """
    facts, region = answer.verdict.image, answer.region
    left, top, right, bottom = region.box
    box = (
        f"left:{100 * left / facts.width:.2f}%;top:{100 * top / facts.height:.2f}%;"
        f"width:{100 * (right - left) / facts.width:.2f}%;height:{100 * (bottom - top) / facts.height:.2f}%"
    )
    image = f'<img src="{escape(photo)}" alt="The photo">'
    heat = escape(f"data:{answer.overlay.media_type};base64,{answer.overlay.data}")
    return (
        '<div class="evidence"><figure><div class="pane" tabindex="0" aria-label="Photo, scrolls when zoomed">'
        f'<div class="sheet">{image}</div></div><figcaption>Photo</figcaption></figure>'
        '<figure><div class="pane" tabindex="0" aria-label="Heat map, scrolls when zoomed">'
        f'<div class="sheet">{image}<img class="heat" src="{heat}" alt="Heat map of the evidence">'
        f'<i class="region" style="{box}"></i></div></div>'
        f"<figcaption>Heat map: {_scale(answer.colormap)}</figcaption></figure></div>"
        f"<p>The frame marks the {escape(region.name)} ninth, which holds {region.share:.0%} of the evidence for this "
        "label. Evidence is where the model looked, not a proof of what was changed there.</p>"
    )


def _scale(colormap: str) -> str:
    if colormap in {"turbo", "jet"}:
        return "red places speak for AI, blue ones for a photograph"
    return "bright places speak for AI, dark ones for a photograph"


def facts(answer: Verdict) -> str:
    """Everything else the verdict says, known fields first and any other as it comes."""
    image, model = answer.image, answer.model
    rows = {
        "Photo": f"{image.width} × {image.height} pixels, {image.format}, {image.bytes:,} bytes",
        "SHA-256": image.sha256,
        "Model": f"{model.name} {model.version}, profile {model.profile}",
        "Model hash": model.hash,
        "Time": f"{answer.timing.total:.0f} ms in the service",
    }
    if image.animated:
        rows["Frames"] = "the file moves; its first frame was judged"
    known = {
        "label",
        "probability",
        "confidence",
        "thresholds",
        "image",
        "model",
        "timing",
        "request_id",
        "decision_id",
    }
    others = {name: value for name, value in answer.model_dump(mode="json").items() if name not in known and value}
    return f'<details class="facts"><summary>Image facts and evidence</summary>{tree(rows | others)}</details>'


def tree(value: Any, depth: int = 0) -> str:
    """Data of any shape as nested lists, cut where it is deep or long."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if depth < _DEPTH and isinstance(value, Mapping):
        rows = (f"<dt>{escape(_title(name))}</dt><dd>{tree(one, depth + 1)}</dd>" for name, one in value.items())
        return f"<dl>{''.join(rows)}</dl>"
    if depth < _DEPTH and isinstance(value, list | tuple):
        return f"<ul>{''.join(f'<li>{tree(one, depth + 1)}</li>' for one in value)}</ul>" if value else "none"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "not known"}[value]
    text = str(value)
    return escape(text if len(text) <= _LENGTH else f"{text[:_LENGTH]}…")


def _title(name: Any) -> str:
    text = str(name).replace("_", " ")
    return text[:1].upper() + text[1:]


def banner(state: Health | Problem, address: str) -> str:
    """One line about the service."""
    if isinstance(state, Problem):
        return (
            f'<p class="banner down" role="alert"><b>{escape(state.title)}.</b> {escape(state.detail)} '
            "Trying again every few seconds.</p>"
        )
    if state.status != "ok" or state.model is None:
        return (
            '<p class="banner down" role="alert"><b>The service answers, but its model does not.</b> '
            "Trying again every few seconds.</p>"
        )
    model = state.model
    return f'<p class="banner up">Service ready: {escape(model.name)} {escape(model.version)} at {escape(address)}</p>'


def health(state: Health | Problem, address: str, drift: str) -> str:
    """Everything the service says of itself; drift in its own words."""
    if isinstance(state, Problem):
        return f'<div class="facts">{tree({"Address": address, "State": state.detail})}</div>'
    said = {name: value for name, value in state.model_dump(mode="json").items() if value is not None}
    return f'<div class="facts">{tree({"address": address} | said | {"drift": drift})}</div>'


def history(records: list[Record]) -> str:
    if not records:
        return '<p class="quiet">Nothing yet. Verdicts of this browser session will be listed here.</p>'
    rows = "".join(_row(one) for one in reversed(records))
    head = "".join(
        f'<th scope="col">{name}</th>' for name in ("", "Photo", "Verdict", "AI probability", "Time (UTC)", "Id")
    )
    return f'<div class="wide"><table class="history"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _row(one: Record) -> str:
    answer, refusal = one.verdict, one.problem
    picture = f'<img src="{escape(one.thumbnail)}" alt="">' if one.thumbnail else _MARKS["error"]
    said = f"{one.said}: {refusal.detail}" if refusal else one.said
    number = words.percent(answer.probability) if answer else ""
    source = answer or refusal
    cells = [
        picture,
        escape(one.name),
        f'<span class="tag {one.kind}">{_MARKS[one.kind]} {escape(said)}</span>',
        number,
        one.time.strftime("%H:%M:%S"),
        f"<code>{escape((answer and answer.decision_id) or (source.request_id if source else ''))}</code>",
    ]
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def summary(records: list[Record]) -> str:
    """How many of each, after a batch."""
    if not records:
        return '<p class="quiet">Choose photos, then check them.</p>'
    names = {"ai_generated": "AI-generated", "uncertain": "uncertain", "real": "real", "error": "not judged"}
    counts = [(kind, sum(one.kind == kind for one in records), name) for kind, name in names.items()]
    told = " ".join(f'<span class="tag {kind}">{_MARKS[kind]} {count} {name}</span>' for kind, count, name in counts)
    return f'<p aria-live="polite"><b>{len(records)} photos:</b> {told}</p>'
