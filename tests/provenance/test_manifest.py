"""detector.provenance.manifest on files that were really signed a moment ago."""

import datetime
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from detector.errors import InvalidSettings
from detector.provenance.judge import judge
from detector.provenance.manifest import MAX_CHAIN, _chain
from detector.provenance.reading import FileReader
from detector.schema import Finding, Signature
from tests.conftest import encoded, make_photo
from tests.provenance.samples import jpeg, segment, xmp, xmp_segment
from tests.provenance.signing import DIGITAL_SOURCE, Authority, Signing, created, opened, placed, sign

PHOTO = encoded(make_photo(96, 64))
GENERATED = [created("trainedAlgorithmicMedia", softwareAgent={"name": "gpt-image", "version": "2.0"})]
CAPTURED = [created("digitalCapture")]


def manifest(reader: FileReader, data: bytes, kind: str = "JPEG") -> tuple[Finding, Signature]:
    (finding,) = (one for one in reader.read(kind, data) if one.source == "c2pa")
    assert finding.signature
    return finding, finding.signature


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_a_valid_manifest_is_intact_and_trusted_in_every_container(
    reader: FileReader, maker: Signing, kind: str
) -> None:
    signed = sign(encoded(make_photo(96, 64), kind), maker, GENERATED, kind)
    finding, signature = manifest(reader, signed, kind)
    assert (finding.claim, finding.vendor, finding.generator) == ("generated", "OpenAI", "gpt-image 2.0")
    assert finding.digital_source_type == "trainedAlgorithmicMedia"
    assert signature == Signature(intact=True, trusted=True, signer="Maker Inc.")


def test_tampered_pixels_are_named_and_end_trust(reader: FileReader, maker: Signing) -> None:
    signed = bytearray(sign(PHOTO, maker, GENERATED))
    signed[-300] ^= 1
    finding, signature = manifest(reader, bytes(signed))
    assert (signature.intact, signature.trusted) == (False, False)
    assert signature.problems == ("assertion.dataHash.mismatch",)
    evidence = judge((finding,))
    assert evidence.standing == "unsigned"
    assert [clash.kind for clash in evidence.clashes] == ["pixels_changed"]


def test_a_manifest_moved_onto_another_photo_supports_nothing(reader: FileReader, maker: Signing) -> None:
    signed, other = sign(PHOTO, maker, GENERATED), encoded(make_photo(96, 64, seed=5))
    start = signed.index(b"\xff\xeb")
    segment_end = start + 2 + int.from_bytes(signed[start + 2 : start + 4])
    _, signature = manifest(reader, other[:2] + signed[start:segment_end] + other[2:])
    assert (signature.intact, signature.trusted) == (False, False)


def test_a_broken_signature_is_not_intact_and_blames_no_pixels(reader: FileReader, maker: Signing) -> None:
    signed = sign(PHOTO, maker, GENERATED)
    finding, signature = manifest(reader, signed.replace(b"Test generator", b"Fest generator"))
    assert (signature.intact, signature.trusted) == (False, False)
    assert "claimSignature.mismatch" in signature.problems
    assert judge((finding,)).clashes == ()


def test_an_untrusted_signer_is_intact_and_no_more(reader: FileReader, stranger: Signing) -> None:
    finding, signature = manifest(reader, sign(PHOTO, stranger, GENERATED))
    assert finding.claim == "generated"
    assert (signature.intact, signature.trusted) == (True, False)
    assert (signature.signer, signature.problems) == ("Stranger", ("signingCredential.untrusted",))


def test_an_expired_certificate_is_not_trusted(reader: FileReader, authority: Authority) -> None:
    """The signer refuses a certificate that has run out, so this one runs out here."""
    short = authority.issue("Late Inc.", seconds=2)
    signed = sign(PHOTO, short, GENERATED)
    assert manifest(reader, signed)[1].trusted
    deadline = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=4)
    while manifest(reader, signed)[1].trusted:
        assert datetime.datetime.now(datetime.UTC) < deadline
        time.sleep(0.1)
    _, signature = manifest(reader, signed)
    assert (signature.intact, signature.trusted) == (True, False)
    assert "signingCredential.expired" in signature.problems


