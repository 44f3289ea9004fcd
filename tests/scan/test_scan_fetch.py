"""Photos are fetched from where a scan may look, again where that may help, and never without end."""

import os
from pathlib import Path
from typing import Any

import fsspec
import httpx
import pytest

from detector.client.retry import Retry
from detector.errors import (
    AddressRefused,
    DetectorError,
    PhotoNotFound,
    SourceUnavailable,
    TooManyBytes,
)
from detector.scan.fetch import Fetcher
from detector.scan.storage import Store
from detector.scan.web import Web

PUBLIC = "93.184.215.14"


def fetcher(**options: Any) -> Fetcher:
    return Fetcher(1000, **{"sleep": lambda _: None, "random": lambda: 0.5, **options})


def web(answer: Any, found: tuple[str, ...] = (PUBLIC,), **options: Any) -> Web:
    transport = httpx.MockTransport(answer if callable(answer) else lambda _: answer)
    return Web(1000, resolve=lambda *_: found, transport=transport, **options)


def test_files_and_object_stores_are_read(tmp_path: Path) -> None:
    (tmp_path / "a b.jpg").write_bytes(b"photo")
    fsspec.filesystem("memory").pipe("/fetched/a.jpg", b"other")
    assert fetcher().fetch(f"{tmp_path}/a b.jpg") == b"photo"
    assert fetcher().fetch(f"file://{tmp_path}/a b.jpg") == b"photo"
    assert fetcher(also=frozenset({"memory"})).fetch("memory:///fetched/a.jpg") == b"other"


@pytest.mark.parametrize(
    ("address", "error"),
    [
        ("/nowhere/a.jpg", PhotoNotFound),
        ("", PhotoNotFound),
        ("/etc", PhotoNotFound),
        ("/dev/zero", PhotoNotFound),
        ("https://a.example/x.jpg", AddressRefused),
        ("memory:///a.jpg", AddressRefused),
        ("sftp://a.example/x.jpg", AddressRefused),
        ("simplecache::http://169.254.169.254/x", AddressRefused),
        ("s3::http://169.254.169.254/x", AddressRefused),
        ("bad\0name.jpg", PhotoNotFound),
    ],
)
def test_an_address_that_leads_to_no_photo_is_its_error(address: str, error: type[DetectorError]) -> None:
    with pytest.raises(error):
        fetcher().fetch(address)


def test_a_pipe_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(PhotoNotFound):
        fetcher().fetch(f"{tmp_path}/pipe.jpg")


def test_a_larger_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "large.jpg").write_bytes(bytes(5000))
    with pytest.raises(TooManyBytes, match="more than the 1,000 bytes"):
        fetcher().fetch(f"{tmp_path}/large.jpg")


def test_what_may_pass_is_tried_again_after_growing_pauses() -> None:
    answers = iter([httpx.Response(503), httpx.Response(429), httpx.Response(200, content=b"photo")])
    pauses: list[float] = []
    seen = fetcher(web=web(lambda _: next(answers)), sleep=pauses.append).fetch("https://a.example/x.jpg")
    assert (seen, pauses) == (b"photo", [0.375, 0.75])


def test_it_is_given_up_after_the_last_attempt() -> None:
    tries: list[httpx.Request] = []

    def down(request: httpx.Request) -> httpx.Response:
        tries.append(request)
        raise httpx.ConnectError("down")

    with pytest.raises(SourceUnavailable, match="does not answer"):
        fetcher(web=web(down), retry=Retry(attempts=3)).fetch("https://a.example/x.jpg")
    assert len(tries) == 3


def test_a_missing_photo_is_asked_for_once() -> None:
    tries: list[httpx.Request] = []

    def gone(request: httpx.Request) -> httpx.Response:
        tries.append(request)
        return httpx.Response(404)

    with pytest.raises(PhotoNotFound, match="answers 404"):
        fetcher(web=web(gone)).fetch("https://a.example/x.jpg")
    assert len(tries) == 1


@pytest.mark.parametrize(
    "found",
    [
        "127.0.0.1",
        "10.0.0.7",
        "169.254.169.254",
        "192.168.1.1",
        "::1",
        "fe80::1%eth0",
        "fd00::1",
        "::ffff:127.0.0.1",
        "224.0.0.1",
        "0.0.0.0",
        "100.64.0.1",
    ],
)
def test_a_name_that_leads_into_a_private_network_is_refused(found: str) -> None:
    with pytest.raises(AddressRefused, match="private network"):
        fetcher(web=web(httpx.Response(200), (PUBLIC, found))).fetch("https://a.example/x.jpg")


def test_the_connection_goes_to_the_address_that_was_checked_under_the_name_that_was_asked() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, content=b"photo")

    fetcher(web=web(answer)).fetch("https://a.example/x.jpg?size=2#top")
    assert str(seen[0].url) == f"https://{PUBLIC}/x.jpg?size=2"
    assert seen[0].headers["host"] == "a.example"
    assert seen[0].extensions["sni_hostname"] == "a.example"


def test_a_redirect_is_checked_like_any_address() -> None:
    hosts = {"a.example": (PUBLIC,), "inside.example": ("10.0.0.1",)}
    transport = httpx.MockTransport(lambda _: httpx.Response(302, headers={"location": "http://inside.example/"}))
    crossing = Web(1000, resolve=lambda host, _: hosts[host], transport=transport)
    with pytest.raises(AddressRefused, match="private network"):
        crossing.fetch("https://a.example/x.jpg")


def test_redirects_end() -> None:
    with pytest.raises(AddressRefused, match="too often"):
        web(httpx.Response(302, headers={"location": "/again"})).fetch("https://a.example/x.jpg")


def test_a_private_network_can_be_allowed() -> None:
    assert web(httpx.Response(200, content=b"p"), ("10.0.0.1",), private=True).fetch("http://shop.lan/x.jpg") == b"p"


def test_a_body_without_end_is_cut() -> None:
    with pytest.raises(TooManyBytes):
        web(httpx.Response(200, content=(b"x" * 100 for _ in range(1000)))).fetch("https://a.example/x.jpg")


def test_a_file_of_a_store_appears_whole(tmp_path: Path) -> None:
    store = Store(f"{tmp_path}/out")
    store.write("results/part-000000.csv", b"old")
    store.write("results/part-000000.csv", b"new")
    (tmp_path / "out/results/.part-000001.csv.half").write_bytes(b"ne")
    assert store.names("results") == ["part-000000.csv"]
    assert store.read("results/part-000000.csv") == b"new"


def test_a_store_may_be_elsewhere() -> None:
    store = Store("memory://stored/out")
    store.write("results/part-000000.csv", b"rows")
    assert (store.exists("run.json"), store.names("results"), store.names("none")) == (
        False,
        ["part-000000.csv"],
        [],
    )
