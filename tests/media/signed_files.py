"""Keys, certificates, images and the contents of their manifests, for tests of signing and verification."""

import io
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from th_jax.provenance import Ingredient, Role
from th_jax.provenance.c2pa_write import c2pa, offline_context
from th_jax.provenance.ingredients import IngredientSearch


def image(*, seed: int = 0, size: int = 48) -> np.ndarray:
    """Smooth colors, which JPEG preserves closely."""
    y, x = np.mgrid[0:size, 0:size]
    return np.stack([3 * x + seed, 4 * y, 200 - x - y], -1).astype(np.uint8)


def make_identity(
    key: Any | None = None, *, start: float = -1.0, days: float = 30.0, usable: bool = True
) -> tuple[bytes, bytes, bytes]:
    """PEM of a key, of its certificate and of the root that signed it; valid from `start` days from now.

    Without `usable` the certificate lacks what C2PA asks of it.
    """
    root, leaf = ec.generate_private_key(ec.SECP256R1()), key or ec.generate_private_key(ec.SECP256R1())
    names = {
        kind: x509.Name(
            [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Ada's"), x509.NameAttribute(NameOID.COMMON_NAME, kind)]
        )
        for kind in ("Ada", "Ada's root")
    }
    first = datetime.now(UTC) + timedelta(days=start)

    def certificate(name: str, public: Any, *, ca: bool) -> bytes:
        builder = x509.CertificateBuilder(names["Ada's root"], names[name], public, x509.random_serial_number())
        builder = builder.not_valid_before(first).not_valid_after(first + timedelta(days=days))
        if usable:
            rest = dict.fromkeys(
                ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
            )
            usage = x509.KeyUsage(digital_signature=not ca, key_cert_sign=ca, crl_sign=ca, decipher_only=False, **rest)
            builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            builder = builder.add_extension(usage, critical=True)
            builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key())
            builder = builder.add_extension(identifier, critical=False)
            if not ca:
                purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
                builder = builder.add_extension(purpose, critical=False)
        return builder.sign(root, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    return (
        private_pem(leaf),
        certificate("Ada", leaf.public_key(), ca=False),
        certificate("Ada's root", root.public_key(), ca=True),
    )


def private_pem(key: Any, *, password: bytes | None = None) -> bytes:
    lock = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock)


def write_private(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def find_ingredients(files: Iterable[Path], *, role: Role, kept: int = 0) -> tuple[Ingredient, ...]:
    """The files that carry manifests."""
    search = IngredientSearch(role, kept=kept)
    for file in files:
        search.look(file)
    return tuple(search.found)


def store_of(path: Path) -> dict[str, Any] | None:
    """A file's manifest store in the form of c2pa's JSON; None if there is none."""
    with path.open("rb") as file, offline_context() as context:
        reader = c2pa().Reader.try_create(None, io.BytesIO(file.read()), None, context)
        return None if reader is None else json.loads(reader.json())


def manifest_of(path: Path) -> dict[str, Any]:
    """The active manifest of a file that has one."""
    store = store_of(path)
    assert store is not None, f"{path} has no manifest"
    return store["manifests"][store["active_manifest"]]


def assertion(manifest: dict[str, Any], label: str) -> dict[str, Any]:
    """What the manifest states under a label."""
    (found,) = [one["data"] for one in manifest["assertions"] if one["label"] == label]
    return found
