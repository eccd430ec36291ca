"""What damaged and crafted files once did to their readers, each as the sentence that they are refused with now."""

import contextlib
import dataclasses
import io
import json
import os
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
from tensorflow_datasets.proto import tf_example_pb2

from tests.hostile import valid_files
from th_jax.avatars.file import AvatarError, load_avatar, write_tensors
from th_jax.avatars.requests import read_people_file
from th_jax.data.records import VideoRecords
from th_jax.data.schema import jpeg_sides, parse, serialise
from th_jax.data.tfrecord import INDEX_SUFFIX, DamagedIndex, load_index
from th_jax.data.video_list import load_video_list, save_video_list
from th_jax.driving.driver import read_landmarks
from th_jax.storage.tensors import TensorFileError, checksum, read_described, read_description, tensors_digest
from th_jax.storage.tensors import write_tensors as write_plain
from th_jax.weights import FORMAT as META_FORMAT
from th_jax.weights import PretrainedError, load_meta

ADAIN = np.zeros(valid_files.NETWORKS.plan.adain_size, np.float32)
ESCAPE = "\x1b]0;owned\x07"
LANDMARKS = np.full((1, 68, 2), 0.5, np.float32)


def sealed(path: Path, tensors: dict[str, np.ndarray], text: str, file_format: str) -> Path:
    """A tensor file with any text as its description, and the checksum that fits."""
    digest = tensors_digest(tensors)
    words = {"format": file_format, "description": text, "sha256": checksum(file_format, text, digest)}
    write_plain(path, tensors, words)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "its description is not valid JSON"),
        ("[" * 50_000, "its description is not valid JSON"),
        ("{", "its description is not valid JSON"),
        ("[]", "has no description"),
        ("7", "has no description"),
    ],
    ids=["empty", "deep", "cut", "list", "number"],
)
def test_a_checksum_that_fits_makes_no_description(tmp_path: Path, text: str, message: str) -> None:
    path = sealed(tmp_path / "a.safetensors", {"x": np.zeros(2)}, text, "tests/1")
    with pytest.raises(TensorFileError, match=message):
        read_described(path, file_format="tests/1")
    with pytest.raises(TensorFileError, match=message):
        read_description(path, file_format="tests/1")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.safetensors")
    with pytest.raises(TensorFileError, match="is a folder, a device or a pipe"):
        read_description(tmp_path / "a.safetensors", file_format="tests/1")
    os.mkfifo(tmp_path / "people.csv")
    with pytest.raises(ValueError, match="not a regular file: a people file"):
        read_people_file(tmp_path / "people.csv")


AVATARS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "without networks": ({"networks": None}, {}, "needs networks that"),
    "of a network that cannot be compared": (
        {"networks": dataclasses.asdict(valid_files.NETWORKS) | {"spectral_norm": []}}, {}, "needs networks that",
    ),
    "of meta weights without a digest": ({"meta": {"name": "tiny"}}, {}, "does not name the meta weights"),
    "of meta weights for a terminal": ({"meta": {"name": "a", "digest": ESCAPE}}, {}, "does not name the meta weights"),
    "with a tensor for a terminal": ({}, {ESCAPE: LANDMARKS}, r"unknown '\\x1b\]0;owned\\x07'"),
    "of no meta weights": ({"meta": None}, {}, "does not name the meta weights"),
    "with three landmarks": ({}, {"landmarks": LANDMARKS[:, :3]}, "invalid landmarks: the shots' landmarks"),
    "with flat landmarks": ({}, {"landmarks": LANDMARKS[0]}, r"has invalid landmarks: .*got float32 \[68, 2\]"),
    "with whole landmarks": ({}, {"landmarks": LANDMARKS.astype(np.int64)}, "has invalid landmarks: .*got int64"),
    "with endless landmarks": ({}, {"landmarks": LANDMARKS * np.inf}, "must be finite"),
}  # fmt: skip


@pytest.mark.parametrize("name", AVATARS)
def test_avatars(tmp_path: Path, name: str) -> None:
    changes, tensors, message = AVATARS[name]
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"adain": ADAIN, **tensors}, valid_files.avatar_description() | changes)
    with pytest.raises(AvatarError, match=message):
        load_avatar(path, meta=valid_files.meta())


