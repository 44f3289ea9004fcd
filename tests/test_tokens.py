"""A token counts when its own issuer signed it for us with the key's own algorithm, and in no other case."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from detector.errors import IdentityUnavailable, InvalidSettings, Unauthenticated
from detector.tokens import KeySet, TokenRules, Tokens, fetch_bytes, parse_key_set, read_claims, read_secret

RULES = TokenRules("https://id.example", "photos", 5, "scope")
SECRET = b"a shared secret of more than 32 bytes"
RSA, EC = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())
OTHER = rsa.generate_private_key(65537, 2048)
WEAK = rsa.generate_private_key(65537, 1024)


def rsa_jwk(key: rsa.RSAPrivateKey, **more: Any) -> dict[str, Any]:
    return {**RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), **more}


JWKS = {"keys": [rsa_jwk(RSA, kid="r"), {**ECAlgorithm.to_jwk(EC.public_key(), as_dict=True), "kid": "e"}]}
PEM = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def claims(**changes: Any) -> dict[str, Any]:
    plain = {"iss": RULES.issuer, "aud": RULES.audience, "sub": "alice", "exp": 4_000_000_000, "scope": "predict"}
    return {name: value for name, value in (plain | changes).items() if value is not None}


def key_set(fetch: Callable[[str, float], bytes] | None = None, **options: Any) -> KeySet:
    return KeySet("keys", 300, 1.0, fetch=fetch or (lambda *_: json.dumps(JWKS).encode()), **options)


def check(token: str, secret: bytes | None = SECRET, keys: bool = True) -> Any:
    async def run() -> Any:
        return await Tokens(RULES, secret, key_set() if keys else None).check(token)

    return asyncio.run(run())


def signed_by_hand(header: dict[str, Any], body: dict[str, Any], signature: bytes = b"") -> str:
    parts = [json.dumps(header).encode(), json.dumps(body).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


@pytest.mark.parametrize(
    ("key", "algorithm", "headers"),
    [(SECRET, "HS256", {}), (RSA, "RS256", {"kid": "r"}), (EC, "ES256", {"kid": "e"})],
)
def test_each_kind_of_key_lets_its_own_in(key: Any, algorithm: str, headers: dict[str, str]) -> None:
    found = check(jwt.encode(claims(scope="predict batch"), key, algorithm, headers=headers))
    assert (found.subject, found.scopes) == ("alice", {"predict", "batch"})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"exp": 1_000_000_000}, "expired"),
        ({"exp": None}, "lacks a claim"),
        ({"sub": None}, "lacks a claim"),
        ({"iss": None}, "lacks a claim"),
        ({"aud": None}, "lacks a claim"),
        ({"iss": "https://other.example"}, "another issuer"),
        ({"aud": "other"}, "another audience"),
        ({"nbf": 4_000_000_000}, "not valid"),
        ({"exp": "soon"}, "not valid"),
        ({"sub": ""}, "subject"),
        ({"sub": "x" * 256}, "subject"),
    ],
)
def test_a_claim_that_is_missing_or_wrong_is_named(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Unauthenticated, match=sentence):
        check(jwt.encode(claims(**changes), SECRET, "HS256"))


FORGED = {
    "none": signed_by_hand({"alg": "none"}, claims()),
    "None": signed_by_hand({"alg": "None"}, claims()),
    "no alg": signed_by_hand({"typ": "JWT"}, claims()),
    "alg list": signed_by_hand({"alg": ["HS256"]}, claims()),
    "other secret": jwt.encode(claims(), b"another secret of more than 32 bytes", "HS256"),
    "HS512": jwt.encode(claims(), SECRET * 2, "HS512"),
    "other RSA key": jwt.encode(claims(), OTHER, "RS256", headers={"kid": "r"}),
    "RSA key for ES256": signed_by_hand({"alg": "ES256", "kid": "r"}, claims(), b"x" * 64),
    "PS256": jwt.encode(claims(), RSA, "PS256", headers={"kid": "r"}),
    "kid list": signed_by_hand({"alg": "RS256", "kid": ["r"]}, claims(), b"x"),
    "own key": jwt.encode(claims(), OTHER, "RS256", headers={"kid": "mine", "jwk": rsa_jwk(OTHER)}),
    "no signature": jwt.encode(claims(), SECRET, "HS256").rsplit(".", 1)[0] + ".",
}


@pytest.mark.parametrize("token", FORGED.values(), ids=FORGED)
def test_a_forged_token_has_no_way_in(token: str) -> None:
    with pytest.raises(Unauthenticated):
        check(token)


def test_a_public_key_is_no_secret() -> None:
    """Algorithm confusion: the attacker signs with HS256 and the public key everybody may read."""
    head = signed_by_hand({"alg": "HS256", "kid": "r"}, claims()).rsplit(".", 1)[0]
    digest = hmac.new(PEM, head.encode(), hashlib.sha256).digest()
    token = f"{head}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"
    for secret in (None, SECRET):
        with pytest.raises(Unauthenticated):
            check(token, secret)


@settings(deadline=None)
@given(st.one_of(st.text(max_size=200), st.from_regex(r"[A-Za-z0-9_-]{0,30}\.[A-Za-z0-9_-]{0,30}\.[A-Za-z0-9_-]{0,9}")))
def test_whatever_else_is_sent_is_refused_in_our_own_words(token: str) -> None:
    with pytest.raises(Unauthenticated):
        check(token)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["sub", "scope"]), st.one_of(st.none(), st.integers(), st.lists(st.integers()))))
def test_claims_of_any_type_are_read_or_refused(odd: dict[str, Any]) -> None:
    try:
        found = read_claims({"sub": "alice"} | odd, "scope")
    except Unauthenticated:
        return
    assert found.subject == "alice"
    assert found.scopes == frozenset()


def test_scopes_may_be_a_list() -> None:
    assert read_claims({"sub": "a", "scp": ["predict", 7]}, "scp").scopes == {"predict"}


@pytest.mark.parametrize(
    "entry",
    [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "s"},
        rsa_jwk(RSA, use="enc"),
        rsa_jwk(RSA, alg="RS512"),
        rsa_jwk(WEAK),
        {"kty": "RSA", "n": "x", "e": 3},
        {"kty": "EC", "crv": "P-384", "x": "a", "y": "b"},
        "text",
    ],
)
def test_a_key_set_without_a_usable_key_is_refused(entry: Any) -> None:
    with pytest.raises(ValueError, match="no usable key"):
        parse_key_set(json.dumps({"keys": [entry]}).encode())


class Source:
    """A key set's address that counts, and can be down."""

    def __init__(self) -> None:
        self.asked, self.up, self.document = 0, True, json.dumps(JWKS).encode()

    def __call__(self, *_: Any) -> bytes:
        self.asked += 1
        if not self.up:
            raise OSError
        return self.document


