"""Loads c2pa-python, which reads and writes C2PA manifests, with every way to the network shut."""

import json
from types import ModuleType
from typing import Any

from th_jax.media.backends import load_backend

MEDIA_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".mp4": "video/mp4",
}
"""Of the files that get a manifest, by the ending of their names."""

SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
"""What IPTC's terms for the origin of pictures begin with."""

_SETTINGS: dict[str, Any] = {
    "version": 1,
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
    "core": {
        "allowed_network_hosts": [],
        # What is larger goes to a temporary file.
        "backing_store_memory_threshold_in_mb": 16,
    },
    "builder": {
        # A thumbnail would be a second picture of a person, which outlives a crop of the first.
        "thumbnail": {"enabled": False},
        "actions": {f"auto_{name}_action": {"enabled": False} for name in ("created", "opened", "placed")},
    },
}


def c2pa() -> ModuleType:
    """`c2pa`, the Python side of the C2PA project's own library.

    Raises:
        ImportError: without the extra `video`.
    """
    return load_backend("c2pa", "reading and writing C2PA manifests")


def offline_context(*, trust_anchors: str | None = None) -> Any:
    """c2pa's settings for one piece of work; a context manager. Nothing global is set.

    Args:
        trust_anchors: root certificates, as PEM, that are trusted beside those that the library trusts.

    Raises:
        ImportError: without the extra `video`.
        ValueError: for certificates that the library does not take.
    """
    trust = {} if trust_anchors is None else {"trust": {"user_anchors": trust_anchors}}
    try:
        return c2pa().Context.from_json(json.dumps(_SETTINGS | trust))
    except c2pa().C2paError as error:
        raise ValueError(f"these are no certificates to trust: {error}") from error