MADE_OF = valid_files.avatar_description()["provenance"]


@pytest.mark.parametrize(
    "provenance",
    [None, {}, "generated", {"schema": 1}, MADE_OF | {"weights": {"tiny": [7]}}, MADE_OF | {"inputs": [None]}],
)
def test_an_avatar_that_does_not_say_what_it_is(tmp_path: Path, provenance: Any) -> None:
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"adain": ADAIN}, valid_files.avatar_description() | {"provenance": provenance})
    loaded = load_avatar(path, meta=valid_files.meta())
    with pytest.raises(AvatarError, match="no valid provenance record"):
        _ = loaded.provenance


META: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "without a name": ({"name": ...}, {}, "name missing"),
    "without perceptual networks": ({"perceptual": ...}, {}, "perceptual missing"),
    "of a folder": ({"perceptual": ["../../x"]}, {}, r"must list perceptual networks out of vgg16, .* got"),
    "of lists": ({"perceptual": [["vgg16"]]}, {}, "must list perceptual networks"),
    "of a number": ({"perceptual": 7}, {}, "must list perceptual networks"),
    "of no networks": ({"networks": []}, {}, "needs networks that"),
    "of endless networks": ({"networks": {"image_size": 16, "base_width": 4 * 10**30}}, {}, "networks"),
    "with a name for a terminal": ({"name": ESCAPE}, {}, r"invalid name '\\x1b\]0;owned\\x07'"),
    "with a name that is no text": ({"name": "\ud800"}, {}, r"invalid name '\\ud800'"),
    "with a tensor for a terminal": ({}, {ESCAPE: LANDMARKS}, r"do not fit .*: '\\x1b\]0;owned\\x07' must be missing"),
    "of words for a terminal": ({"perceptual": ESCAPE}, {}, r"got '\\x1b\]0;owned\\x07'"),
    "with rows alone": ({}, {"table/rows": np.zeros((5, 32), np.float32)}, "invalid video table"),
    "with ids of terabytes": (
        {}, {"table/rows": np.zeros((5, 32), np.float32), "table/row_ids": np.full(5, 2**40)},
        "invalid video table",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", META)
def test_meta_weights(tmp_path: Path, name: str) -> None:
    changes, tensors, message = META[name]
    about = {key: value for key, value in (valid_files.meta_description() | changes).items() if value is not ...}
    path = sealed(tmp_path / "tiny.safetensors", valid_files.weights() | tensors, json.dumps(about), META_FORMAT)
    with pytest.raises(PretrainedError, match=message):
        load_meta(path)


@pytest.mark.parametrize(
    ("place", "number"), [(24, 2**63), (24, 2**64 - 8), (32, 2**40), (32, 2**64 - 1), (8, 2**64 - 1)]
)
def test_an_index_points_nowhere_else(tmp_path: Path, place: int, number: int) -> None:
    path = valid_files.shard_index(tmp_path)
    content = bytearray(path.read_bytes()[:-4])
    content[place : place + 8] = struct.pack("<Q", number)
    path.write_bytes(content + struct.pack("<I", google_crc32c.value(bytes(content))))
    with pytest.raises(DamagedIndex, match=r"has records|was made for"):
        load_index(str(path).removesuffix(INDEX_SUFFIX))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shards": {"train": 10**12}}, "'train' with 2 videos cannot have 1000000000000 shards"),
        ({"shards": {}}, "splits do not match"),
        ({"points": "68"}, "name, points, frame_size or true_landmarks are invalid"),
        ({"name": 7}, "name, points, frame_size or true_landmarks are invalid"),
        ({"splits": {"train": ((1, "a", "b", 3, 0, 0),)}}, "row key must be 64 hexadecimal digits"),
        ({"splits": {"train": (("a" * 64, "a", None, 3, 0, 0),)}}, "names must be strings"),
        ({"splits": {"train": (("a" * 64, "a", "b", 3, 0.5, 0),)}}, "numbers must be integers"),
    ],
)
def test_a_list_of_videos_is_one(
    tmp_path: Path, changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    valid_files.data_set(tmp_path)
    videos = load_video_list(tmp_path)
    body = json.dumps({"version": 1, **videos._asdict(), **changes}).encode()[1:]
    from th_jax.data import video_list

    (tmp_path / "videos.json").write_bytes(video_list._head(body) + b"\n" + body)
    with pytest.raises(ValueError, match=message):
        load_video_list(tmp_path)
    save_video_list(videos, tmp_path)
    assert load_video_list(tmp_path) == videos


@pytest.mark.parametrize("name", ["a" * 300, "../../etc/x", "", "a/b"])
def test_a_list_names_shards_beside_itself(tmp_path: Path, name: str) -> None:
    valid_files.data_set(tmp_path)
    save_video_list(load_video_list(tmp_path)._replace(name=name), tmp_path)
    with pytest.raises(ValueError, match="data set's name"):
        VideoRecords(tmp_path, "train")


def changed(name: str, change: Callable[[Any], None]) -> bytes:
    example = tf_example_pb2.Example.FromString(serialise(valid_files.record()))
    change(example.features.feature[name])
    return example.SerializeToString()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("identity", lambda f: f.bytes_list.value.__setitem__(0, b"\xff"), "identity of a record is not valid UTF-8"),
        ("landmarks", lambda f: f.Clear(), "landmarks must be 68 iBUG points, .* but got 0"),
        ("landmarks", lambda f: f.float_list.value.__setitem__(0, float("inf")), r"landmarks must be in \[0, 1\]"),
        ("landmarks", lambda f: f.float_list.value.__setitem__(0, float("nan")), "must be NaN in both x and y"),
    ],
)
def test_a_record_can_be_trained_on(name: str, change: Callable[[Any], None], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(changed(name, change))


def with_sides(jpeg: bytes, height: int, width: int) -> bytes:
    place = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:place] + struct.pack(">HH", height, width) + jpeg[place + 4 :]