def test_keys_are_fetched_once_kept_while_the_source_is_down_and_renewed_afterwards() -> None:
    async def scenario() -> None:
        now, source = [0.0], Source()
        keys = key_set(source, cooldown=10.0, clock=lambda: now[0])
        assert all(await asyncio.gather(*(keys.find("r") for _ in range(20))))
        assert source.asked == 1
        source.up, now[0] = False, 301.0
        assert await keys.find("r")
        assert keys._refresh
        await keys._refresh
        assert source.asked == 2
        assert await keys.find("r")
        assert source.asked == 2
        source.up, now[0] = True, 312.0
        source.document = json.dumps({"keys": [rsa_jwk(RSA, kid="new")]}).encode()
        assert await keys.find("new")
        assert source.asked == 3

    asyncio.run(scenario())


def test_strangers_who_name_keys_cause_one_fetch_a_cooldown() -> None:
    async def scenario() -> None:
        now, source = [0.0], Source()
        keys = key_set(source, cooldown=10.0, clock=lambda: now[0])
        assert [await keys.find(f"unknown-{turn}") for turn in range(50)] == [None] * 50
        assert source.asked == 1
        now[0] = 11.0
        assert await keys.find("unknown") is None
        assert source.asked == 2

    asyncio.run(scenario())


def test_without_any_key_the_answer_is_to_come_again() -> None:
    async def scenario() -> None:
        source = Source()
        source.up = False
        with pytest.raises(IdentityUnavailable):
            await key_set(source).find("r")

    asyncio.run(scenario())


def test_a_key_set_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "jwks.json").write_text(json.dumps(JWKS))
    assert set(parse_key_set(fetch_bytes(str(tmp_path / "jwks.json"), 1.0))) == {"r", "e"}


@pytest.mark.parametrize("text", [b"", b"short"])
def test_a_secret_of_few_bytes_stops_the_start(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "secret").write_bytes(text)
    with pytest.raises(InvalidSettings, match="shorter than 32"):
        read_secret(tmp_path / "secret")
