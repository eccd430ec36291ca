"""The key that signs manifests: the user's own, from a path or the environment, or a local one created on first use.

The local key is stored in one file, readable only by its owner, with its certificate and that of the root that signed
it. The root's own key is discarded at once, so that it never signs anything else.
"""

import dataclasses
import os
import secrets
import stat
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

from th_jax.optional import load_backend
from th_jax.storage.files import whole_file

KEY_VARIABLE = "TH_JAX_SIGNING_KEY"
"""Environment variable with the path of a private key, as PEM."""

CERTIFICATE_VARIABLE = "TH_JAX_SIGNING_CERTIFICATE"
"""Environment variable with the path of its certificates, as PEM: the signer's first, followed by its issuers'."""

LOCAL_ORGANIZATION = "th_jax local signer, self-signed"

_LIMIT = 2**20

_YEARS = 20

_PURPOSE = "signing the output"


class SigningError(ValueError):
    """A signing key cannot be used; the message is one sentence for the person who configured it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Signer:
    """A private key with its certificates, both as PEM."""

    algorithm: str
    """C2PA's name of the algorithm, such as "es256"."""
    name: str
    """Common name in the certificate."""
    certificates: bytes
    """Certificates, the signer's first."""
    key: bytes = dataclasses.field(repr=False)


def load_signer(*, key: str | Path | None = None, certificate: str | Path | None = None) -> Signer:
    """Load the signer: from the given files, or else the environment, or else the local one.

    Args:
        key: private key, as PEM without a password; by default the file that TH_JAX_SIGNING_KEY names.
        certificate: certificates of the key; by default the file that TH_JAX_SIGNING_CERTIFICATE names, or else those
            in the key's file.

    Raises:
        SigningError: if a file is missing, unreadable, owned by another user, accessible to others, or has no key or
            certificate that can sign now; or if a local key cannot be created.
        ImportError: if the extra `video` is not installed.
    """
    if key is None:
        key = os.environ.get(KEY_VARIABLE) or None
        certificate = certificate or os.environ.get(CERTIFICATE_VARIABLE) or None
    if key is None:
        if certificate is not None:
            raise SigningError(
                f"the certificate {certificate} was given without its key: give that too, with --signing-key or in "
                f"{KEY_VARIABLE}"
            )
        path = local_signer_path()
        try:
            if not path.exists():
                _make_local_signer(path)
        except OSError as error:
            raise SigningError(
                f"cannot create a local signing key at {path} ({error.strerror}): give your own with --signing-key "
                f"or in {KEY_VARIABLE}, or set XDG_CONFIG_HOME to another folder"
            ) from error
        return _parsed(path, path, remedy="move it away, and a new one will be created")
    return _parsed(Path(key), Path(certificate or key))


def throwaway_signer() -> Signer:
    """Create a temporary key that is not stored, for trials in a process that must not know the user's key.

    Raises:
        ImportError: if the extra `video` is not installed.
    """
    identity = _new_identity()
    end = identity.index(b"-----BEGIN CERTIFICATE")
    return Signer(algorithm="es256", name="a trial", certificates=identity[end:], key=identity[:end])


def load_anchors(path: str | Path) -> str:
    """Load trusted root certificates as PEM.

    Raises:
        SigningError: if the file cannot be read or has other contents.
        ImportError: if the extra `video` is not installed.
    """
    path = Path(path)
    encoding = _cryptography("hazmat.primitives.serialization").Encoding.PEM
    chain = _certificates(_read(path, private=False), path)
    return "".join(one.public_bytes(encoding).decode() for one in chain)


def local_signer_path() -> Path:
    """Return the path of the local key: in XDG_CONFIG_HOME, or else in .config of the home folder.

    Raises:
        SigningError: if there is no home folder, as for some user ids in containers.
    """
    folder = os.environ.get("XDG_CONFIG_HOME") or ""
    try:
        config = Path(folder) if os.path.isabs(folder) else Path("~/.config").expanduser()
    except RuntimeError as error:
        raise SigningError(
            "there is no home folder for a local signing key: give your own key with --signing-key or in "
            f"{KEY_VARIABLE}, or set XDG_CONFIG_HOME to a folder"
        ) from error
    return config / "th_jax" / "signer.pem"


def _parsed(key: Path, certificate: Path, *, remedy: str = "give one that is currently valid") -> Signer:
    private = _read(key, private=True)
    content = _read(certificate, private=False)
    if b"BEGIN CERTIFICATE" not in content and certificate == key:
        raise SigningError(
            f"{key} contains no certificate: give its file with --signing-certificate or in {CERTIFICATE_VARIABLE}"
        )
    chain = _certificates(content, certificate)
    serialization = _cryptography("hazmat.primitives.serialization")
    try:
        loaded = serialization.load_pem_private_key(private, password=None)
    except TypeError:
        raise SigningError(f"the signing key {key} is protected with a password: store it without one") from None
    except Exception as error:  # malformed keys raise many types
        raise SigningError(f"{key} contains no private key in PEM format (BEGIN PRIVATE KEY)") from error
    if _public(loaded) != _public(chain[0]):
        raise SigningError(
            f"the first certificate in {certificate} does not belong to the key {key}: put the signer's own "
            "certificate first"
        )
    now = datetime.now(UTC)
    if not chain[0].not_valid_before_utc <= now <= chain[0].not_valid_after_utc:
        dates = f"{chain[0].not_valid_before_utc:%Y-%m-%d} to {chain[0].not_valid_after_utc:%Y-%m-%d}"
        raise SigningError(f"the certificate in {certificate} is only valid from {dates}: {remedy}")
    names = chain[0].subject.get_attributes_for_oid(_cryptography("x509.oid").NameOID.COMMON_NAME)
    return Signer(
        algorithm=_algorithm(loaded, key),
        name=str(names[0].value) if names else "an unnamed certificate",
        certificates=b"".join(one.public_bytes(serialization.Encoding.PEM) for one in chain),
        key=_pem(loaded),
    )


