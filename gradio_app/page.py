"""`build(client)`: the page's tabs and what each control is wired to; what happens then is `desk`'s.

The only module, beside `look`, that knows Gradio.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import gradio as gr

from detector.client import Client
from detector.schema import Colormap, Health, Problem
from gradio_app import desk, fragments, look, records
from gradio_app.desk import Desk, Judged, Seen
from gradio_app.records import Record

TITLE = "Product photo detector"
DOWN, UP = 3.0, 30.0  # seconds between two looks at the service
REMEMBERED = 500  # verdicts of one session
FILTERS = {
    "All": None,
    "AI-generated": "ai_generated",
    "Uncertain": "uncertain",
    "Photographs": "real",
    "Errors": "error",
}
_QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
_LOUD: dict[str, Any] = {"api_visibility": "private"}

ABOUT = """
A verdict is an estimate from pixels, calibrated so that of the photos given 80 %, about four in five are AI-generated,
on photos like those the model was tested with. It is not proof, and says nothing about who made a photo or why.

**It can be wrong on** strong retouching, renders and composites of real photographs, screenshots, heavy compression,
very small photos, and generators newer than the model. Between the two thresholds the answer is *uncertain*: a person
should look. Do not act on a verdict alone.

**The heat map** shows which places moved the model, coarsely. It does not outline edited regions.

**Your photos** go to the service for judging. This page keeps them and the history for this browser session only;
uploads are removed from its disk within two hours. It loads nothing from other hosts and counts nobody.
"""


def _as_uploaded(payload: Any) -> str | None:
    """An image's file as it came: the same bytes, and the service's opinion of broken ones instead of Gradio's."""
    return payload.path if payload else None


@dataclass(frozen=True)
class Evidence:
    """The heat map with its controls."""

    figure: gr.HTML
    colormap: gr.Dropdown


def build(client: Client) -> gr.Blocks:
    """The whole page over one service."""
    office = Desk(client)
    page: gr.Blocks = gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, 3600))
    with page:
        gr.HTML(
            "<h1>Product photo detector</h1><p class='quiet'>Photograph or AI-generated? An estimate, not proof.</p>"
        )
        banner = gr.HTML("<p class='banner'>Asking the service how it is …</p>", elem_id="banner")
        with gr.Accordion("API key", open=False):
            key = gr.Textbox(
                type="password",
                label="API key",
                info="Needed only where the service asks for one. Kept in this tab; nothing stores it.",
                elem_id="key",
            )
        session = gr.State([], delete_callback=list.clear)
        with gr.Tabs():
            with gr.Tab("One photo"):
                retry = _one(office, key, session)
            with gr.Tab("Many photos"):
                _many(office, key, session)
            with gr.Tab("History") as tab:
                _history(tab, session)
            with gr.Tab("About"):
                gr.Markdown(ABOUT)
                gr.HTML("<h2>The service</h2>")
                state = gr.HTML(elem_id="health")
        timer, up = gr.Timer(DOWN), gr.State(False)
        heard = _hear(office)
        page.load(heard, key, [banner, state, timer, up], **_QUIET)
        retry(timer.tick(heard, key, [banner, state, timer, up], **_QUIET), up)
    page.queue(default_concurrency_limit=8)
    return page


def _hear(office: Desk) -> Callable[[str], tuple[str, str, gr.Timer, bool]]:
    def heard(key: str) -> tuple[str, str, gr.Timer, bool]:
        state: Health | Problem = office.health(key)
        up = isinstance(state, Health) and state.status == "ok"
        address = office.client.address
        told = fragments.health(state, address, office.drift(key) if up else "")
        return fragments.banner(state, address), told, gr.Timer(UP if up else DOWN), up

    return heard


def _evidence(name: str) -> Evidence:
    """The heat map and its controls; sliders move in the browser alone."""
    with gr.Row():
        heat = gr.Slider(0, 100, 50, step=5, label="Heat map opacity (%)", elem_id=f"{name}-heat")
        zoom = gr.Slider(100, 600, 100, step=50, label="Zoom (%)", elem_id=f"{name}-zoom")
        colormap = gr.Dropdown(list(get_args(Colormap)), value="inferno", label="Colours", elem_id=f"{name}-colours")
    figure = gr.HTML(elem_id=f"{name}-figure")
    heat.change(None, heat, None, js=look.setting(f"{name}-figure", "heat"), **_QUIET)
    zoom.change(None, zoom, None, js=look.setting(f"{name}-figure", "zoom"), **_QUIET)
    return Evidence(figure, colormap)


def _one(office: Desk, key: gr.Textbox, session: gr.State) -> Callable[[Any, gr.State], None]:
    """The tab for one photo; returns how to ask again, after a look at the service has found it up."""
    waiting = gr.State(False)
    with gr.Row():
        with gr.Column():
            photo = gr.Image(
                type="filepath",
                image_mode=None,
                sources=["upload", "clipboard", "webcam"],
                label="Photo: upload, paste or camera",
                buttons=["fullscreen"],
                height=320,
                elem_id="one-photo",
            )
            photo.preprocess = _as_uploaded  # type: ignore[method-assign]
            check = gr.Button("Check", variant="primary", elem_id="one-check")
        with gr.Column():
            card = gr.HTML("<p class='quiet'>Choose a photo; the verdict appears here.</p>", elem_id="one-card")
    with gr.Column(visible=False) as shown:
        evidence = _evidence("one")
        facts = gr.HTML(elem_id="one-facts")

    def look_at(path: str | None, colormap: Colormap, key: str, past: list[Record]) -> tuple[Any, ...]:
        seen = office.look(path, colormap, key)
        return _show(seen, past)

    def again(
        path: str | None, colormap: Colormap, key: str, past: list[Record], waits: bool, up: bool
    ) -> tuple[Any, ...]:
        if not (waits and up):
            return (gr.skip(),) * 6
        seen = office.look(path, colormap, key)
        return (gr.skip(),) * 6 if seen.waiting else _show(seen, past)

    def recolour(path: str | None, colormap: Colormap, key: str) -> Any:
        return office.look(path, colormap, key).figure

    given = [photo, evidence.colormap, key, session]
    shows = [card, evidence.figure, facts, session, waiting, shown]
    gr.on([photo.change, check.click], look_at, given, shows, **_LOUD)
    evidence.colormap.change(recolour, [photo, evidence.colormap, key], evidence.figure, **_LOUD)

    def retry(heard: Any, up: gr.State) -> None:
        heard.then(again, [*given, waiting, up], shows, **_QUIET)

    return retry


