"""report.json -> docs/model-card.md: what the model is for, what it was taught, how good it is, and where it fails.

A pure function of the report, so that a committed card can be checked against the committed model.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from training.evaluate import MIXTURE

CEILING = 0.03  # share of a source's real photos flagged beyond which the card names it
FEWEST = 20  # photos of a source, generator or category below which a share says little
Report = Mapping[str, Any]

_INTENDED = """\
For people who look through listing photos: marketplaces, shops, agencies. The model estimates from pixels whether a
product photo was made by an image generator, and shows where in the photo its evidence lies. Use it to decide what a
person looks at first.

Not for: proof in a dispute, a penalty without a person's judgement, photos of people or of events, drawings and
renderings, text. A photo that was edited with generated parts is called by what most of it shows, if at all."""

_LIMITS = """\
- Real photos with retouched surfaces, coloured studio grounds or shallow focus are the usual false accusation; a
  generated garment or packshot on white is the usual miss. The tables above say how usual.
- New generators are caught worse than those the model has seen; every figure here is of sources that it has not seen.
- Small pictures and heavy compression take evidence away: the tier `hard` is 512 pixels at JPEG quality 40.
- A photo of a screen or print of a generated picture, and a picture altered to deceive detectors, were not measured.
- The probability's prior is that of the photos it was calibrated on; where few photos are generated, a positive
  verdict is wrong more often than its probability says."""

_REGENERATE = """\
    make evaluate DATA=path/to/manifest.csv MODEL=path/to/model   # measures, writes report.json into the model folder
    make card                                                    # writes this page from the embedded model's report"""


