"""The guard knows a caller by key or token, never by both, and says what it wants."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from detector import keyring
from detector.auth import SCOPES, Caller, Credentials, Failures, Guard
from detector.errors import Forbidden, RateLimited, Unauthenticated
from detector.keyring import Keyring, mint, now
from detector.tokens import TokenRules, Tokens

TOKENS = Tokens(TokenRules("us", "api", 0, "scope"), b"x" * 32, None)


def identify(guard: Guard, given: Credentials, address: str = "203.0.113.1") -> Caller:
    return asyncio.run(guard.identify(given, address))


@pytest.fixture
def key_and_ring(tmp_path: Path) -> tuple[str, Keyring]:
    text, kept = mint("desk", ["predict"], now())
    keyring.write(tmp_path / "keys.json", {kept.id: kept})
    return text, Keyring(tmp_path / "keys.json")


def test_an_open_guard_knows_callers_by_address_and_lets_them_do_all() -> None:
    guard = Guard(None, None, Failures(1))
    assert guard.open
    assert identify(guard, Credentials(), "2001:db8::1") == Caller("address:2001:db8::/64", SCOPES)


def test_a_key_is_its_name(key_and_ring: tuple[str, Keyring]) -> None:
    caller = identify(Guard(key_and_ring[1], None, Failures(1)), Credentials((key_and_ring[0],)))
    assert caller == Caller("key:desk", frozenset({"predict"}))
    with pytest.raises(Forbidden, match="`batch`"):
        caller.require("batch")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (lambda key: Credentials(), "Send an API key in X-API-Key or a bearer token in Authorization."),
        (lambda key: Credentials((key, key)), "not several"),
        (lambda key: Credentials((key,), ("Bearer x",)), "not several"),
        (lambda key: Credentials(("",)), "The API key is not valid."),
        (lambda key: Credentials((), ("Basic dTpw",)), "not taken here"),
        (lambda key: Credentials((), (f"Bearer {key}",)), "not a JWT"),
    ],
)
def test_what_is_no_identity_is_refused_with_a_challenge(
    key_and_ring: tuple[str, Keyring], given: Callable[[str], Credentials], sentence: str
) -> None:
    with pytest.raises(Unauthenticated) as caught:
        identify(Guard(key_and_ring[1], TOKENS, Failures(9)), given(key_and_ring[0]))
    assert sentence in caught.value.detail
    assert caught.value.challenge.startswith("Bearer realm=")
    assert "ApiKey realm=" in caught.value.challenge


def test_failures_are_counted_by_address_for_a_minute() -> None:
    clock = [0.0]
    failures = Failures(2, lambda: clock[0])
    failures.add("a")
    failures.add("a")
    with pytest.raises(RateLimited) as caught:
        failures.add("a")
    assert caught.value.retry_after == 60
    failures.add("b")
    clock[0] = 60.0
    failures.add("a")


def test_a_request_without_credentials_is_no_failure(key_and_ring: tuple[str, Keyring]) -> None:
    guard = Guard(key_and_ring[1], None, Failures(1))
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            identify(guard, Credentials())


def test_addresses_seen_long_ago_are_forgotten() -> None:
    failures = Failures(1)
    for number in range(failures.ADDRESSES + 5):
        failures.add(str(number))
    assert len(failures._seen) == failures.ADDRESSES