def _show(seen: Seen, past: list[Record]) -> tuple[Any, ...]:
    """Card, figure, facts, history, whether to ask again, and whether there is evidence to see."""
    kept = [*past, seen.record][-REMEMBERED:] if seen.record and not seen.waiting else past
    return seen.card, seen.figure, seen.facts, kept, seen.waiting, gr.Column(visible=bool(seen.figure))


def _many(office: Desk, key: gr.Textbox, session: gr.State) -> None:
    everything, visible = gr.State([]), gr.State([])
    files = gr.File(file_count="multiple", type="filepath", label="Photos", height=180, elem_id="many-files")
    with gr.Row():
        check = gr.Button("Check all", variant="primary", elem_id="many-check")
        wanted = gr.Radio(list(FILTERS), value="All", label="Show", elem_id="many-filter")
    summary = gr.HTML(elem_id="many-summary")
    table = gr.Dataframe(
        headers=["#", "Photo", "Verdict", "AI %", "Confidence", "Error"],
        datatype=["number", "str", "str", "number", "str", "str"],
        column_widths=["56px", "220px", "170px", "84px", "120px", "260px"],
        interactive=False,
        wrap=True,
        max_height=360,
        label="Verdicts. ⋮ in a heading sorts; a row, or a picture below, shows its heat map.",
        elem_id="many-table",
    )
    gallery = gr.Gallery(
        show_label=False,
        columns=4,
        height=320,
        object_fit="contain",
        allow_preview=False,
        buttons=[],
        interactive=False,
        elem_id="many-gallery",
    )
    chosen = gr.State(None)
    card = gr.HTML(elem_id="many-card")
    with gr.Column(visible=False) as shown:
        evidence = _evidence("many")

    def judge(paths: list[str] | None, key: str, past: list[Record], progress: gr.Progress = gr.Progress()) -> Any:  # noqa: B008
        judged = office.judge(
            paths or [], key, lambda done, total: progress((done, total), desc="Checking", unit="photos")
        )
        kept = [*past, *(one.record for one in judged)][-REMEMBERED:]
        return judged, kept, "All", *_listed(judged, "All"), "", None, gr.Column(visible=False)

    def narrow(judged: list[Judged], name: str) -> tuple[Any, ...]:
        return _listed(judged, name)

    def show(one: Judged | None, colormap: Colormap, key: str) -> tuple[Any, ...]:
        seen = office.look(str(one.path), colormap, key) if one else desk.NOTHING
        return one, seen.card, seen.figure, gr.Column(visible=bool(seen.figure))

    def from_gallery(event: gr.SelectData, judged: list[Judged], colormap: Colormap, key: str) -> tuple[Any, ...]:
        return show(judged[event.index], colormap, key)

    def from_table(event: gr.SelectData, judged: list[Judged], colormap: Colormap, key: str) -> tuple[Any, ...]:
        number = int(event.row_value[0])
        return show(next((one for one in judged if one.number == number), None), colormap, key)

    lists = [visible, summary, table, gallery]
    gr.on(
        [check.click], judge, [files, key, session], [everything, session, wanted, *lists, card, chosen, shown], **_LOUD
    )
    wanted.input(narrow, [everything, wanted], lists, **_LOUD)
    opened = [chosen, card, evidence.figure, shown]
    gallery.select(from_gallery, [visible, evidence.colormap, key], opened, **_LOUD)
    table.select(from_table, [visible, evidence.colormap, key], opened, **_LOUD)
    evidence.colormap.change(show, [chosen, evidence.colormap, key], opened, **_LOUD)


def _listed(judged: list[Judged], name: str) -> tuple[Any, ...]:
    """The photos a filter lets through: themselves, their sum, table and gallery."""
    kind = FILTERS[name]
    kept = [one for one in judged if kind in (None, one.record.kind)]
    return kept, fragments.summary([one.record for one in judged]), desk.rows(kept), desk.pictures(kept)


def _history(tab: gr.Tab, session: gr.State) -> None:
    listed = gr.HTML(fragments.history([]), elem_id="history")
    with gr.Row():
        as_csv = gr.Button("Save as CSV", elem_id="save-csv")
        as_json = gr.Button("Save as JSON", elem_id="save-json")
        clear = gr.Button("Clear", elem_id="clear")
    text = gr.Textbox(visible=False)
    gr.on([tab.select, session.change], fragments.history, session, listed, **_QUIET)
    for button, write, name, kind in (
        (as_csv, records.to_csv, "verdicts.csv", "text/csv"),
        (as_json, records.to_json, "verdicts.json", "application/json"),
    ):
        button.click(write, session, text, **_QUIET).then(None, text, None, js=look.saving(name, kind), **_QUIET)
    clear.click(list, None, session, **_QUIET)
