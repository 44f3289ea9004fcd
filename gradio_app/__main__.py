"""`python -m gradio_app`: serve the page. The service's address and key come from PPD_ADDRESS and PPD_API_KEY."""

import argparse
import os
from tempfile import TemporaryDirectory
from typing import Any

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from detector.client import Client, Retry

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; connect-src 'self' blob: data:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; frame-ancestors 'none'"
)
MAX_UPLOAD = "64mb"  # of one file; the service says what it takes, and its sentence is better than a cut connection
RETRY = Retry(attempts=3)  # a person watches, and the page asks again by itself


class SameOrigin:
    """Every answer forbids the browser to load anything from, or to be framed by, another host."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [
                    (b"content-security-policy", POLICY.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                ]
                message["headers"] = [*message.get("headers", []), *extra]
            await send(message)

        await self._app(scope, receive, marked)


def main() -> None:
    parser = argparse.ArgumentParser(prog="gradio_app", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all")
    parser.add_argument("--port", type=int, default=7860)
    options = parser.parse_args()
    with TemporaryDirectory(prefix="ppd-ui-") as uploads, Client(retry=RETRY) as client:
        serve(client, options.host, options.port, uploads)


def serve(client: Client, host: str, port: int, uploads: str) -> None:
    """Serve until interrupted; what is uploaded lies under `uploads`."""
    # Gradio reads these when it is imported, so it is imported after them.
    os.environ |= {
        "GRADIO_TEMP_DIR": uploads,
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    from gradio_app import look
    from gradio_app.page import build

    options: dict[str, Any] = {"theme": look.theme(), "css": look.CSS, "head": look.HEAD}
    build(client).launch(
        server_name=host,
        server_port=port,
        share=False,
        inbrowser=False,
        quiet=True,
        show_error=False,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        max_file_size=MAX_UPLOAD,
        app_kwargs={"middleware": [Middleware(SameOrigin)], "docs_url": None, "redoc_url": None},
        **options,
    )


if __name__ == "__main__":
    main()
