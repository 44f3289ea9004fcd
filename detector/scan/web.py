"""Photos from web addresses that strangers may have written: only the open internet is asked, in bounded time and size.

The host is looked up once, every address it has must be public, and the connection goes to that very address, so
that a name can't lead elsewhere a moment later; each redirect is checked the same way.
"""

import ipaddress
import socket
from collections.abc import Callable, Sequence
from urllib.parse import urljoin, urlsplit

import httpx

from detector.errors import AddressRefused, PhotoNotFound, SourceUnavailable, TooManyBytes

Resolve = Callable[[str, int], Sequence[str]]  # host, port -> addresses
REDIRECTS = 3
_PASSING = {408, 425, 429, 500, 502, 503, 504}


def resolve(host: str, port: int) -> list[str]:
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


class Web:
    """One client for all threads of a scan."""

    def __init__(
        self,
        max_bytes: int,
        timeout: float = 20.0,
        private: bool = False,
        resolve: Resolve = resolve,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """timeout: seconds of silence. private: addresses of the local network count too."""
        self._max_bytes, self._private, self._resolve = max_bytes, private, resolve
        self._client = httpx.Client(timeout=timeout, transport=transport, trust_env=False, follow_redirects=False)

    def fetch(self, address: str) -> bytes:
        for _ in range(REDIRECTS + 1):
            found = self._once(address)
            if isinstance(found, bytes):
                return found
            address = urljoin(address, found)
        raise AddressRefused("The address leads from one place to the next too often.")

    def _once(self, address: str) -> bytes | str:
        """The photo, or the address it is said to be at."""
        request = self._request(address)
        try:
            answer = self._client.send(request, stream=True)
            try:
                if answer.is_redirect:
                    return answer.headers["location"]
                _check(answer.status_code)
                return self._body(answer)
            finally:
                answer.close()
        except httpx.HTTPError:
            raise SourceUnavailable("The photo's server does not answer.") from None

    def _request(self, address: str) -> httpx.Request:
        try:
            parts = urlsplit(address)
            host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError:
            raise AddressRefused("The address is malformed.") from None
        if parts.scheme not in ("http", "https") or not host:
            raise AddressRefused("The address is no web address.")
        to = self._reachable(host, port)
        literal = f"[{to}]" if ":" in to else to
        url = parts._replace(netloc=f"{literal}:{port}", fragment="").geturl()
        named = f"[{host}]" if ":" in host else host
        headers = {"Host": named if parts.port is None else f"{named}:{port}", "Accept": "image/*"}
        try:
            return self._client.build_request("GET", url, headers=headers, extensions=self._extensions(host))
        except (httpx.InvalidURL, ValueError):
            raise AddressRefused("The address is malformed.") from None

    def _extensions(self, host: str) -> dict[str, object]:
        return {"sni_hostname": host, "timeout": self._client.timeout.as_dict()}

    def _reachable(self, host: str, port: int) -> str:
        try:
            found = self._resolve(host, port)
        except (OSError, UnicodeError):
            raise SourceUnavailable("The photo's server is not known by its name.") from None
        if not found or not (self._private or all(_public(one) for one in found)):
            raise AddressRefused("The address leads into a private network.")
        return found[0]

    def _body(self, answer: httpx.Response) -> bytes:
        data = bytearray()
        for chunk in answer.iter_bytes():
            data += chunk
            if len(data) > self._max_bytes:
                raise TooManyBytes(f"The photo's file has more than the {self._max_bytes:,} bytes that are allowed.")
        return bytes(data)


def _check(status: int) -> None:
    if status in _PASSING:
        raise SourceUnavailable(f"The photo's server answers {status}.")
    if status in (401, 403, 407):
        raise AddressRefused(f"The photo's server answers {status}.")
    if status != 200:
        raise PhotoNotFound(f"The photo's server answers {status}.")


def _public(address: str) -> bool:
    """Loopback, link-local (a cloud's metadata), private and multicast ranges are not; nor is IPv4 dressed as IPv6."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is not None:
            ip = inner
    return ip.is_global and not ip.is_multicast
