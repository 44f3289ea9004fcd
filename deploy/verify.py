"""Is a running service the one that was meant? Its health, its verdict on a known photo, a refusal, its metrics.

With --record the verdict is written down; with --expect it has to be that one: a release is held, wherever it runs, to
what it said where it was built. Speaks through the client, which reads PPD_ADDRESS and PPD_API_KEY.
"""

import argparse
import sys
import time
from pathlib import Path

import httpx

from detector.client import Client
from detector.errors import DetectorError
from detector.schema import Verdict

PHOTO = Path(__file__).with_name("known.jpg")
BROKEN = b"\xff\xd8\xff no photograph"
COUNTED = "ppd_requests_total{"
TOLERANCE = 0.01  # of a probability; machines and engines differ by less


class Unverified(Exception):
    """What runs is not what was meant; says in what."""


def verify(client: Client, metrics: str, expected: Verdict | None = None, wait: float = 60.0) -> Verdict:
    """Return the verdict on the known photo; raises Unverified or the service's own DetectorError.

    metrics: the address that answers /metrics, which need not be the client's. wait: seconds until it has to be well.
    """
    _await_health(client, wait)
    before = _answered(metrics)
    verdict = client.predict(PHOTO)
    if expected:
        _compare(verdict, expected)
    _must_refuse(client)
    if _answered(metrics) <= before:
        raise Unverified(f"{metrics}/metrics did not count what was asked.")
    return verdict


def _await_health(client: Client, wait: float) -> None:
    deadline = time.monotonic() + wait
    while True:
        try:
            if client.health().status == "ok":
                return
        except DetectorError as error:
            if error.status < 500 or time.monotonic() > deadline:
                raise
        if time.monotonic() > deadline:
            raise Unverified(f"The service was not well within {wait:.0f} seconds.")
        time.sleep(0.2)


def _compare(verdict: Verdict, expected: Verdict) -> None:
    if verdict.model.hash != expected.model.hash:
        raise Unverified(f"Model {verdict.model.hash[:12]} answers; {expected.model.hash[:12]} was meant.")
    if verdict.label != expected.label or abs(verdict.probability - expected.probability) > TOLERANCE:
        raise Unverified(f"The known photo is {_said(verdict)}; {_said(expected)} was meant.")


def _said(verdict: Verdict) -> str:
    return f"{verdict.label} ({verdict.probability:.4f})"


def _must_refuse(client: Client) -> None:
    try:
        client.predict(BROKEN)
    except DetectorError as refusal:
        if refusal.status == 400:
            return
        raise
    raise Unverified("A broken photo was judged.")


def _answered(address: str) -> float:
    """How many requests the service has counted so far."""
    lines = httpx.get(f"{address.rstrip('/')}/metrics", timeout=10).raise_for_status().text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(COUNTED))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.verify", description=__doc__)
    parser.add_argument("--address", help="the service (PPD_ADDRESS; else http://localhost:3000)")
    parser.add_argument("--metrics", help="who answers /metrics, where it is another address")
    parser.add_argument("--wait", type=float, default=60.0, help="seconds the service may take to answer (60)")
    parser.add_argument("--expect", type=Path, help="a verdict that --record wrote")
    parser.add_argument("--record", type=Path, help="write the verdict to this file")
    options = parser.parse_args()
    expected = Verdict.model_validate_json(options.expect.read_bytes()) if options.expect else None
    try:
        with Client(options.address) as client:
            verdict = verify(client, options.metrics or client.address, expected, options.wait)
    except (Unverified, DetectorError, httpx.HTTPError) as error:
        sys.exit(f"Not verified: {error}")
    if options.record:
        options.record.write_text(verdict.model_dump_json(indent=2), encoding="utf-8")
    print(f"Verified: model {verdict.model.hash[:12]}, the known photo is {_said(verdict)}.")


if __name__ == "__main__":
    main()
