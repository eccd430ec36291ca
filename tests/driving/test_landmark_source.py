"""Landmark archives: well-formed ones open, and long member lists are rejected before they are read."""

import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from th_jax.driving.driver import is_landmark_file, read_landmarks, track_driver

LANDMARKS = np.random.default_rng(0).uniform(0.2, 0.8, (3, 68, 2)).astype(np.float32)


@pytest.mark.parametrize("comment", [b"", b"of a student", b"x" * 0xFFFF])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_well_formed_archives_open(tmp_path: Path, save, comment: bytes) -> None:
    path = tmp_path / "a.npz"
    save(path, landmarks=LANDMARKS, fps=30.0, **{f"more_{number}": np.zeros(2) for number in range(62)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = comment
    driving = read_landmarks(path, follow="segment")
    np.testing.assert_array_equal(driving.landmarks, LANDMARKS)
    assert driving.fps == 30
    np.savez(path, landmarks=LANDMARKS, **{f"more_{number}": np.zeros(2) for number in range(64)})
    with pytest.raises(ValueError, match="65 files, over the limit of 64"):
        read_landmarks(path)


def test_an_array_alone_is_the_landmarks(tmp_path: Path) -> None:
    """In an npy file, and in one named npz."""
    for name, save in (("a.npy", np.save), ("b.npz", np.save)):
        with (tmp_path / name).open("wb") as file:
            save(file, LANDMARKS)
        driving = read_landmarks(tmp_path / name, follow="segment")
        np.testing.assert_array_equal(driving.landmarks, LANDMARKS)
        assert driving.fps == 25
        assert is_landmark_file(tmp_path / name)
    np.save(tmp_path / "c.npy", np.array([None]))
    with pytest.raises(ValueError, match=r"c\.npy declares object \[1\]"):
        read_landmarks(tmp_path / "c.npy")
    np.save(tmp_path / "d.npy", np.zeros((2, 5, 2), np.float32))
    with pytest.raises(ValueError, match="68"):
        read_landmarks(tmp_path / "d.npy")


def test_arrays_of_other_names_are_listed(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", points=LANDMARKS, fps=30.0, **{"b\ne": LANDMARKS})
    said = r"contains points, fps, 'b\\ne': save it with numpy\.savez"
    with pytest.raises(ValueError, match=said):
        read_landmarks(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="contains none"):
        read_landmarks(tmp_path / "a.npz")


def many_members(count: int, *, zip64: bool, declared: int) -> bytes:
    """A member list without contents; zipfile trusts its length, not the declared number."""
    names = (b"%07d" % number for number in range(count))
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\x01\x02", 20, 0, 20, 0, 0, 0, 0, 0x21, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0)
    members = b"".join(entry + name for name in names)
    size = len(members)
    if not zip64:
        return members + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, declared, declared, size, 0, 0)
    end = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, declared, declared, size, 0)
    end += struct.pack("<4sLQL", b"PK\x06\x07", 0, size, 1)
    return members + end + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1, 0)


@pytest.mark.parametrize("declared", [1, 60_000])
@pytest.mark.parametrize("zip64", [False, True])
def test_a_long_list_of_members_is_not_taken_in(
    tmp_path: Path, zip64: bool, declared: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(many_members(65, zip64=zip64, declared=declared))
    with pytest.raises(ValueError, match=r"not a readable landmark file .* 65 files"):
        read_landmarks(path)

    def parsed(*_: object, **__: object) -> None:
        raise AssertionError("a member was looked at")

    path.write_bytes(many_members(60_000, zip64=zip64, declared=declared))
    monkeypatch.setattr(zipfile.ZipInfo, "__init__", parsed)
    with pytest.raises(ValueError, match="file list is larger than 131072 bytes"):
        read_landmarks(path)


def test_a_flash_is_no_cut(base_clip: Path) -> None:
    with track_driver(base_clip, seconds=1.4) as driving:
        assert len(driving.times) == 42
        assert (driving.segment == 0).all()