def write_card(report: Report) -> str:
    """The page, in Markdown; the same report gives the same page."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield "# Model card"
    yield ""
    yield "Generated from the model's own `report.json` by `make card`; do not edit. Intervals are 95 %, by resampling"
    yield "whole sources. No source stands in two splits: `train` taught, `val` chose checkpoints, fusion and"
    yield "calibration, `test` chose nothing."
    yield from _section("Intended use", [_INTENDED])
    yield from _section("What it is made of", _made_of(report))
    yield from _section("How good it is", _figures(report))
    yield from _section("Where it errs", _groups(report))
    yield from _section("How stable a verdict is", _stability(report))
    yield from _section("What each expert adds", _experts(report))
    yield from _section("What it was taught and judged on", _data(report))
    yield from _section("Limits", [_LIMITS, *report.get("notes", [])])
    yield from _section("Measure it again", [_REGENERATE])


def _section(title: str, blocks: Sequence[str] | Iterator[str]) -> Iterator[str]:
    yield ""
    yield f"## {title}"
    for block in blocks:
        yield ""
        yield block


def _made_of(report: Report) -> Iterator[str]:
    facts = report["model"]
    rows = [
        [f"`{expert['name']}`", f"`{expert['architecture']}`", f"{expert['views']}", f"{expert['bytes'] / 1e6:.1f} MB"]
        for expert in facts["experts"]
    ]
    yield _table(["expert", "architecture", "views a photo", "weights"], rows)
    rows = [
        [
            f"`{profile}`",
            ", ".join(f"`{name}`" for name in judged["experts"]),
            report["calibration"][profile]["method"],
            f"below {judged['thresholds']['real']:.4f}",
            f"from {judged['thresholds']['ai_generated']:.4f}",
        ]
        for profile, judged in report["profiles"].items()
    ]
    yield _table(["profile", "experts", "calibration", "`real`", "`ai_generated`"], rows)
    budget = next(iter(report["calibration"].values()))["budget"]
    yield (
        f"Between the two thresholds the answer is `uncertain`. They were set on held-out photos, each by the worst "
        f"tier: at most {budget['real_flagged']:.0%} of real photos are to be called `ai_generated`, with a confidence "
        f"of {budget['confidence']:.0%} by Clopper and Pearson's bound, and {budget['ai_missed']:.0%} of generated "
        f"ones `real`."
    )


def _figures(report: Report) -> Iterator[str]:
    for split in _splits(report):
        rows = []
        for profile, judged in report["profiles"].items():
            for tier, found in judged["splits"][split]["tiers"].items():
                rows.append(
                    [
                        f"`{profile}`",
                        tier,
                        _interval(found["auc"]),
                        _interval(found["tpr_at_1"]),
                        _interval(found["tpr_at_5"]),
                        _interval(found["balanced_accuracy"]),
                        _interval(found["fpr"]),
                        _interval(found["ece"]),
                    ]
                )
        yield f"On the split `{split}`, at the shipped threshold where one is needed:"
        header = ["profile", "tier", "AUC", "TPR at 1 % FPR", "TPR at 5 % FPR", "balanced accuracy", "FPR", "ECE"]
        yield _table(header, rows)
        found = report.get("null", {}).get(split)
        if found:
            yield (
                f"A classifier that sees sizes and quantisation tables but no pixel reaches AUC {_interval(found)} on "
                f"`{split}`: what that has over one half is the photos' saving and not the detector's merit."
            )
    yield (
        f"Tiers: `clean` as stored; `web` at most 768 pixels, JPEG quality 60; `hard` at most 512 pixels, quality 40; "
        f"`{MIXTURE}` all three together, which on `val` is what the calibration was fitted on."
    )


def _groups(report: Report) -> Iterator[str]:
    split = _splits(report)[-1]
    for profile, judged in report["profiles"].items():
        groups = judged["splits"][split]["groups"]
        rows = []
        for name, found in sorted(groups["sources"].items(), key=lambda entry: -entry[1]["real"]["flagged"]["share"]):
            if found["real"]["photos"] >= FEWEST:
                mark = " !" if found["real"]["flagged"]["share"] > CEILING else ""
                rows.append([f"`{name}`{mark}", str(found["real"]["photos"]), _share(found["real"])])
        yield f"`{profile}`, split `{split}`, clean: real sources of {FEWEST} photos or more (! above {CEILING:.0%}):"
        yield _table(["source", "photos", "called ai_generated"], rows)
        rows = [
            [f"`{name}`", str(found["ai"]["photos"]), _share(found["ai"]), _figure(found["auc"])]
            for name, found in sorted(groups["generators"].items(), key=lambda entry: -entry[1]["ai"]["photos"])
        ]
        yield f"`{profile}`, split `{split}`, clean: generators, against all real photos:"
        yield _table(["generator", "photos", "called ai_generated", "AUC"], rows)
        for kind in ("categories", "styles"):
            rows = [
                [
                    name,
                    str(found["real"]["photos"]),
                    _share(found["real"]),
                    str(found["ai"]["photos"]),
                    _share(found["ai"]),
                    _figure(found["auc"]),
                ]
                for name, found in groups[kind].items()
                if found["real"]["photos"] + found["ai"]["photos"] >= FEWEST
            ]
            if rows:
                yield f"`{profile}`, split `{split}`, clean: {kind} of {FEWEST} photos or more:"
                yield _table(
                    [kind, "real photos", "called ai_generated", "ai photos", "called ai_generated", "AUC"], rows
                )


def _stability(report: Report) -> Iterator[str]:
    split = _splits(report)[-1]
    rows = [
        [
            f"`{profile}`",
            name,
            f"{moved['changed']:.1%}",
            f"{moved['reversed']:.1%}",
            f"{moved['moved']:.3f}",
        ]
        for profile, judged in report["profiles"].items()
        for name, moved in judged["splits"][split]["stability"].items()
    ]
    yield f"How often the label of a photo of `{split}` changes when the photo is saved again:"
    yield _table(
        ["profile", "saved as", "label changes", "real <-> ai_generated", "mean move of the probability"], rows
    )


def _experts(report: Report) -> Iterator[str]:
    found = report["fusion"]["accurate"]
    rows = []
    for name, expert in found["experts"].items():
        gain = expert.get("gain")
        gained = f"{gain['auc']:+.4f} ({_signed(gain['low'])} .. {_signed(gain['high'])})" if gain else "-"
        rows.append(
            [f"`{name}`", f"{found['fusion']['weights'].get(name, 0):.3f}", f"{expert['alone']['auc']:.4f}", gained]
        )
    yield "On val, all tiers together, fusion fitted on other sources than those judged:"
    yield _table(["expert", "weight", "AUC alone", "AUC that the whole gains by it"], rows)
    for split in _splits(report):
        rows = [
            [f"`{name}`", *(_interval(tiers[split][tier]["auc"]) for tier in tiers[split])]
            for name, tiers in report["experts"].items()
        ]
        yield f"Alone, on `{split}`:"
        yield _table(["expert", *(f"AUC {tier}" for tier in next(iter(report["experts"].values()))[split])], rows)


def _data(report: Report) -> Iterator[str]:
    data = report["data"]
    rows = []
    for split, found in data["splits"].items():
        counted = [f"{found[name]['photos']:,} ({found[name]['sources']})" for name in ("real", "ai")]
        rows.append([f"`{split}`", *counted, str(found["generators"])])
    yield _table(["split", "real photos (sources)", "generated photos (sources)", "generators"], rows)
    yield (
        "Listing photos as sellers, shops and their photographers take them, and what generators make of the same "
        "subjects. No source stands in two splits. Pictures are not part of this repository."
    )
    licences = [[name, f"{count:,}"] for name, count in data["licences"].items()]
    yield "Licences, as stated where a photo was found; photos were used to train and measure and are not passed on:"
    yield _table(["licence", "photos"], licences)
    if data["broken"]:
        yield f"Left out because they could not be read: {len(data['broken'])}."
    yield f"Data `{report['labels']['data']}`, code `{report['labels']['commit']}`."


def _splits(report: Report) -> list[str]:
    return list(next(iter(report["profiles"].values()))["splits"])


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def _interval(found: Mapping[str, float | None]) -> str:
    value, low, high = (found[name] for name in ("value", "low", "high"))
    if low is None or high is None:
        return _figure(value)
    return f"{_figure(value)} ({_figure(low)} .. {_figure(high)})"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.4f}"


def _share(found: Mapping[str, Any]) -> str:
    flagged = found["flagged"]
    return f"{flagged['share']:.1%} ({flagged['low']:.1%} .. {flagged['high']:.1%})" if found["photos"] else "-"
