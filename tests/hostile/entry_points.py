"""The inventory: every kind of untrusted input file, with a valid example and the function that opens it.

`ENTRY_POINTS` is what the tests beside this file damage. `MODULES` says of every module that opens files where they come from.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.hostile import valid_files
from tests.hostile.raw_errors import RAW
from th_jax.avatars.file import AvatarError, load_avatar, read_description
from th_jax.avatars.requests import read_people_file
from th_jax.consent.record import ConsentError, read_consent
from th_jax.data.episodes import UnreadableFrame, decode_frame
from th_jax.data.landmark_file import read_landmark_file
from th_jax.data.records import read_videos
from th_jax.data.tfrecord import DamagedIndex, DamagedRecord
from th_jax.driving.driver import read_landmarks
from th_jax.driving.many import read_list
from th_jax.media import DEFAULT_LIMITS, MediaError, open_video, read_image
from th_jax.media.audio import decode_sound
from th_jax.media.limits import check_file
from th_jax.perceptual.frozen import WeightsError, load_weights
from th_jax.provenance.record import SIDECAR_SUFFIX, read_sidecar
from th_jax.training.presets import read_settings
from th_jax.weights import PretrainedError, load_meta


class EntryPoint(NamedTuple):
    """One kind of file."""

    make: Callable[[Path], Path]
    """Writes a valid file into a folder, with what belongs to it, and gives its path."""
    open: Callable[[Path], Any]
    """Reads all of it."""
    raises: tuple[type[Exception], ...]
    """What a file that cannot be used raises, as documented."""
    sealed: bool = False
    """Whether every altered byte must be refused, rather than change a pixel, a coordinate or a word."""
    missing: tuple[type[Exception], ...] = ()
    """What a missing file raises, where that is something else."""
    whole: bool = True
    """Whether it bounds how much of the file is read."""
    regular: bool = True
    """Whether it looks at what kind of file it is before it opens it."""
    optional: bool = False
    """Whether a missing file is made up for by another."""
    blank: bool = False
    """Whether "{}" is a valid file."""


def clear_error(error: BaseException, entry: EntryPoint) -> bool:
    """Whether an error is a documented one with a sentence."""
    return isinstance(error, entry.raises) and not isinstance(error, RAW) and 0 < len(str(error)) < 2000


def _all_frames(path: Path) -> int:
    with open_video(path) as video:
        return sum(frame.shape == (video.size[1], video.size[0], 3) for _, frame in video.frames())


def _all_sound(path: Path) -> int:
    (_, channels), *blocks = decode_sound(str(check_file(path, DEFAULT_LIMITS)))
    return sum(block.shape[0] == channels for block in blocks)


def _data_set_of(path: Path) -> list[int]:
    return [len(record.frames) for _, record in read_videos(path.parent, "train")]


def _frame(path: Path) -> np.ndarray:
    return decode_frame(path.read_bytes(), size=16)


def _by_hand(path: Path) -> np.ndarray:
    return read_landmark_file(path, height=256, width=256)


def _sidecar_of(path: Path) -> Any:
    return read_sidecar(path.with_name(path.name.removesuffix(SIDECAR_SUFFIX)))


_DATA = (DamagedRecord, DamagedIndex, ValueError)
ENTRY_POINTS: dict[str, EntryPoint] = {
    "image, PNG": EntryPoint(valid_files.image, read_image, (MediaError,)),
    "image, JPEG": EntryPoint(lambda f: valid_files.image(f, "a.jpg"), read_image, (MediaError,)),
    "image, WebP": EntryPoint(lambda f: valid_files.image(f, "a.webp"), read_image, (MediaError,)),
    "image, TIFF": EntryPoint(lambda f: valid_files.image(f, "a.tiff"), read_image, (MediaError,)),
    "image, AVIF": EntryPoint(lambda f: valid_files.image(f, "a.avif"), read_image, (MediaError,)),
    "image, HEIC": EntryPoint(valid_files.heic, read_image, (MediaError,)),
    "video": EntryPoint(valid_files.video, _all_frames, (MediaError,)),
    "sound of a video": EntryPoint(valid_files.video_with_sound, _all_sound, (MediaError,)),
    "avatar": EntryPoint(
        valid_files.avatar, lambda path: load_avatar(path, meta=valid_files.meta()), (AvatarError,), sealed=True
    ),
    "avatar, description": EntryPoint(valid_files.avatar, read_description, (AvatarError,)),
    "meta weights": EntryPoint(valid_files.meta_weights, load_meta, (PretrainedError,), sealed=True),
    "perceptual weights": EntryPoint(
        valid_files.perceptual_weights, lambda path: load_weights(path, network="vgg16"), (WeightsError,)
    ),
    "consent record": EntryPoint(valid_files.consent, read_consent, (ConsentError,)),
    "provenance record": EntryPoint(valid_files.sidecar, _sidecar_of, (ValueError,), missing=(FileNotFoundError,)),
    "shard": EntryPoint(valid_files.data_set, _data_set_of, _DATA, sealed=True, missing=(FileNotFoundError,)),
    "shard without index": EntryPoint(
        valid_files.shard_alone, _data_set_of, _DATA, sealed=True, missing=(FileNotFoundError,)
    ),
    "index of a shard": EntryPoint(valid_files.shard_index, _data_set_of, _DATA, sealed=True, optional=True),
    "list of videos": EntryPoint(
        valid_files.video_list, _data_set_of, _DATA, sealed=True, missing=(FileNotFoundError,)
    ),
    "frame of a record": EntryPoint(
        lambda folder: valid_files.image(folder, "a.jpg"),
        _frame,
        (UnreadableFrame,),
        whole=False,
        regular=False,
        missing=(FileNotFoundError,),
    ),
    "landmarks by hand, text": EntryPoint(valid_files.landmarks_by_hand(".txt"), _by_hand, (ValueError,)),
    "landmarks by hand, JSON": EntryPoint(valid_files.landmarks_by_hand(".json"), _by_hand, (ValueError,)),
    "landmarks by hand, iBUG": EntryPoint(valid_files.landmarks_by_hand(".pts"), _by_hand, (ValueError,)),
    "driving landmarks": EntryPoint(valid_files.driving_landmarks, read_landmarks, (ValueError,)),
    "people": EntryPoint(valid_files.people, read_people_file, (ValueError,), missing=(FileNotFoundError,)),
    "list of films": EntryPoint(valid_files.films, read_list, (ValueError,), missing=(FileNotFoundError,)),
    "fine-tuning settings": EntryPoint(
        valid_files.settings,
        lambda path: read_settings(str(path)),
        (ValueError,),
        missing=(FileNotFoundError,),
        blank=True,
    ),
}
