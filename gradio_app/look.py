"""How the page looks: Gradio's theme with the system's fonts, our colours in light and dark, and a few lines of script.

Nothing is loaded from another host.
"""

import gradio as gr

FONTS = ["system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]


def theme() -> gr.themes.Base:
    return gr.themes.Base(
        primary_hue="blue",
        neutral_hue="slate",
        font=FONTS,
        font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"],
        radius_size="md",
    ).set(
        # Gradio's quiet texts have a contrast of 2.6:1; these have more than 7:1.
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
    )


CSS = """
:root { --real: #0b6b50; --ai: #a4262c; --unsure: #7a5300; --wrong: #4b5563; --line: #c3cad5; }
.dark { --real: #5fd3a8; --ai: #ff9a94; --unsure: #f2c14e; --wrong: #b6c0cf; --line: #475569; }
gradio-app, .gradio-container, .gradio-container > .main { min-width: 0 !important; max-width: 100vw !important; }
.gradio-container { width: 100% !important; }
.gradio-container > .main { max-width: min(1100px, 100vw) !important; margin: 0 auto; }
.gradio-container .html-container, .gradio-container .html-container > .prose { padding: 0; }
.gradio-container h1 { font-size: 1.5rem; margin: 0; }
.prose .quiet, .prose .file, .prose figcaption, .prose .legend { color: var(--body-text-color-subdued); }
.prose .file { overflow-wrap: anywhere; margin: 0; }
.prose .banner { margin: 0; padding: .4rem .75rem; border-radius: 8px; border: 1px solid var(--line); }
.prose .banner.down { border-color: var(--ai); border-left-width: 6px; }
.prose .banner.up { border-left: 6px solid var(--real); }
.verdict { border-style: solid; border-width: 1px 1px 1px 6px; border-radius: 8px; padding: .5rem 1rem;
  border-color: var(--line) var(--line) var(--line) var(--tone); --tone: var(--wrong); }
.verdict.real, .tag.real { --tone: var(--real); }
.verdict.ai_generated, .tag.ai_generated { --tone: var(--ai); }
.verdict.uncertain, .tag.uncertain { --tone: var(--unsure); }
.tag { color: var(--tone, var(--wrong)); margin-right: .75rem; white-space: nowrap; }
.history .tag { white-space: normal; }
.prose .verdict h2, .prose .verdict h2 span { color: var(--tone); margin: .25rem 0; font-size: 1.6rem; }
.prose .verdict p { margin: .5rem 0; }
.meter .scale { position: relative; height: 14px; border-radius: 7px; overflow: hidden; margin-top: .75rem; }
.meter i { position: absolute; top: 0; bottom: 0; opacity: .55; }
.meter i.real { left: 0; background: var(--real); }
.meter i.ai_generated { right: 0; background: var(--ai); }
.meter i.uncertain { background: repeating-linear-gradient(45deg, var(--unsure) 0 6px, transparent 6px 12px); }
.meter b { position: absolute; top: 0; bottom: 0; width: 5px; margin-left: -2px; background: var(--body-text-color); }
.meter .legend { display: flex; justify-content: space-between; gap: .5rem; font-size: .85rem; white-space: nowrap; }
.copyable code { overflow-wrap: anywhere; }
.prose button.copy { border: 1px solid var(--line); border-radius: 6px; padding: 0 .6rem; cursor: pointer;
  font-size: .85rem; font-weight: 400; background: var(--button-secondary-background-fill);
  color: var(--button-secondary-text-color); }
.evidence { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; }
.evidence figure { margin: 0; min-width: 0; }
.pane { overflow: auto; max-height: 70vh; border: 1px solid var(--line); border-radius: 8px; }
.sheet { position: relative; width: calc(100% * var(--zoom, 1)); }
.prose .sheet img { display: block; width: 100%; max-width: none; margin: 0; border-radius: 0; }
.prose .sheet img.heat { position: absolute; inset: 0; height: 100%; opacity: var(--heat, .5); }
.sheet .region { position: absolute; border: 2px solid #fff; box-shadow: inset 0 0 0 1px #000, 0 0 0 1px #000; }
.prose figcaption { margin: .35rem 0 .75rem; }
.facts summary { cursor: pointer; padding: .5rem 0; }
.facts dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .25rem 1rem; margin: 0; }
.facts dt { color: var(--body-text-color-subdued); }
.facts dd { margin: 0; overflow-wrap: anywhere; min-width: 0; }
.wide { overflow-x: auto; }
.prose table.history { border-collapse: collapse; width: 100%; border: 0; margin: 0; }
.prose .history th, .prose .history td { text-align: left; padding: .4rem .6rem;
  border-style: solid; border-width: 0 0 1px; border-color: var(--line); }
.prose .history tr { border: 0; }
.prose .history img { width: 64px; height: 48px; max-width: none; object-fit: cover; margin: 0; border-radius: 4px; }
.history td:nth-child(2), .history td:nth-child(6) { min-width: 9rem; overflow-wrap: anywhere; }
.history td:nth-child(3) { min-width: 9rem; }
.history td:nth-child(4), .history td:nth-child(5) { white-space: nowrap; }
#many-table th .cell-menu-button { display: flex !important; visibility: visible !important; opacity: 1 !important; }
#many-table td, #many-table th, #many-table td *, #many-table th *, #many-table [role=gridcell] * {
  font-family: var(--font) !important; }
:focus-visible { outline: 3px solid var(--color-accent) !important; outline-offset: 2px; }
@media (max-width: 640px) {
  .gradio-container > .main { padding: .75rem !important; }
  .evidence { grid-template-columns: minmax(0, 1fr); }
  .facts dl { grid-template-columns: minmax(0, 1fr); }
  .facts dt { margin-top: .4rem; }
  .tab-container button { padding: 0 .5rem !important; font-size: .85rem !important; }
}
"""

HEAD = """
<meta name="referrer" content="no-referrer">
<script>
document.addEventListener("click", async (event) => {
  const button = event.target.closest("button.copy");
  if (!button) return;
  try { await navigator.clipboard.writeText(button.dataset.copy); button.textContent = "Copied"; }
  catch { getSelection().selectAllChildren(button.previousElementSibling); button.textContent = "Selected"; }
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
});
document.addEventListener("scroll", (event) => {
  const pane = event.target;
  if (!pane.classList?.contains("pane")) return;
  for (const other of pane.closest(".evidence").querySelectorAll(".pane"))
    if (other !== pane) { other.scrollLeft = pane.scrollLeft; other.scrollTop = pane.scrollTop; }
}, true);
</script>
"""


def setting(element: str, name: str) -> str:
    """Script that puts a slider's percent into a property of `element`, in the browser alone."""
    return f"(value) => {{ document.getElementById('{element}').style.setProperty('--{name}', value / 100); }}"


def saving(name: str, media_type: str) -> str:
    """Script that saves a text as a file, so that no file lies on the page's server."""
    return f"""(text) => {{
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([text], {{type: "{media_type}"}}));
      link.download = "{name}";
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    }}"""
