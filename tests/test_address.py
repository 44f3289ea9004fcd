"""Only what trusted proxies wrote about a caller's address is believed."""

from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.address import budget_owner, client_address

PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("198.51.100.7", ["203.0.113.1"], "198.51.100.7"),
        ("10.0.0.1", ["203.0.113.1"], "203.0.113.1"),
        ("10.0.0.1", ["198.51.100.9, 203.0.113.1"], "203.0.113.1"),
        ("10.0.0.1", ["198.51.100.9, 203.0.113.1, 10.0.0.2"], "203.0.113.1"),
        ("10.0.0.1", ["198.51.100.9", "203.0.113.1"], "203.0.113.1"),
        ("10.0.0.1", ["203.0.113.1, rubbish"], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["10.0.0.3"], "10.0.0.3"),
        ("fd00::1", ["2001:db8::5"], "2001:db8::5"),
        ("::ffff:10.0.0.1", ["203.0.113.1"], "203.0.113.1"),
        ("", ["203.0.113.1"], ""),
    ],
)
def test_the_nearest_address_that_is_no_proxy_counts(peer: str, forwarded: list[str], expected: str) -> None:
    assert client_address(peer, forwarded, PROXIES) == expected


@settings(deadline=None)
@given(st.lists(st.text(max_size=60), max_size=4))
def test_whatever_a_stranger_claims_the_connection_tells(forwarded: list[str]) -> None:
    assert client_address("198.51.100.7", forwarded, PROXIES) == "198.51.100.7"


@settings(deadline=None)
@given(st.lists(st.text(max_size=60), max_size=4))
def test_whatever_stands_before_the_proxy_s_own_entry_does_not_count(claimed: list[str]) -> None:
    assert client_address("10.0.0.1", [*claimed, "203.0.113.1"], PROXIES) == "203.0.113.1"


@pytest.mark.parametrize(
    ("address", "owner"),
    [("203.0.113.1", "203.0.113.1"), ("2001:db8:0:1:aaaa::5", "2001:db8:0:1::/64"), ("unix", "unix")],
)
def test_an_ipv6_caller_is_counted_by_its_network(address: str, owner: str) -> None:
    assert budget_owner(address) == owner
