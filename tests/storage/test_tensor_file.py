"""Tensor files: exact, atomic, format-checked, and every modification is detected."""

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file

from th_jax.storage import tensors as tensor_file
from th_jax.storage.tensors import (
    AlteredError,
    OtherFormatError,
    TensorFileError,
    checksum,
    read_described,
    read_tensors,
    tensors_digest,
    write_described,
    write_tensors,
)

FORMAT = "tests/1"
TENSORS = {
    "matrix": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    "scalar": np.array(2.5, np.float32),
    "half": np.arange(4, dtype=np.float16)[::2],
}


def test_tensors_and_metadata_round_trip_exactly(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.safetensors"
    digest = write_described(path, TENSORS, '{"name": "x"}', file_format=FORMAT)
    tensors, description, read_digest = read_described(path, file_format=FORMAT)
    assert description == {"name": "x"}
    assert read_digest == digest == tensors_digest(TENSORS)
    assert set(tensors) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert (tensors[name].dtype, tensors[name].shape) == (tensor.dtype, tensor.shape)
        np.testing.assert_array_equal(tensors[name], tensor)
    assert [file.name for file in path.parent.iterdir()] == ["x.safetensors"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_digests_match_released_files() -> None:
    assert tensors_digest(TENSORS) == "197fdec7126632d266463bfda94908630a03384c9ec764dd387a0f570cf9f416"
    assert checksum(FORMAT, "{}", "00") == "741960068a39899646271446abb50e09dd1c53cae1900e36cc45a457f7f2a390"


def test_digest_sees_names_types_shapes_and_values() -> None:
    a = np.arange(6, dtype=np.float32)
    digests = [
        tensors_digest(tensors)
        for tensors in ({"a": a}, {"b": a}, {"a": a.reshape(2, 3)}, {"a": a.view(np.int32)}, {"a": a + 1})
    ]
    assert len(set(digests)) == len(digests)


def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, TENSORS, {"format": FORMAT})
    before = path.read_bytes()

    def half(tensors: dict[str, np.ndarray], file: Path, *, metadata: dict[str, str]) -> None:
        file.write_bytes(before[:40])
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(tensor_file, "save_file", half)
    with pytest.raises(OSError, match=r"cannot write .*x\.safetensors: No space left on device"):
        write_tensors(path, {"other": np.zeros(3)}, {"format": FORMAT})
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]
    assert path.read_bytes() == before


def test_bytes_are_on_the_disk_before_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that stops after the rename must not leave a partial file under the final name."""
    happened: list[str] = []
    replace = Path.replace
    monkeypatch.setattr(os, "fsync", lambda number: happened.append(f"{os.fstat(number).st_size} bytes kept"))
    monkeypatch.setattr(Path, "replace", lambda self, to: happened.append("named") or replace(self, to))
    write_tensors(tmp_path / "x.safetensors", TENSORS, {"format": FORMAT})
    assert happened == [f"{(tmp_path / 'x.safetensors').stat().st_size} bytes kept", "named"]


def test_alterations_and_other_formats(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_described(path, TENSORS, '{"name": "x"}', file_format=FORMAT)
    _, metadata = read_tensors(path, file_format=FORMAT)
    with pytest.raises(OtherFormatError, match=r"x\.safetensors has the format 'tests/1', .* expects 'tests/2'"):
        read_tensors(path, file_format="tests/2")
    for tensors, words in (
        (TENSORS | {"scalar": np.array(2.0, np.float32)}, metadata),
        (TENSORS, metadata | {"description": '{"name": "y"}'}),
        (TENSORS, {"format": FORMAT}),
    ):
        write_tensors(path, tensors, words)
        with pytest.raises(AlteredError, match=r"x\.safetensors does not match its checksum"):
            read_described(path, file_format=FORMAT)
    save_file({"x": np.zeros(2)}, path)
    with pytest.raises(OtherFormatError, match="has the format None"):
        read_tensors(path, file_format=FORMAT)


def test_invalid_tensor_files(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, TENSORS, {"format": FORMAT})
    content = path.read_bytes()
    for length in (0, 4, 40, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(TensorFileError, match=r"x\.safetensors .* truncated"):
            read_tensors(path, file_format=FORMAT)
    with pytest.raises(TensorFileError, match=r"none\.safetensors is not a readable safetensors file"):
        read_tensors(tmp_path / "none.safetensors", file_format=FORMAT)


def test_equal_contents_are_equal_bytes(tmp_path: Path) -> None:
    """Safetensors alone writes seven entries in one of 5040 orders; escapes and padding must survive the sorting."""
    tensors = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.float32(1)}
    metadata = {key: f'{key} "quoted" \\ \n\t\x01 Ünï 😀 /' for key in "gfedcba"}
    written = set()
    for number in range(4):
        write_tensors(tmp_path / f"{number}.safetensors", tensors, metadata | {"format": "x"})
        written.add((tmp_path / f"{number}.safetensors").read_bytes())
    assert len(written) == 1
    read, found = read_tensors(tmp_path / "0.safetensors", file_format="x")
    assert found == metadata | {"format": "x"}
    assert all(np.array_equal(read[name], tensors[name]) for name in tensors)
    assert [path.name for path in tmp_path.glob(".*")] == []
