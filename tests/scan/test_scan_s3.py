"""A scan from S3 to S3, against a real server of its protocol."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pyarrow import fs

from detector.scan.storage import Store, s3_options
from tests import serving
from tests.serving import free_port

SERVER = serving.ROOT / ".venv/s3/bin/moto_server"
KEYS = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture(scope="module")
def s3_environ(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What a process needs to use the server; it holds a bucket `shop`."""
    if not SERVER.exists():
        pytest.fail("the S3 server is not installed; `make test` does it")
    port = free_port()
    log = tmp_path_factory.mktemp("s3") / "log"
    with log.open("w") as out:
        process = subprocess.Popen([SERVER, "-H", "127.0.0.1", "-p", str(port)], stdout=out, stderr=out)
    environ = KEYS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    try:
        transport = httpx.HTTPTransport(retries=12)  # pauses grow to a minute in all
        with httpx.Client(transport=transport, timeout=30) as client:
            client.get(environ["AWS_ENDPOINT_URL"])
            client.put(f"{environ['AWS_ENDPOINT_URL']}/shop")
        yield environ
    finally:
        process.kill()
        process.wait()


def bucket(environ: dict[str, str]) -> Any:
    keys = {"access_key": environ["AWS_ACCESS_KEY_ID"], "secret_key": environ["AWS_SECRET_ACCESS_KEY"]}
    return fs.S3FileSystem(**keys, **s3_options(environ))


def test_photos_and_results_on_s3(
    catalogue: Path, tmp_path: Path, model_folder: Path, s3_environ: dict[str, str]
) -> None:
    s3 = bucket(s3_environ)
    fs.copy_files(str(catalogue), "shop/photos", destination_filesystem=s3)
    command = [sys.executable, "-m", "detector", "scan", "s3://shop/photos", "--out", "s3://shop/out", "--quiet"]
    command += ["--model", str(model_folder), "--part-size", "5"]
    environ = serving.environment(tmp_path, **s3_environ)
    done = subprocess.run(command, cwd=serving.ROOT, env=environ, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    counts = json.loads(s3.open_input_file("shop/out/run.json").read())["counts"]
    assert (counts["photos"], counts["errors"], counts["reused"]) == (13, 3, 1)


def test_a_store_on_s3(s3_environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3_environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("detector.scan.storage._opened", {})
    store = Store("s3://shop/store")
    assert (store.names(), store.exists("run.json")) == ([], False)
    store.write("results/part-000000.csv", b"rows")
    assert (store.read("results/part-000000.csv"), store.names("results")) == (b"rows", ["part-000000.csv"])