@contextmanager
def listening() -> Iterator[tuple[str, list[object]]]:
    """An address, and who called there."""
    calls: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        ended = threading.Event()

        def accept() -> None:
            while not ended.is_set():
                try:
                    connection, caller = server.accept()
                except TimeoutError:
                    continue
                calls.append(caller)
                connection.close()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}", calls
        finally:
            time.sleep(0.15)  # a call on its way would arrive
            ended.set()
            thread.join()


def test_a_manifest_kept_elsewhere_is_named_and_not_fetched(reader: FileReader, maker: Signing) -> None:
    with listening() as (address, calls):
        (finding,) = reader.read("JPEG", sign(PHOTO, maker, GENERATED, remote=f"{address}/manifest.c2pa"))
        adobe = xmp(attributes=f'dcterms:provenance="{address}/2"')
        (other,) = reader.read("JPEG", jpeg(xmp_segment(adobe)))
    assert calls == []
    assert finding == other
    assert (finding.claim, finding.signature) == ("none", None)
    assert "not fetched" in finding.detail


def test_a_remote_address_beside_a_broken_manifest_is_not_fetched(reader: FileReader, maker: Signing) -> None:
    with listening() as (address, calls):
        remote = sign(PHOTO, maker, GENERATED, remote=f"{address}/manifest.c2pa")
        broken = segment(0xEB, b"JP\0\1\0\0\0\1\0\0\0\x40jumb\0\0\0\x1ejumdc2pa" + bytes(40))
        finding, signature = manifest(reader, remote[:2] + broken + remote[2:])
    assert calls == []
    assert (finding.claim, signature.intact) == ("none", False)


def test_revocation_is_not_asked_over_the_network(reader: FileReader, authority: Authority) -> None:
    with listening() as (address, calls):
        assert manifest(reader, sign(PHOTO, authority.issue("Maker Inc.", ocsp=address), GENERATED))[1].trusted
    assert calls == []


def test_the_socket_of_these_tests_would_notice_a_call() -> None:
    with listening() as (address, calls):
        socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))).close()
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("source_type", "claim"),
    [
        ("trainedAlgorithmicMedia", "generated"),
        ("compositeWithTrainedAlgorithmicMedia", "partly_generated"),
        ("digitalCapture", "captured"),
        ("computationalCapture", "captured"),
        ("algorithmicMedia", "none"),
        ("digitalArt", "none"),
    ],
)
def test_how_a_picture_began_is_read_by_its_source_type(
    reader: FileReader, maker: Signing, source_type: str, claim: str
) -> None:
    assert manifest(reader, sign(PHOTO, maker, [created(source_type)]))[0].claim == claim


@pytest.mark.parametrize(
    ("action", "source_type", "claim"),
    [
        ("c2pa.edited", "trainedAlgorithmicMedia", "generative_edit"),
        ("c2pa.edited", "compositeWithTrainedAlgorithmicMedia", "generative_edit"),
        ("c2pa.filtered", "compositeSynthetic", "generative_edit"),
        ("c2pa.edited", "algorithmicallyEnhanced", "captured"),
        ("c2pa.edited", None, "captured"),
        ("c2pa.converted", "trainedAlgorithmicMedia", "captured"),
        ("c2pa.watermarked.unbound", "trainedAlgorithmicMedia", "captured"),
        ("c2pa.transcoded", "compositeSynthetic", "captured"),
    ],
)
def test_only_an_editorial_action_with_a_generator_s_type_is_a_generative_edit(
    reader: FileReader, maker: Signing, action: str, source_type: str | None, claim: str
) -> None:
    edit = {"action": action} | ({"digitalSourceType": DIGITAL_SOURCE + source_type} if source_type else {})
    captured = sign(PHOTO, maker, CAPTURED)
    finding, signature = manifest(reader, sign(captured, maker, [opened(), edit], parent=captured))
    assert finding.claim == claim
    assert signature.trusted


