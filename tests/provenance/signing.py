"""Really signed files: a throw-away certificate chain, and C2PA manifests made with it."""

import datetime
import json
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from c2pa import Builder, C2paSignerInfo, Context, Settings, Signer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

DIGITAL_SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/"
MIMES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "AVIF": "image/avif"}


@dataclass(frozen=True)
class Signing:
    """A certificate chain and its key, as PEM."""

    chain: str
    key: str


class Authority:
    """A root that issues signing certificates."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, name)])
        self._certificate = self._build(self._name, self._key.public_key(), ca=True).sign(self._key, hashes.SHA256())

    @property
    def root(self) -> str:
        return self._certificate.public_bytes(serialization.Encoding.PEM).decode()

    def issue(self, signer: str, seconds: int = 86_400, ocsp: str | None = None) -> Signing:
        """seconds: how long from now it is valid. ocsp: the address at which revocation is to be asked."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name(
            [x509.NameAttribute(NameOID.ORGANIZATION_NAME, signer), x509.NameAttribute(NameOID.COMMON_NAME, signer)]
        )
        certificate = self._build(name, key.public_key(), seconds=seconds)
        if ocsp:
            place = x509.AccessDescription(AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(ocsp))
            certificate = certificate.add_extension(x509.AuthorityInformationAccess([place]), critical=False)
        leaf = certificate.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Signing(leaf + self.root, secret.decode())

    def _build(self, name: x509.Name, key: Any, ca: bool = False, seconds: int = 31_536_000) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=30))
            .not_valid_after(now + datetime.timedelta(seconds=seconds))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(_usage(ca), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(identifier, critical=False)
        )
        purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        return builder if ca else builder.add_extension(purposes, critical=False)


def _usage(ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def created(source_type: str, **more: Any) -> dict[str, Any]:
    return {"action": "c2pa.created", "digitalSourceType": DIGITAL_SOURCE + source_type, **more}


def opened() -> dict[str, Any]:
    """The first action on a file that has a parent."""
    return {"action": "c2pa.opened", "parameters": {"ingredientIds": ["parentOf"]}}


def placed() -> dict[str, Any]:
    """Putting a component into the picture."""
    return {"action": "c2pa.placed", "parameters": {"ingredientIds": ["componentOf"]}}


def sign(
    photo: bytes,
    signing: Signing,
    actions: list[dict[str, Any]],
    kind: str = "JPEG",
    parent: bytes | None = None,
    component: bytes | None = None,
    remote: str | None = None,
) -> bytes:
    """The photo with a manifest. remote: an address to name; the manifest then stays out of the file."""
    manifest: dict[str, Any] = {
        "claim_generator_info": [{"name": "Test generator", "version": "1"}],
        "format": MIMES[kind],
        "assertions": [{"label": "c2pa.actions", "data": {"actions": actions}}],
    }
    settings = Settings.from_dict(
        {"verify": {"verify_after_sign": False, "verify_trust": False}, "builder": {"thumbnail": {"enabled": False}}}
    )
    builder = Builder(manifest, context=Context(settings))
    for ingredient, relationship in ((parent, "parentOf"), (component, "componentOf")):
        if ingredient:
            described = {"title": relationship, "relationship": relationship, "instance_id": relationship}
            builder.add_ingredient(json.dumps(described), MIMES[kind], BytesIO(ingredient))
    if remote:
        builder.set_remote_url(remote)
        builder.set_no_embed()
    signer = Signer.from_info(C2paSignerInfo("es256", signing.chain.encode(), signing.key.encode(), None))
    signed = BytesIO()
    builder.sign(signer, MIMES[kind], BytesIO(photo), signed)
    return signed.getvalue()
