"""What the gate costs a request, its metrics and its line in the log too: the bare app against the gated one.

One process, no network. Prints medians; the machine's load is in them, so both sides take turns in one run.
"""

import asyncio
import os
import statistics
import time
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from detector import keyring, logs
from detector.asgi import Door, Gate, Room
from detector.auth import Failures, Guard
from detector.exchange import Pace
from detector.keyring import Keyring
from detector.ratelimit import Budgets

BODY = bytes(100_000)
ROUNDS = 3000


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    size = len(await Request(scope, receive).body())
    await PlainTextResponse(str(size))(scope, receive, send)


def gated(folder: Path) -> tuple[Gate, str]:
    """A gate with everything on that needs no Redis, and a key to it."""
    text, kept = keyring.mint("bench", ["predict"], keyring.now())
    keyring.write(folder / "keys.json", {kept.id: kept})
    gate = Gate(
        bare,
        {"/predict": Door("POST", "predict", 200_000)},
        Room(32, 256, 2),
        Pace(10.0, 32_768),
        Guard(Keyring(folder / "keys.json"), None, Failures(20)),
        Budgets({"predict": "1200/second"}),
    )
    return gate, text


async def ask(app: ASGIApp, key: str) -> None:
    waiting = asyncio.get_running_loop().create_future()
    sent = False

    async def receive() -> Message:
        nonlocal sent
        if sent:
            await waiting
        sent = True
        return {"type": "http.request", "body": BODY, "more_body": False}

    async def send(_: Message) -> None:
        pass

    headers = [(b"x-api-key", key.encode()), (b"content-length", str(len(BODY)).encode())]
    scope = {"type": "http", "path": "/predict", "method": "POST", "headers": headers, "client": ("127.0.0.1", 1)}
    await app(scope, receive, send)


async def measure(gate: ASGIApp, key: str) -> tuple[float, float]:
    """Median milliseconds of the bare app and of the gated one, in turns."""
    times: dict[str, list[float]] = {"bare": [], "gated": []}
    sides: list[tuple[str, ASGIApp]] = [("bare", bare), ("gated", gate)]
    for turn in range(ROUNDS):
        for name, app in sides:
            started = time.perf_counter()
            await ask(app, key)
            if turn > ROUNDS // 10:
                times[name].append(1e3 * (time.perf_counter() - started))
    return statistics.median(times["bare"]), statistics.median(times["gated"])


def main() -> None:
    with TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
        with redirect_stdout(nowhere):
            logs.configure("INFO", "json")
        gate, key = gated(Path(folder))
        without, with_gate = asyncio.run(measure(gate, key))
    print(f"bare {without:.3f} ms, gated {with_gate:.3f} ms: the gate costs {with_gate - without:.3f} ms (p50)")


if __name__ == "__main__":
    main()