def test_a_frame_of_a_kilobyte_takes_no_gigabytes() -> None:
    jpeg = valid_files.record().frames[0]
    assert jpeg_sides(jpeg) == (16, 16)
    assert jpeg_sides(jpeg[:2] + b"\xff" * 5 + jpeg[2:]) == (16, 16)
    assert jpeg_sides(with_sides(jpeg, 4096, 100)) == (4096, 100)
    none = (jpeg[:20], b"", b"\x89PNG\r\n\x1a\n" + jpeg, jpeg[:2] + b"\0" + jpeg[2:], with_sides(jpeg, 0, 9))
    for frame in (with_sides(jpeg, 32_000, 32_000), *none):
        data = changed("frames", lambda f, frame=frame: f.bytes_list.value.__setitem__(1, frame))
        message = "are not a JPEG" if frame in none else "at most 4096 px per side, .* 32000 x 32000"
        with pytest.raises(ValueError, match=message):
            parse(data)


def npz(path: Path, header: str, *, damage: bool = False) -> Path:
    text = header.encode()
    numbers = np.random.default_rng(0).random((1, 68, 2), np.float32).tobytes()
    array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + numbers
    with io.BytesIO() as buffer:
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("landmarks.npy", array)
        content = bytearray(buffer.getvalue())
    if damage:
        content[60:100] = bytes(40)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("header", "damage"),
    [
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 68, 2)}", True),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 68, 2)}", False),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -68, 2)}", False),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 68, 2", False),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (1, 68, 2)}", False),
        ("(" * 5000, False),
        ("  {\n 'a'", False),
    ],
)
def test_landmarks_that_drive(tmp_path: Path, header: str, damage: bool) -> None:
    path = npz(tmp_path / "a.npz", header, damage=damage)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} is not a readable landmark file"):
        read_landmarks(path)


def test_a_rate_that_would_be_rounded_to_none(tmp_path: Path) -> None:
    path = valid_files.driving_landmarks(tmp_path)
    with pytest.raises(ValueError, match=r"fps .* got 1e-09"):
        read_landmarks(path, fps=1e-9)


def test_names_in_a_manifest_that_lead_in_circles(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for shots in ("loop/a.jpg", "a" * 300, "ada/" * 2000):
        (tmp_path / "people.csv").write_text(f"name,shots,consent\nada,{shots},none\n")
        with contextlib.suppress(ValueError):  # by the version of Python
            assert read_people_file(tmp_path / "people.csv")[0].shots.is_relative_to(tmp_path)
