"""training.card: the page says what the report says, in tables that Markdown can read."""

from copy import deepcopy

from detector.artefact import Artefact
from training.card import write_card


def test_every_profile_and_tier_stands_with_its_figure(judged: Artefact) -> None:
    report = judged.document("report.json")
    page = write_card(report)
    for profile, found in report["profiles"].items():
        for split in ("val", "test"):
            for tier, figures in found["splits"][split]["tiers"].items():
                assert f"| `{profile}` | {tier} | {figures['auc']['value']:.3f} (" in page
    for heading in ("Intended use", "Where it errs", "What it was taught and judged on", "Limits", "Measure it again"):
        assert f"## {heading}" in page
    assert "White shoes are the errors." in page
    assert "could not be read: 1." in page
    assert "| resize75 |" in page


def test_the_same_report_gives_the_same_page_and_another_figure_another(judged: Artefact) -> None:
    report = judged.document("report.json")
    assert write_card(report) == write_card(deepcopy(report))
    other = deepcopy(report)
    other["profiles"]["fast"]["splits"]["test"]["tiers"]["clean"]["auc"]["value"] = 0.123
    assert write_card(report) != write_card(other)


def test_a_source_that_is_flagged_too_often_is_marked(judged: Artefact) -> None:
    report = judged.document("report.json")
    source = report["profiles"]["accurate"]["splits"]["test"]["groups"]["sources"]["test-real-0"]
    source["real"] |= {"photos": 40, "flagged": {"hits": 4, "share": 0.1, "low": 0.03, "high": 0.24}}
    assert "| `test-real-0` ! | 40 | 10.0% (3.0% .. 24.0%) |" in write_card(report)


def test_every_row_of_a_table_has_the_cells_of_its_header(judged: Artefact) -> None:
    columns = 0
    for line in write_card(judged.document("report.json")).splitlines():
        if line.startswith("| "):
            columns = columns or line.count("|")
            assert line.count("|") == columns
        else:
            columns = 0


def test_a_figure_that_the_photos_cannot_give_is_a_dash(judged: Artefact) -> None:
    report = judged.document("report.json")
    report["experts"]["a"]["test"]["clean"]["auc"] = {"value": None, "low": None, "high": None}
    assert "| `a` | - |" in write_card(report)
