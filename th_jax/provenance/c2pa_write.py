"""Writes signed C2PA manifests: that a machine generated the content, which model, when, and from which inputs."""

import io
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from th_jax.optional import load_backend
from th_jax.provenance.record import Kind, Person, Provenance
from th_jax.provenance.signing import Signer, SigningError

MEDIA_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".mp4": "video/mp4",
}
"""Media types of the files that get a manifest, by suffix."""

SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
"""Common prefix of the IPTC terms for the source of images."""

_SETTINGS: dict[str, Any] = {
    "version": 1,
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
    "core": {
        "allowed_network_hosts": [],
        # Larger data goes to a temporary file.
        "backing_store_memory_threshold_in_mb": 16,
    },
    "builder": {
        # A thumbnail would be a second image of a person, which survives cropping the first.
        "thumbnail": {"enabled": False},
        "actions": {f"auto_{name}_action": {"enabled": False} for name in ("created", "opened", "placed")},
    },
}


def c2pa() -> ModuleType:
    """Import `c2pa`, the Python bindings of the C2PA project's own library.

    Raises:
        ImportError: if the extra `video` is not installed.
    """
    return load_backend("c2pa", "reading and writing C2PA manifests")


def offline_context(*, trust_anchors: str | None = None) -> Any:
    """Create c2pa's settings for one operation, as a context manager; no global state is changed.

    `trust_anchors` are trusted root certificates, as PEM, in addition to those that the library trusts.

    Raises:
        ImportError: if the extra `video` is not installed.
        ValueError: if the library rejects the certificates.
    """
    trust = {} if trust_anchors is None else {"trust": {"user_anchors": trust_anchors}}
    try:
        return c2pa().Context.from_json(json.dumps(_SETTINGS | trust))
    except c2pa().C2paError as error:
        raise ValueError(f"invalid trust certificates: {error}") from error


PROVENANCE_LABEL = "org.th_jax.provenance"
"""Label of the assertion with this project's own record."""

NO_CONSENT_RECORDED = "no consent recorded"
"""Value in place of the digest of a consent record, if there is none."""


def source_type(provenance: Provenance) -> str:
    """Return the IPTC term for the source of the pixels.

    Generated images of a real person are a composite of that person's images and a network's output. Those of a
    synthetic person are the network's output alone. A rendered head is computed without learning from images.
    """
    if provenance.kind is Kind.SYNTHETIC_RENDER:
        return SOURCE_TYPES + "algorithmicMedia"
    if provenance.kind is Kind.GENERATED and provenance.person is Person.SYNTHETIC:
        return SOURCE_TYPES + "trainedAlgorithmicMedia"
    return SOURCE_TYPES + "compositeWithTrainedAlgorithmicMedia"


def definition(provenance: Provenance, media_type: str) -> dict[str, Any]:
    """Build the manifest definition for c2pa; it contains neither the file's name nor an image."""
    software = {"name": provenance.software, "version": provenance.version}
    actions: list[dict[str, Any]] = [
        {
            "action": "c2pa.created",
            "when": provenance.created,
            "digitalSourceType": source_type(provenance),
            "softwareAgent": software,
        }
    ]
    if provenance.watermark is not None:
        actions.append({"action": "c2pa.watermarked.unbound", "when": provenance.created, "softwareAgent": software})
    record: dict[str, Any] = {
        "kind": provenance.kind.value,
        "created": provenance.created,
        "avatar": provenance.avatar,
        "weights": dict(provenance.weights),
        "inputs": list(provenance.inputs),
        "consent": provenance.consent or NO_CONSENT_RECORDED,
        "person": provenance.person.value,
        "watermark": provenance.watermark,
        "ingredients": [{"role": one.role.value, "file": one.file} for one in provenance.ingredients],
        "notes": provenance.notes,
    }
    return {
        "claim_generator_info": [software],
        "format": media_type,
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": actions}},
            {"label": PROVENANCE_LABEL, "data": record},
        ],
    }


def embed_manifest(source: Path, target: Path, *, provenance: Provenance, signer: Signer) -> None:
    """Copy a PNG, JPEG, GIF or MP4 file with its manifest, in constant memory: at most about 0.7 GB, for any length.

    Raises:
        SigningError: if the library rejects the key, the certificates or an ingredient.
        OSError: if the file cannot be written.
        ImportError: if the extra `video` is not installed.
    """
    with source.open("rb") as original, target.open("x+b") as signed:
        _sign(original, signed, MEDIA_TYPES[source.suffix.lower()], provenance, signer)


def check_signing(provenance: Provenance, signer: Signer) -> None:
    """Sign a single pixel, so that unusable keys, certificates or ingredients are found before hours of generation.

    Raises:
        SigningError, ImportError: as `embed_manifest`.
    """
    import cv2  # here: records and their checks do not need OpenCV

    pixel = cv2.imencode(".png", np.zeros((1, 1, 3), np.uint8))[1].tobytes()
    _sign(io.BytesIO(pixel), io.BytesIO(), MEDIA_TYPES[".png"], provenance, signer)


def _sign(source: Any, target: Any, media_type: str, provenance: Provenance, signer: Signer) -> None:
    library = c2pa()
    disk = _Remembering(target)
    key = library.C2paSignerInfo(signer.algorithm, signer.certificates, signer.key, None)
    try:
        with (
            offline_context() as context,
            library.Signer.from_info(key) as signing,
            library.Builder(definition(provenance, media_type), context) as builder,
        ):
            for ingredient in provenance.ingredients:
                if ingredient.archive is not None:
                    builder.add_ingredient_from_archive(io.BytesIO(ingredient.archive))
            builder.sign(signing, media_type, source, disk)
    except library.C2paError as error:
        if disk.refusal is not None:
            raise disk.refusal from error
        raise SigningError(f"the signer {signer.name!r} cannot sign the output: {error}") from error


class _Remembering:
    """A file that records write errors, which c2pa would report as its own errors."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.refusal: OSError | None = None
        self.read, self.seek, self.tell = file.read, file.seek, file.tell

    def write(self, content: bytes) -> int:
        return self._kept(self._file.write, content)

    def flush(self) -> None:
        self._kept(self._file.flush)

    def _kept(self, call: Any, *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except OSError as error:
            self.refusal = error
            raise