def _read(path: Path, *, private: bool) -> bytes:
    what = "signing key" if private else "signing certificate"
    try:
        # Non-blocking, because opening a pipe would hang.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        raise SigningError(f"there is no {what} at {path}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SigningError(f"cannot read the {what} {path}: {reason}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise SigningError(f"the {what} {path} is not a regular file")
        if private and os.name == "posix":
            _check_private(path, status)
        if status.st_size > _LIMIT:
            raise SigningError(f"the {what} {path} is larger than {_LIMIT} bytes")
        return os.read(descriptor, _LIMIT)
    finally:
        os.close(descriptor)


def _check_private(path: Path, status: os.stat_result) -> None:
    if status.st_uid not in (os.geteuid(), 0):
        raise SigningError(f"the signing key {path} is owned by user {status.st_uid}, not by you: make your own copy")
    # Secrets mounted into a container belong to root, and can only be read through the group.
    allowed = 0o040 if status.st_uid == 0 != os.geteuid() else 0
    if status.st_mode & 0o077 & ~allowed:
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        raise SigningError(f"the signing key {path} is accessible to other users (mode {mode}): run chmod 600 on it")


def _certificates(content: bytes, path: Path) -> list[Any]:
    try:
        return list(_cryptography("x509").load_pem_x509_certificates(content))
    except Exception as error:  # malformed certificates raise many types
        raise SigningError(f"{path} contains no certificates in PEM format (BEGIN CERTIFICATE)") from error


def _algorithm(key: Any, path: Path) -> str:
    asymmetric = "hazmat.primitives.asymmetric"
    if isinstance(key, _cryptography(f"{asymmetric}.ec").EllipticCurvePrivateKey):
        known = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
        if key.curve.name in known:
            return known[key.curve.name]
    if isinstance(key, _cryptography(f"{asymmetric}.ed25519").Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, _cryptography(f"{asymmetric}.rsa").RSAPrivateKey) and 2048 <= key.key_size <= 16384:
        return "ps256"
    kinds = "P-256, P-384, P-521, Ed25519, or RSA keys of at least 2048 bits"
    raise SigningError(f"C2PA requires {kinds}, but {path} is a different kind of key")


def _make_local_signer(path: Path) -> None:
    """Create the local key's file if it does not exist; if two processes do so at once, both use the first one's key."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError), whole_file(path, mode=0o600, replace=False) as file:
        file.write(_new_identity())


def _new_identity() -> bytes:
    """Create a key with its certificate, and that of the root that signed it."""
    curve = _cryptography("hazmat.primitives.asymmetric.ec")
    root, leaf = (curve.generate_private_key(curve.SECP256R1()) for _ in range(2))
    number = secrets.token_hex(4)  # distinguishes signers without identifying the person or computer
    signer, issuer = f"th_jax local signer {number}", f"th_jax local root {number}"
    certificates = [
        _certificate(signer, leaf.public_key(), issuer=issuer, issuer_key=root, root=False),
        _certificate(issuer, root.public_key(), issuer=issuer, issuer_key=root, root=True),
    ]
    encoding = _cryptography("hazmat.primitives.serialization").Encoding.PEM
    return _pem(leaf) + b"".join(certificate.public_bytes(encoding) for certificate in certificates)


def _certificate(name: str, public: Any, *, issuer: str, issuer_key: Any, root: bool) -> Any:
    """Create a certificate in the form that C2PA requires (specification 2.2, section 14.5.1)."""
    x509, oid = _cryptography("x509"), _cryptography("x509.oid")

    def distinguished(common: str) -> Any:
        organization = x509.NameAttribute(oid.NameOID.ORGANIZATION_NAME, LOCAL_ORGANIZATION)
        return x509.Name([organization, x509.NameAttribute(oid.NameOID.COMMON_NAME, common)])

    unused = (
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "encipher_only",
        "decipher_only",
    )
    usage = x509.KeyUsage(digital_signature=not root, key_cert_sign=root, crl_sign=root, **dict.fromkeys(unused, False))
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder(issuer_name=distinguished(issuer), subject_name=distinguished(name))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # clocks differ
        .not_valid_after(now + timedelta(days=365 * _YEARS))
        .add_extension(x509.BasicConstraints(ca=root, path_length=0 if root else None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if not root:
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([oid.ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False
        )
    return builder.sign(issuer_key, _cryptography("hazmat.primitives.hashes").SHA256())


def _public(of: Any) -> bytes | None:
    """Return the public key of a private key or certificate; None for a certificate with an unknown key type."""
    serialization = _cryptography("hazmat.primitives.serialization")
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    try:
        return bytes(of.public_key().public_bytes(serialization.Encoding.DER, form))
    except (ValueError, _cryptography("exceptions").UnsupportedAlgorithm):
        return None


def _pem(key: Any) -> bytes:
    serialization = _cryptography("hazmat.primitives.serialization")
    form = serialization.PrivateFormat.PKCS8
    return bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))


def _cryptography(module: str) -> ModuleType:
    return load_backend(f"cryptography.{module}", _PURPOSE)
