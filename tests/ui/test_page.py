"""The page in a real browser, before the real service: what a moderator does, and what may go wrong."""

import csv
import io
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Download, Page, Request, expect, sync_playwright

from detector.client import Client
from detector.words import headline
from tests import serving
from tests.conftest import encoded, make_photo

PYTHON = serving.ROOT / ".venv" / "ui" / "bin" / "python"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]
WAIT = 30_000  # milliseconds


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium; CI must have one."""
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
    )
    if not found and "CI" not in os.environ:
        pytest.skip("no Chromium on this machine")
    assert found, "the page's tests need Chromium"
    expect.set_options(timeout=WAIT)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def page_server(service: str, log: Path) -> Iterator[str]:
    """The page's own process, from its own environment; its address."""
    port = serving.free_port()
    environ = serving.environment(log.parent, PPD_ADDRESS=service)
    with log.open("w") as out:
        command = [str(PYTHON), "-m", "gradio_app", "--port", str(port)]
        process = subprocess.Popen(command, cwd=serving.ROOT, env=environ, stdout=out, stderr=out)
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 180
        while not _answers(address):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-4000:]
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(60)


def _answers(address: str) -> bool:
    try:
        return httpx.get(address, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def address(service: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("ui") / "page.log"
    with page_server(str(service.base_url).rstrip("/"), log) as made:
        yield made
    assert "Traceback" not in log.read_text()


Open = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser, address: str) -> Iterator[Open]:
    """Opens the page in a fresh profile; afterwards no request left its origin and no script failed."""
    with opening(browser, address) as opened:
        yield opened


@contextmanager
def opening(browser: Browser, address: str) -> Iterator[Open]:
    requests: list[str] = []
    failures: list[str] = []
    contexts = []

    def note(request: Request) -> None:
        requests.append(request.url)

    def opened(scheme: str = "light", width: int = 1200) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if scheme == "dark" else "light",
            permissions=["clipboard-read", "clipboard-write", "camera"],
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT)
        page.on("request", note)
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.goto(address)
        expect(page.locator("#banner .banner")).not_to_contain_text("Asking")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert requests
    assert [url for url in requests if not url.startswith((address, "data:", "blob:"))] == []
    assert failures == []


@pytest.fixture
def photo_path(tmp_path: Path) -> Path:
    path = tmp_path / "mug.jpg"
    path.write_bytes(encoded(make_photo(320, 240), quality=90))
    return path


def choose(page: Page, path: Path) -> None:
    page.set_input_files("#one-photo input[type=file]", path)


def opacity(page: Page, name: str = "one") -> float:
    return float(page.locator(f"#{name}-figure img.heat").evaluate("image => getComputedStyle(image).opacity"))


def test_a_photo_has_its_verdict_its_heat_map_and_its_facts(
    open_page: Open, service: httpx.Client, photo_path: Path
) -> None:
    with Client(str(service.base_url)) as client:
        expected = client.predict(photo_path)
    page = open_page()
    choose(page, photo_path)
    card = page.locator("#one-card .verdict")
    expect(card.locator("h2")).to_contain_text(headline(expected.label))
    expect(card).to_contain_text(f"{100 * expected.probability:.1f} %")
    expect(card).to_contain_text("mug.jpg")
    page.locator("#one-facts summary").click()
    expect(page.locator("#one-facts")).to_contain_text(sha256(photo_path.read_bytes()).hexdigest())
    drawn = page.locator("#one-figure img").evaluate_all("all => all.map(one => one.complete && one.naturalWidth)")
    assert drawn == [320, 320, 320]


