"""Certificates of our own, for servers on this machine."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def self_signed(path: Path) -> Path:
    """Writes a certificate for 127.0.0.1 that signs itself (RSA, 2048 bits) and its key into one file; returns it."""
    key = _new_key()
    path.write_bytes(_pem(_certificate("a server of this machine", key, "a server of this machine", key)) + _text(key))
    return path


def quick(path: Path, *names: str, is_ca: bool = False) -> Path:
    """The same for host names or IP addresses, on an elliptic curve: made in a hundredth of the time of RSA."""
    key = ec.generate_private_key(ec.SECP256R1())
    path.write_bytes(_pem(_certificate(names[0], key, names[0], key, is_ca=is_ca, names=names)) + _text(key))
    return path


def chain(folder: Path) -> tuple[Path, Path]:
    """As public gateways have it: a server's certificate, one between, and a root (RSA, 2048 bits each).

    Returns the server's file (its chain and key) and the root's.
    """
    root_key, between_key, key = _new_key(), _new_key(), _new_key()
    root = _certificate("root", root_key, "root", root_key, is_ca=True)
    between = _certificate("between", between_key, "root", root_key, is_ca=True)
    leaf = _certificate("a server of this machine", key, "between", between_key)
    server, trusted = folder / "server.pem", folder / "root.pem"
    server.write_bytes(_pem(leaf) + _pem(between) + _text(key))
    trusted.write_bytes(_pem(root))
    return server, trusted


def _new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _text(key: Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _certificate(
    subject: str, key: Key, issuer: str, signed_by: Key, *, is_ca: bool = False, names: Sequence[str] = ()
) -> x509.Certificate:
    parties = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in (subject, issuer)]
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(parties[0])
        .issuer_name(parties[1])
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )
    if is_ca:
        built = built.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    if names or not is_ca:
        alternatives = [_general_name(name) for name in names or ("127.0.0.1",)]
        built = built.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return built.sign(signed_by, hashes.SHA256())


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
