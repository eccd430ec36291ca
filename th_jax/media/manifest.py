"""Puts a signed C2PA manifest into what is written: that a machine made it, which one, when, and from what."""

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from th_jax.media.content_credentials import MEDIA_TYPES, SOURCE_TYPES, c2pa, offline_context
from th_jax.media.provenance import Kind, Person, Provenance
from th_jax.media.signing import Signer, SigningError

PROVENANCE_LABEL = "org.th_jax.provenance"
"""The assertion that holds this project's own record."""

NO_CONSENT_RECORDED = "no consent recorded"
"""What stands there instead of a consent record's digest."""


def source_type(provenance: Provenance) -> str:
    """IPTC's term for where the pixels come from.

    A generator's pictures of a person who exists are a composite of that person's pictures and a network's; those of a person
    who does not are the network's alone. A rendered head is computed without having learned from pictures.
    """
    if provenance.kind is Kind.SYNTHETIC_RENDER:
        return SOURCE_TYPES + "algorithmicMedia"
    if provenance.kind is Kind.GENERATED and provenance.person is Person.SYNTHETIC:
        return SOURCE_TYPES + "trainedAlgorithmicMedia"
    return SOURCE_TYPES + "compositeWithTrainedAlgorithmicMedia"


def definition(provenance: Provenance, media_type: str) -> dict[str, Any]:
    """What a manifest says, as c2pa takes it; neither the file's name nor a picture is in it."""
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
    """Copy a PNG, JPEG, GIF or MP4 file with its manifest. Memory stays constant: at most about 0.7 GB, for any length.

    Raises:
        SigningError: if the library does not take the key, the certificates or an ingredient.
        OSError: if the disk refuses.
        ImportError: without the extra `video`.
    """
    with source.open("rb") as original, target.open("x+b") as signed:
        _sign(original, signed, MEDIA_TYPES[source.suffix.lower()], provenance, signer)


def check_signing(provenance: Provenance, signer: Signer) -> None:
    """Sign one pixel: so that a key, certificate or ingredient that cannot be used shows before hours of generation.

    Raises:
        SigningError, ImportError: as `embed_manifest`.
    """
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
        raise SigningError(f"the signer {signer.name!r} cannot sign what is written: {error}") from error


class _Remembering:
    """A file that remembers what the disk refused, which c2pa reports as an error of its own."""

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
