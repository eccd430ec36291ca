"""Pictures and videos: one door in (`read`), one door out (`write`), which asks for provenance."""

from th_jax.media.ingredients import Ingredient, Role, find_ingredients
from th_jax.media.limits import DEFAULT_LIMITS, Limits, MediaError, MediaFault
from th_jax.media.provenance import Kind, Person, Provenance, pixel_digest, read_sidecar, sidecar_path
from th_jax.media.read import IMAGE_SUFFIXES, VIDEO_SUFFIXES, open_video, read_image
from th_jax.media.signing import Signer, SigningError, load_signer
from th_jax.media.video import Video
from th_jax.media.write import unmarked_path, write_gif, write_image, write_page, write_video

__all__ = [
    "DEFAULT_LIMITS",
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "Ingredient",
    "Kind",
    "Limits",
    "MediaError",
    "MediaFault",
    "Person",
    "Provenance",
    "Role",
    "Signer",
    "SigningError",
    "Video",
    "find_ingredients",
    "load_signer",
    "open_video",
    "pixel_digest",
    "read_image",
    "read_sidecar",
    "sidecar_path",
    "unmarked_path",
    "write_gif",
    "write_image",
    "write_page",
    "write_video",
]