def test_a_generated_parent_keeps_its_claim_through_an_edit(reader: FileReader, maker: Signing) -> None:
    generated = sign(PHOTO, maker, GENERATED)
    finding, signature = manifest(reader, sign(generated, maker, [opened()], parent=generated))
    assert (finding.claim, finding.vendor, signature.trusted) == ("generated", "OpenAI", True)


def test_a_generated_component_makes_a_photo_partly_generated(reader: FileReader, maker: Signing) -> None:
    generated = sign(PHOTO, maker, GENERATED)
    finding, _ = manifest(reader, sign(PHOTO, maker, [*CAPTURED, placed()], component=generated))
    assert finding.claim == "partly_generated"


@pytest.mark.parametrize("untrusted", ["parent", "child"])
def test_a_claim_is_trusted_only_if_every_signer_on_its_way_is(
    reader: FileReader, maker: Signing, stranger: Signing, untrusted: str
) -> None:
    signers = (stranger, maker) if untrusted == "parent" else (maker, stranger)
    generated = sign(PHOTO, signers[0], GENERATED)
    finding, signature = manifest(reader, sign(generated, signers[1], [opened()], parent=generated))
    assert (finding.claim, signature.intact, signature.trusted) == ("generated", True, False)


def test_a_ring_of_manifests_ends() -> None:
    ring = {
        "active_manifest": "a",
        "manifests": {
            "a": {"ingredients": [{"relationship": "parentOf", "active_manifest": "b"}]},
            "b": {"ingredients": [{"relationship": "parentOf", "active_manifest": "a"}]},
        },
    }
    assert [path for path, _ in _chain(ring)] == [("a",), ("a", "b")]


def test_a_long_chain_is_followed_no_further_than_said(reader: FileReader) -> None:
    parents = {
        str(n): {"ingredients": [{"relationship": "parentOf", "active_manifest": str(n + 1)}]} for n in range(100)
    }
    assert len(list(_chain({"active_manifest": "0", "manifests": parents}))) == MAX_CHAIN


def test_an_ingredient_that_names_the_manifest_itself_is_no_trusted_claim(reader: FileReader, maker: Signing) -> None:
    """A ring in the file: the parent's label is overwritten with the child's, which its hash gives away."""
    parent = sign(PHOTO, maker, CAPTURED)
    child = sign(parent, maker, [opened()], parent=parent)
    labels = sorted({child[at : at + 45] for at in range(len(child) - 45) if child[at : at + 9] == b"urn:c2pa:"})
    assert len(labels) == 2
    _, signature = manifest(reader, child.replace(labels[0], labels[1]))
    assert not signature.trusted


def test_a_truncated_manifest_is_illegible_and_costs_nothing(reader: FileReader, maker: Signing) -> None:
    signed = sign(PHOTO, maker, GENERATED)
    start = signed.index(b"\xff\xeb")
    finding, signature = manifest(reader, signed[: start + 2_000])
    assert (finding.claim, signature.intact) == ("none", False)


def test_a_manifest_over_the_limit_is_named_and_not_read(authority: Authority, maker: Signing) -> None:
    actions = [*GENERATED, *({"action": "c2pa.edited", "description": "x" * 200} for _ in range(300))]
    signed = sign(PHOTO, maker, actions)
    assert manifest(FileReader(authority.root), signed)[1].trusted
    finding, signature = manifest(FileReader(authority.root, max_block=65_536), signed)
    assert (finding.claim, signature.intact) == ("none", False)
    assert "more than is read" in finding.detail


def test_several_threads_may_read_at_once(reader: FileReader, maker: Signing, stranger: Signing) -> None:
    files = [sign(PHOTO, signing, GENERATED) for signing in (maker, stranger)] * 20
    with ThreadPoolExecutor(4) as pool:
        trusted = list(pool.map(lambda data: manifest(reader, data)[1].trusted, files))
    assert trusted == [True, False] * 20


def test_a_trust_list_that_is_none_stops_the_start() -> None:
    with pytest.raises(InvalidSettings, match="trust_anchors holds no certificates"):
        FileReader("not a certificate")
