"""How many pods a load needs: arithmetic on what benchmarks/README.md and storm.md say. Measures nothing itself.

A pod is the chart's: its requests and the share of them at which more pods are asked for are read from values.yaml.
"""

import argparse
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
CHART = ROOT / "deploy" / "helm" / "product-photo-detector"
PAGE = ROOT / "docs" / "capacity.md"
LOADS = (5.0, 20.0, 50.0, 100.0, 200.0, 500.0)  # photos a second
ROUTE = "/predict x 8"  # the lightest load that keeps every core busy


@dataclass(frozen=True)
class Measured:
    """What the two pages say of one service on one machine."""

    cores: int
    photos: dict[str, float]  # photos a second, by route and callers
    p95: dict[str, float]  # ms, likewise
    idle_memory: float  # MiB of all processes after the loads
    storm_memory: float  # MiB after five minutes of 128 callers
    storm_probe: float  # s, p99 of /livez meanwhile


@dataclass(frozen=True)
class Pod:
    """What the chart asks for one pod, and when it asks for another."""

    cores: float
    memory: float  # MiB
    busy: float  # share of the cores
    most: int  # pods


@dataclass(frozen=True)
class Plan:
    photos: float  # a second
    pods: int  # with one that may be missing
    cores: float
    memory: float  # GiB


def measured(folder: Path = ROOT / "benchmarks") -> Measured:
    """Read both pages; KeyError or AttributeError where their tables have changed."""
    text, storm = (folder / "README.md").read_text("utf-8"), (folder / "storm.md").read_text("utf-8")
    seen, under_storm = _rows(text), _rows(storm)
    routes = [name for name in seen if re.search(r" x \d+$", name)]
    return Measured(
        int(_number(r"share the same (\d+) cores", text)),
        {name: float(seen[name][0]) for name in routes},
        {name: float(seen[name][3]) for name in routes},
        _number(r"^(\d+)", seen["resident memory of all processes"][0]),
        _number(r", (\d+) MiB", under_storm["memory before, after"][0]),
        _number(r"^(\d+) ms", under_storm["`/livez` p99 meanwhile"][0]) / 1000,
    )


def _rows(text: str) -> dict[str, list[str]]:
    lines = [[cell.strip() for cell in line.strip("| ").split("|")] for line in text.splitlines() if line[:2] == "| "]
    return {name: cells for name, *cells in lines}


def _number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    if not found:
        raise SystemExit(f"benchmarks: nothing there reads {pattern}; has the page's form changed?")
    return float(found[1])


def pod(values: dict[str, Any]) -> Pod:
    requests, scaling = values["resources"]["requests"], values["autoscaling"]
    busy = scaling["targetCPUUtilizationPercentage"] / 100
    return Pod(_cores(str(requests["cpu"])), mebibytes(requests["memory"]), busy, scaling["maxReplicas"])


def chart_values() -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    return values


def _cores(text: str) -> float:
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def mebibytes(text: str) -> float:
    factors = {"Mi": 1, "Gi": 1024}
    return float(text[:-2]) * factors[text[-2:]]


def photos_of(one: Pod, seen: Measured, route: str = ROUTE) -> float:
    """Photos a second that one pod is planned for: by its cores, at the share where another pod is asked for."""
    return seen.photos[route] / seen.cores * one.cores * one.busy


def plan(photos: float, one: Pod, seen: Measured) -> Plan:
    pods = math.ceil(photos / photos_of(one, seen)) + 1
    return Plan(photos, pods, pods * one.cores, pods * one.memory / 1024)


def sentence(wanted: Plan, one: Pod, seen: Measured) -> str:
    return (
        f"{wanted.photos:g} photos/s ({wanted.photos * 86_400:,.0f} a day): {wanted.pods} pods, one of which may be "
        f"missing; {wanted.cores:g} cores and {wanted.memory:.1f} GiB requested.\n"
        f"A pod of {one.cores:g} cores is planned for {photos_of(one, seen):.1f} photos/s, {one.busy:.0%} of what "
        f"was measured.\n"
        f"helm upgrade ... --set autoscaling.maxReplicas={max(wanted.pods, 2)}"
    )


def page(one: Pod, seen: Measured) -> str:
    """docs/capacity.md, whole."""
    plans = [plan(photos, one, seen) for photos in LOADS]
    rows = "\n".join(f"| {it.photos:g} | {it.pods} | {it.cores:g} | {it.memory:.1f} |" for it in plans)
    routes = {"/predict": ROUTE, "/explain": "/explain x 8", "/predict/batch": "/predict/batch of 20 x 2"}
    by_route = "\n".join(
        f"| `{name}` | {seen.photos[route]:.1f} | {photos_of(one, seen, route):.1f} | {seen.p95[route]:.0f} |"
        for name, route in routes.items()
    )
    return f"""# Capacity

`make capacity` writes this page from [benchmarks](../benchmarks/README.md), the [storm](../benchmarks/storm.md) and the
chart's `values.yaml`; `make bench` and `make storm` write it again. For another load:

    python -m benchmarks.capacity --photos-per-second 200

## One pod

Measured on {seen.cores} cores; a pod requests {one.cores:g} cores and {one.memory:.0f} MiB. More pods are asked for
when they use {one.busy:.0%} of their cores, so that is what a pod is planned for.

| route | photos/s on {seen.cores} cores | planned for a pod | p95 ms when full |
| --- | --- | --- | --- |
{by_route}

One caller alone waits {seen.p95["/predict x 1"]:.0f} ms (p95). The processes of a pod hold {seen.idle_memory:.0f} MiB
after the benchmark's loads and {seen.storm_memory:.0f} MiB after five minutes of 128 callers,
{seen.storm_memory / one.memory:.0%} of the request.

## Pods for a load

Of `/predict`, with one pod more than the load needs: one may be missing (a rollout, a lost node).

| photos/s | pods | cores | GiB |
| --- | --- | --- | --- |
{rows}

The chart's default of at most {one.most} pods carries {(one.most - 1) * photos_of(one, seen):.0f} photos/s with one pod
missing. `autoscaling.maxReplicas` is the number of pods above; `minReplicas` what has to be there before a peak begins,
for a new pod takes its start-up time to help.

## What this rests on

- Counted: decoding, the network and the HTTP around them, and the load generator, which shared the cores.
- Photos as in the benchmark. Larger ones cost more to decode; measure with your own where they are much larger.
- Pods scale evenly: they share nothing but Redis, whose own limit is not measured here.
- Not counted: the cache. A photo seen before costs no network, so repeats need fewer pods.
- Not measured: GPUs. The same arithmetic holds with the figures of `make bench` run on one.
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.capacity", description=__doc__)
    parser.add_argument("--photos-per-second", type=float, help="print the plan for this load; else write the page")
    wanted = parser.parse_args().photos_per_second
    one, seen = pod(chart_values()), measured()
    if wanted is None:
        PAGE.write_text(page(one, seen), encoding="utf-8")
        print(f"Written: {PAGE.relative_to(ROOT)}")
    elif wanted > 0:
        print(sentence(plan(wanted, one, seen), one, seen))
    else:
        parser.error("--photos-per-second must be above 0")


if __name__ == "__main__":
    main()
