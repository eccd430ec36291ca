"""Fuzz targets of tensors with words about them: avatars, meta weights, and npz files of driving landmarks."""

import io
import json
import struct
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.fuzz.mutations import documents, edited
from tests.fuzz.targets import Target
from tests.hostile import valid_files
from th_jax.avatars.file import FORMAT, AvatarError, load_avatar, read_description
from th_jax.consent.checks import ConsentError, check_driving
from th_jax.driving.driver import read_landmarks
from th_jax.driving.rates import frames_on_screen
from th_jax.landmarks.retarget import face_shape
from th_jax.perceptual.frozen import WeightsError
from th_jax.storage.tensors import checksum, tensors_digest, write_tensors
from th_jax.weights import FORMAT as META_FORMAT
from th_jax.weights import PretrainedError, load_meta

_TYPES = st.sampled_from((np.float16, np.float32, np.float64, np.int8, np.int64, np.uint64, np.bool_))
_SHAPES = st.sampled_from(((), (0,), (1,), (5,), (5, 32), (1, 68, 2), (2, 70, 2), (0, 68, 2), (1, 7, 2), (68, 2)))
_NAMES = st.sampled_from(("adain", "landmarks", "table/rows", "table/row_ids", "whole/x", "generator_params/x", ""))
_FILLS = st.sampled_from((0, 1, 0.5, -3, 1e30, float("nan"), float("inf")))


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.full(draw(_SHAPES), draw(_FILLS)).astype(draw(_TYPES))


@st.composite
def described(draw: st.DrawFn, description: Any, names: st.SearchStrategy[str]) -> tuple[Any, dict[str, Any]]:
    """A changed description, or changed tensors by their names (None: left out), or both."""
    changes = draw(st.dictionaries(names, st.none() | arrays(), max_size=2))
    return draw(documents(description) if draw(st.integers(0, 2)) else st.just(description)), changes


def _write(path: Path, tensors: dict[str, Any], changes: dict[str, Any], description: Any, file_format: str) -> None:
    """With a checksum that fits, as another program might."""
    tensors = {name: leaf for name, leaf in (tensors | changes).items() if leaf is not None}
    text = json.dumps(description)
    try:
        sealed = checksum(file_format, text, tensors_digest(tensors))
    except UnicodeEncodeError:
        sealed = ""
    write_tensors(path, tensors, {"format": file_format, "description": text, "sha256": sealed})


def read_avatar(folder: Path, content: tuple[Any, dict[str, Any]]) -> None:
    """An avatar that is opened can be asked everything that its user asks."""
    description, changes = content
    tensors = {
        "adain": np.zeros(valid_files.NETWORKS.plan.adain_size, np.float32),
        "landmarks": np.random.default_rng(0).uniform(0.2, 0.8, (1, 68, 2)).astype(np.float32),
    }
    path = folder / "a.safetensors"
    _write(path, tensors, changes, description, FORMAT)
    loaded = load_avatar(path, meta=valid_files.meta())
    assert loaded.provenance.avatar == loaded.digest
    assert loaded.kind in ("full", "feed_forward", "compact")
    assert "kind" not in loaded.notes
    if loaded.landmarks is not None:
        assert loaded.landmarks.shape[1:] in ((68, 2), (70, 2))
        try:
            assert np.isfinite(face_shape(loaded.landmarks).points).all()
        except ValueError as error:
            assert str(error).startswith(("a face's shape needs", "these landmarks have no mean shape"))  # noqa: PT017
    check_driving(loaded.description)


def read_meta(folder: Path, content: tuple[Any, dict[str, Any]]) -> None:
    description, changes = content
    path = folder / "tiny.safetensors"
    _write(path, valid_files.weights(), changes, description, META_FORMAT)
    model = load_meta(path)
    assert model.provenance.weights == {str(model.description["name"]): model.digest}
    assert (model.table_rows is None) == (not model.row_ids)


def read_raw(folder: Path, content: bytes) -> None:
    """The bytes of a safetensors file."""
    path = folder / "a.safetensors"
    path.write_bytes(content)
    assert isinstance(read_description(path), dict)
    load_avatar(path, meta=valid_files.meta())


@st.composite
def npz_files(draw: st.DrawFn) -> bytes:
    """An archive of arrays whose headers are not quite what numpy writes, before or after edits of the archive."""
    compression = draw(st.sampled_from((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)))
    with io.BytesIO() as buffer:
        with zipfile.ZipFile(buffer, "w", compression) as archive:
            for name in draw(st.lists(st.sampled_from(("landmarks", "fps", "other")), min_size=1, unique=True)):
                archive.writestr(f"{name}.npy", draw(_npy_files()))
        content = buffer.getvalue()
    return draw(edited(content)) if draw(st.booleans()) else content


@st.composite
def _npy_files(draw: st.DrawFn) -> bytes:
    shape = draw(
        st.sampled_from(("(3, 68, 2)", "(1,68,2)", "(-1, 68, 2)", "(-3, -68, 2)", "()", "(1,)", "(2**9, 2)", "3"))
    )
    kind = draw(
        st.sampled_from(("'<f4'", "'<f8'", "'>f2'", "'|O'", "'<U9'", "'|V0'", "[('a', '<f4')]", "'<m8'", "'f16'"))
    )
    header = f"{{'descr': {kind}, 'fortran_order': {draw(st.booleans())}, 'shape': {shape}, }}".encode()
    if draw(st.booleans()):
        header = draw(edited(header))
    version = draw(st.sampled_from((b"\1\0", b"\1\0", b"\2\0", b"\3\0", b"\0\0", b"\xff\xff")))
    length = struct.pack("<H" if version == b"\1\0" else "<I", len(header))
    numbers = np.full(408, draw(_FILLS), np.float32).tobytes()[: draw(st.sampled_from((0, 8, 1632)))]
    return b"\x93NUMPY" + version + length + header + numbers


def read_driving(folder: Path, content: bytes) -> None:
    """Landmarks that are read can drive: times ascend, the rate is one, each frame has its place."""
    path = folder / "a.npz"
    path.write_bytes(content)
    driving = read_landmarks(path)
    assert driving.landmarks.dtype == np.float32
    assert driving.landmarks.shape[1:] in ((68, 2), (70, 2))
    assert (np.diff(driving.times) > 0).all()
    assert driving.fps > 0
    assert (driving.segment >= 0).any()
    assert len(frames_on_screen(driving.times, driving.fps)) == len(driving.times)


def _content(make: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return make(Path(folder)).read_bytes()


_META = valid_files.meta_description() | {"perceptual": []}
_TABLE = st.sampled_from(("table/rows", "table/row_ids", sorted(valid_files.weights())[0], "x"))
TARGETS = {
    "avatar": Target(described(valid_files.avatar_description(), _NAMES), read_avatar, (AvatarError, ConsentError)),
    "avatar, bytes": Target(edited(_content(valid_files.avatar)), read_raw, (AvatarError,)),
    "meta weights": Target(described(_META, _TABLE), read_meta, (PretrainedError, WeightsError)),
    "driving landmarks": Target(npz_files(), read_driving, (ValueError,)),
}
