"""Who asks, and what they may do: an API key, a bearer token, or an address where nobody is asked.

Decides; HTTP is `asgi`'s, keys are `keyring`'s, tokens `tokens`'.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from detector.address import budget_owner
from detector.errors import Forbidden, RateLimited, Unauthenticated
from detector.keyring import Keyring, Scope, now
from detector.tokens import Tokens

SCOPES: frozenset[str] = frozenset(get_args(Scope))
REALM = "product-photo-detector"


@dataclass(frozen=True)
class Caller:
    """`id` is stable over requests and says of what kind it is: `key:desk`, `token:alice`, `address:192.0.2.1`."""

    id: str
    scopes: frozenset[str]

    def require(self, scope: str) -> None:
        """Raises Forbidden that names the scope."""
        if scope not in self.scopes:
            raise Forbidden(f"This needs the scope `{scope}`, which the caller does not have.")


@dataclass(frozen=True)
class Credentials:
    """What a request brings: every X-API-Key and every Authorization header."""

    api_keys: tuple[str, ...] = ()
    authorizations: tuple[str, ...] = ()


class Failures:
    """Wrong credentials by address, in a fixed window: beyond `most` in a minute the answer is 429.

    A right key passes all the same, or one neighbour behind the same address could lock out another. Counted in this
    process, the addresses seen last: keys can't be guessed, so this spares logs and bearer-token checks, no more.
    """

    WINDOW = 60.0
    ADDRESSES = 10_000

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self._seen: OrderedDict[str, tuple[float, int]] = OrderedDict()  # address -> end of window, failures

    def add(self, address: str) -> None:
        """Raises RateLimited once there were more than `most`."""
        end, count = self._seen.pop(address, (0.0, 0))
        if end <= self._clock():
            end, count = self._clock() + self.WINDOW, 0
        self._seen[address] = end, count + 1
        if len(self._seen) > self.ADDRESSES:
            self._seen.popitem(last=False)
        if count >= self._most:
            wait = max(1, round(end - self._clock()))
            raise RateLimited("Too many wrong keys or tokens came from this address.", retry_after=wait)


class Guard:
    """The one who asks. Without a keyring and without tokens nobody is asked, and everybody may do everything."""

    def __init__(self, keyring: Keyring | None, tokens: Tokens | None, failures: Failures) -> None:
        self._keyring, self._tokens, self._failures = keyring, tokens, failures

    @property
    def open(self) -> bool:
        return self._keyring is None and self._tokens is None

    async def identify(self, given: Credentials, address: str) -> Caller:
        """Raises Unauthenticated, RateLimited after too many of those, or IdentityUnavailable."""
        if self.open:
            return Caller(f"address:{budget_owner(address)}", SCOPES)
        try:
            return await self._identify(given)
        except Unauthenticated as error:
            if given != Credentials():
                self._failures.add(budget_owner(address))
            error.challenge = self._challenge(given)
            raise

    async def _identify(self, given: Credentials) -> Caller:
        """An API key, where there is one, decides alone."""
        if len(given.api_keys) + len(given.authorizations) > 1:
            raise Unauthenticated("Send one API key or one bearer token, not several.")
        if given.api_keys:
            return self._by_key(given.api_keys[0])
        if given.authorizations:
            return await self._by_token(given.authorizations[0])
        raise Unauthenticated(f"Send {self._wanted()}.")

    def _by_key(self, text: str) -> Caller:
        key = self._keyring.find(text) if self._keyring else None
        if key is None:
            raise Unauthenticated("The API key is not valid.")
        if (state := key.state(now())) != "valid":
            raise Unauthenticated(f"The API key {key.id} is {state}.")
        return Caller(f"key:{key.name}", frozenset(key.scopes))

    async def _by_token(self, authorization: str) -> Caller:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or self._tokens is None:
            raise Unauthenticated(f"The Authorization header is not taken here; send {self._wanted()}.")
        claims = await self._tokens.check(token.strip())
        return Caller(f"token:{claims.subject}", claims.scopes & SCOPES)

    def _wanted(self) -> str:
        ways = [(self._keyring, "an API key in X-API-Key"), (self._tokens, "a bearer token in Authorization")]
        return " or ".join(words for there, words in ways if there)

    def _challenge(self, given: Credentials) -> str:
        """WWW-Authenticate (RFC 9110, RFC 6750); the scheme `ApiKey` is ours, for none is registered."""
        wrong = ', error="invalid_token"' if given.authorizations else ""
        ways = [
            (self._tokens, f'Bearer realm="{REALM}"{wrong}'),
            (self._keyring, f'ApiKey realm="{REALM}", header="X-API-Key"'),
        ]
        return ", ".join(words for there, words in ways if there)