def test_the_decision_id_is_copied(open_page: Open, photo_path: Path) -> None:
    page = open_page()
    choose(page, photo_path)
    page.locator("#one-card button.copy").click()
    expect(page.locator("#one-card button.copy")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#one-card code").inner_text()


def test_opacity_and_zoom_move_in_the_browser_and_by_the_keyboard(open_page: Open, photo_path: Path) -> None:
    page = open_page()
    choose(page, photo_path)
    page.locator("#one-figure img.heat").wait_for()
    assert opacity(page) == 0.5
    page.locator("#one-heat input[type=range]").focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#one-figure img.heat")).to_have_css("opacity", "0.7")
    wide = page.locator("#one-figure .sheet").first
    before = wide.bounding_box()
    page.locator("#one-zoom input[type=number]").fill("200")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#one-figure .sheet').offsetWidth > 800")
    after = wide.bounding_box()
    assert before and after and after["width"] == pytest.approx(2 * before["width"], rel=0.01)
    page.locator("#one-figure .pane").first.evaluate("pane => pane.scrollTo(100, 50)")
    page.wait_for_function("document.querySelectorAll('#one-figure .pane')[1].scrollLeft === 100")


def test_another_colour_map_is_drawn_anew(open_page: Open, photo_path: Path) -> None:
    page = open_page()
    choose(page, photo_path)
    heat = page.locator("#one-figure img.heat")
    first = heat.get_attribute("src")
    page.locator("#one-colours input").click()
    page.get_by_role("option", name="jet").click()
    expect(page.locator("#one-figure figcaption").last).to_contain_text("red places speak for AI")
    assert heat.get_attribute("src") != first
    page.get_by_role("tab", name="History").click()
    expect(page.locator("#history tbody tr")).to_have_count(1)


def test_a_broken_photo_is_refused_in_the_service_s_words(open_page: Open, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no photo")
    page = open_page()
    choose(page, broken)
    expect(page.locator("#one-card .verdict.error")).to_contain_text("does not begin like an image")
    expect(page.locator("#one-card")).to_contain_text("unsupported_type")
    expect(page.locator("#one-figure img")).to_have_count(0)


def test_a_camera_s_picture_is_judged(open_page: Open) -> None:
    page = open_page()
    page.locator("#one-photo [aria-label='capture photo'], #one-photo [aria-label='Capture from camera']").last.click()
    page.locator("#one-photo").get_by_text("Click to Access Webcam").click()
    expect(page.locator("#one-photo video")).to_have_js_property("readyState", 4)  # it shows a picture to take
    page.locator("#one-photo [title='capture photo'], #one-photo [aria-label='capture photo']").last.click()
    page.locator("#one-card .verdict h2").wait_for()


def test_many_photos_with_a_broken_one(open_page: Open, tmp_path: Path) -> None:
    paths = []
    for number in range(3):
        paths.append(tmp_path / f"photo{number}.jpg")
        paths[-1].write_bytes(encoded(make_photo(100 + number, 90, number)))
    paths.insert(1, tmp_path / "broken.jpg")
    paths[1].write_bytes(b"no photo")
    page = open_page()
    page.get_by_role("tab", name="Many photos").click()
    page.set_input_files("#many-files input[type=file]", paths)
    expect(page.locator("#many-files")).to_contain_text("photo2")
    page.locator("#many-check").click()
    expect(page.locator("#many-summary")).to_contain_text("4 photos:")
    expect(page.locator("#many-summary")).to_contain_text("1 not judged")
    rows = page.locator("#many-table .virtual-body [role=row]")
    expect(rows).to_have_count(4)
    expect(rows.nth(1)).to_contain_text("does not begin like an image")
    expect(page.locator("#many-gallery .thumbnail-item")).to_have_count(4)

    page.locator("#many-table th").nth(1).locator(".cell-menu-button").click()
    page.get_by_role("menuitem", name="Sort ascending").click()
    expect(rows.first).to_contain_text("broken.jpg")
    rows.nth(1).get_by_role("gridcell").nth(1).click()
    expect(page.locator("#many-card")).to_contain_text("photo0.jpg")
    page.locator("#many-figure img.heat").wait_for()

    page.locator("#many-filter").get_by_text("Errors").click()
    expect(rows).to_have_count(1)
    expect(page.locator("#many-gallery .thumbnail-item")).to_have_count(1)
    page.locator("#many-gallery .thumbnail-item").click()
    expect(page.locator("#many-card .verdict.error")).to_contain_text("broken.jpg")
    expect(page.locator("#many-figure img")).to_have_count(0)


def saved(page: Page, button: str) -> str:
    with page.expect_download() as waiting:
        page.locator(button).click()
    download: Download = waiting.value
    return Path(download.path()).read_text(encoding="utf-8")


def test_the_history_is_saved_read_back_and_cleared(
    open_page: Open, service: httpx.Client, photo_path: Path, tmp_path: Path
) -> None:
    page = open_page()
    choose(page, photo_path)
    page.locator("#one-figure img.heat").wait_for()
    page.get_by_role("tab", name="History").click()
    expect(page.locator("#history tbody tr")).to_have_count(1)
    expect(page.locator("#history tbody")).to_contain_text("mug.jpg")
    (row,) = csv.DictReader(io.StringIO(saved(page, "#save-csv")))
    (document,) = json.loads(saved(page, "#save-json"))
    with Client(str(service.base_url)) as client:
        verdict = client.predict(photo_path)
    assert (row["photo"], row["label"], row["sha256"]) == ("mug.jpg", verdict.label, verdict.image.sha256)
    assert document["verdict"]["request_id"] == row["request_id"]
    assert document["verdict"]["probability"] == pytest.approx(verdict.probability, abs=1e-5)
    page.locator("#clear").click()
    expect(page.locator("#history")).to_contain_text("Nothing yet")
    assert list(csv.DictReader(io.StringIO(saved(page, "#save-csv")))) == []


def test_another_browser_session_sees_nothing_of_the_first(open_page: Open, photo_path: Path) -> None:
    first, second = open_page(), open_page()
    choose(first, photo_path)
    first.locator("#one-figure img.heat").wait_for()
    second.get_by_role("tab", name="History").click()
    expect(second.locator("#history")).to_contain_text("Nothing yet")


CONTRAST = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const ground = (node) => { for (; node; node = node.parentElement) {
    const colour = parse(getComputedStyle(node).backgroundColor);
    if (colour.length === 3 || colour[3] === 1) return colour; } return [255, 255, 255]; };
  const found = {};
  for (const name of ["h1", ".quiet", "#banner .banner", ".verdict h2", ".verdict .file", ".verdict .number", ".legend",
                      ".copyable code", "button.copy", "figcaption", "#one-check", "#one-heat label span"]) {
    const node = document.querySelector(name);
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(ground(node))].sort((x, y) => y - x);
    found[name] = (a + .05) / (b + .05);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_are_readable(scheme: str, open_page: Open, photo_path: Path) -> None:
    """At least 4.5:1, as WCAG AA asks."""
    page = open_page(scheme)
    choose(page, photo_path)
    page.locator("#one-figure img.heat").wait_for()
    faint = {name: ratio for name, ratio in page.evaluate(CONTRAST).items() if ratio < 4.5}
    assert faint == {}


def test_a_narrow_screen_needs_no_sideways_scrolling(open_page: Open, photo_path: Path) -> None:
    page = open_page(width=390)
    choose(page, photo_path)
    page.locator("#one-figure img.heat").wait_for()
    for name in ("One photo", "Many photos", "History", "About"):
        page.get_by_role("tab", name=name).click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name


def test_tabs_are_reached_by_the_keyboard(open_page: Open) -> None:
    page = open_page()
    page.get_by_role("tab", name="About").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#health")).to_contain_text("product-photo-detector")
    expect(page.locator("#health")).to_contain_text("Drift")


def test_the_page_forbids_other_hosts_and_names_no_api(address: str) -> None:
    answer = httpx.get(address, trust_env=False)
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert httpx.get(f"{address}/gradio_api/info", trust_env=False).json()["named_endpoints"] == {}
    assert '"analytics_enabled":false' in answer.text.replace(" ", "")


def test_the_page_survives_the_service_being_away(
    browser: Browser, bento_home: Path, photo_path: Path, tmp_path: Path
) -> None:
    port = serving.free_port()
    with (
        page_server(f"http://127.0.0.1:{port}", tmp_path / "page.log") as address,
        opening(browser, address) as open_page,
    ):
        page = open_page()
        expect(page.locator("#banner .down")).to_contain_text("does not answer")
        choose(page, photo_path)
        expect(page.locator("#one-card .verdict.error")).to_contain_text("asks again by itself")
        with serving.serving(bento_home, tmp_path / "serve.log", port):
            expect(page.locator("#banner .up")).to_be_visible(timeout=WAIT)
            page.locator("#one-figure img.heat").wait_for()
            expect(page.locator("#one-card .verdict.error")).to_have_count(0)
        page.locator("#one-check").click()
        expect(page.locator("#one-card .verdict.error")).to_contain_text("does not answer")
