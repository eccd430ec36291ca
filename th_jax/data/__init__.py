"""Reads records of talking heads without TensorFlow: videos, episodes for meta-learning, and one person's shots."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from th_jax.data.episodes import Episodes as Episodes
    from th_jax.data.episodes import decode_frame as decode_frame
    from th_jax.data.records import VideoRecords as VideoRecords
    from th_jax.data.records import read_videos as read_videos
    from th_jax.data.schema import VideoRecord as VideoRecord
    from th_jax.data.shots import inspect_shots as inspect_shots
    from th_jax.data.shots import load_shots as load_shots
    from th_jax.data.video_list import VideoList as VideoList
    from th_jax.data.video_list import load_video_list as load_video_list

# Imported on first use: hundreds of preparation processes import only the schema, and must not load JAX and Grain.
_HOMES = {
    "Episodes": "episodes",
    "decode_frame": "episodes",
    "VideoRecords": "records",
    "read_videos": "records",
    "VideoRecord": "schema",
    "inspect_shots": "shots",
    "load_shots": "shots",
    "VideoList": "video_list",
    "load_video_list": "video_list",
}

__all__ = [
    "Episodes",
    "VideoList",
    "VideoRecord",
    "VideoRecords",
    "decode_frame",
    "inspect_shots",
    "load_shots",
    "load_video_list",
    "read_videos",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'th_jax.data' has no attribute {name!r}")
    return getattr(import_module(f"th_jax.data.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """List the public names, for completion."""
    return sorted(__all__)
