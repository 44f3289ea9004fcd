"""Where a request comes from, as far as it can be believed.

Knows nothing of ASGI. Only the entries that trusted proxies wrote are read, from the nearest outwards; the first
entry of X-Forwarded-For is whatever a stranger chose to write.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Network = IPv4Network | IPv6Network
_SUBSCRIBER = 64  # bits of an IPv6 address that name one network; its owner may use any of the rest


def client_address(peer: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """The nearest address that is no trusted proxy.

    peer: who holds the connection. forwarded: the X-Forwarded-For headers in their order.
    """
    hops = [entry.strip() for header in forwarded for entry in header.split(",")]
    nearest = _read(peer)
    while hops and nearest is not None and any(nearest in network for network in trusted):
        entry = _read(hops.pop())
        if entry is None:
            break
        nearest = entry
    return str(nearest) if nearest else peer


def budget_owner(address: str) -> str:
    """What one caller without a key is counted by: the address, or the /64 network of an IPv6 one."""
    read = _read(address)
    if isinstance(read, IPv6Address):
        return str(IPv6Network((read, _SUBSCRIBER), strict=False))
    return address


def _read(text: str) -> IPv4Address | IPv6Address | None:
    try:
        read = ip_address(text)
    except ValueError:
        return None
    mapped = read.ipv4_mapped if isinstance(read, IPv6Address) else None
    return mapped or read
