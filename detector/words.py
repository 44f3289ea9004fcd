"""A verdict in plain words, for people: one wording for the terminal, notebooks and the web page.

Takes plain values and returns text; knows neither the schema nor how a page is drawn.
"""

from html import escape

HEADLINES = {
    "real": "Likely a photograph",
    "ai_generated": "Likely AI-generated",
    "uncertain": "Uncertain",
}


def headline(label: str) -> str:
    return HEADLINES.get(label, label)


def percent(probability: float) -> str:
    """0..1 in words that never round to certainty."""
    if probability < 0.001:
        return "under 0.1 %"
    if probability > 0.999:
        return "over 99.9 %"
    return f"{100 * probability:.1f} %"


def threshold(probability: float) -> str:
    return f"{round(100 * probability, 1):g} %"


def meaning(label: str, real: float, ai_generated: float) -> str:
    """What a label says and does not say at these thresholds."""
    low, high = threshold(real), threshold(ai_generated)
    if label == "real":
        return (
            f"The probability is below {low}, where this service calls a photo real. "
            "A careful forgery, or a generator the model has not seen, can land here too."
        )
    if label == "ai_generated":
        return (
            f"The probability is at or above {high}, the threshold from which this service says AI-generated. "
            "Some photographs land here as well: have a person look before acting on it."
        )
    return (
        f"The probability lies between {low} and {high}, where the pixels do not decide it. "
        "The service does not guess in this band: have a person look."
    )


def line(label: str, probability: float, confidence: str) -> str:
    """One line: label, probability, confidence."""
    return f"{headline(label)}: {percent(probability)} probability of AI, {confidence} confidence"


def card(label: str, probability: float, confidence: str, real: float, ai_generated: float) -> str:
    """A verdict as HTML, self-contained, for notebooks."""
    return (
        f'<div style="max-width:40em"><b>{escape(headline(label))}</b> '
        f"&middot; {percent(probability)} probability of AI &middot; {escape(confidence)} confidence"
        f"<br><small>{escape(meaning(label, real, ai_generated))}</small></div>"
    )


def table(header: list[str], rows: list[list[str]]) -> str:
    """Plain cells as an HTML table; every cell is escaped."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
