"""Provenance of generated media: records, signed C2PA manifests, watermarks, and their verification.

All generated images and videos are written by `write`, which requires a provenance record.
"""

from th_jax.provenance.record import (
    Ingredient,
    Kind,
    Person,
    Provenance,
    Role,
    pixel_digest,
    read_sidecar,
    sidecar_path,
)
from th_jax.provenance.signing import Signer, SigningError, load_signer
from th_jax.provenance.write import unmarked_path, write_gif, write_image, write_page, write_video

__all__ = [
    "Ingredient",
    "Kind",
    "Person",
    "Provenance",
    "Role",
    "Signer",
    "SigningError",
    "load_signer",
    "pixel_digest",
    "read_sidecar",
    "sidecar_path",
    "unmarked_path",
    "write_gif",
    "write_image",
    "write_page",
    "write_video",
]
