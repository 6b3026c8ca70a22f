"""TLS for a federation: a certificate authority of our own, and the server certificate it signs."""

from __future__ import annotations

import datetime
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["Certificates", "certificates_for"]

VALIDITY: Final = datetime.timedelta(days=397)
"""About a year, the longest that browsers accept; the sites need the new authority after that."""

RENEWAL: Final = datetime.timedelta(days=14)
"""Certificates that expire sooner are replaced when a coordinator starts: a run may take days."""

CLOCK_SKEW: Final = datetime.timedelta(hours=1)
"""Valid from this long ago on, for machines whose clock is behind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """Where the PEM files of a coordinator lie.

    Attributes:
        authority: the authority's certificate; the sites get a copy of it.
        certificate, private_key: the server's, for the host it is reached by.
    """

    authority: Path
    certificate: Path
    private_key: Path


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _alternative_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def certificates_for(folder: Path, host: str) -> Certificates:
    """The authority and the server certificate for ``host`` in ``folder``; made if there are none that will do.

    The authority's key is forgotten at once: it signs one certificate and never another. Certificates are kept from
    start to start, so that the sites need the authority once.
    """
    paths = Certificates(
        authority=folder / "authority.pem", certificate=folder / "server.pem", private_key=folder / "server.key"
    )
    if not _will_do(paths, host):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make(paths, host)
    return paths


def _will_do(paths: Certificates, host: str) -> bool:
    if not (paths.authority.exists() and paths.certificate.exists() and paths.private_key.exists()):
        return False
    try:
        certificate = x509.load_pem_x509_certificate(paths.certificate.read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return False
    left = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    return left > RENEWAL and _alternative_name(host) in list(names)


def _make(paths: Certificates, host: str) -> None:
    now = datetime.datetime.now(datetime.UTC)
    authority_key = ec.generate_private_key(ec.SECP384R1())
    server_key = ec.generate_private_key(ec.SECP384R1())

    def builder(subject: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name("Synclave coordinator authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCK_SKEW)
            .not_valid_after(now + VALIDITY)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
            )
        )

    def usage(*, signs_certificates: bool) -> x509.KeyUsage:
        return x509.KeyUsage(
            digital_signature=not signs_certificates,
            key_cert_sign=signs_certificates,
            crl_sign=signs_certificates,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )

    authority = (
        builder("Synclave coordinator authority", authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(signs_certificates=True), critical=True)
        .sign(authority_key, SHA256())
    )
    names = dict.fromkeys([host, "127.0.0.1", "localhost"])
    server = (
        builder(host, server_key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_alternative_name(name) for name in names]), critical=False)
        .sign(authority_key, SHA256())
    )
    descriptor = os.open(paths.private_key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(server_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    paths.certificate.write_bytes(server.public_bytes(Encoding.PEM))
    paths.authority.write_bytes(authority.public_bytes(Encoding.PEM))
