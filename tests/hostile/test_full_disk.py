"""A disk that fills up while something is written: an OSError, what was there before stays, and nothing half is left."""

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from file_limit import files_of_at_most

from data_prep.build.drop_report import Drop, write_drop_report
from data_prep.build.quality import Reason
from tests.hostile import valid_files
from th_jax.avatars.file import write_tensors
from th_jax.consent.record import read_consent, write_consent
from th_jax.data.tfrecord import write_index
from th_jax.data.video_list import load_video_list, save_video_list
from th_jax.provenance import write_gif, write_image, write_page, write_video
from th_jax.storage.run_folder import write_whole
from th_jax.training.run import save_batch
from th_jax.types import EpisodeBatch

FRAMES = [valid_files.noise(number, 32, 32, 3) for number in range(4)]
BATCH = EpisodeBatch(*(np.zeros(n, np.uint8) for n in range(5)))


def _write_consent(folder: Path, path: Path) -> None:
    write_consent(path, read_consent(valid_files.consent(folder)), overwrite=True)


def _save_list(folder: Path) -> None:
    save_video_list(load_video_list(folder), folder)


# What writes, the file that it writes, and what must be there before.
WRITERS: dict[str, tuple[str, Callable[[Path], object], Callable[[Path], object] | None]] = {
    "avatar": (
        "a.safetensors", lambda f: write_tensors(f / "a.safetensors", {"adain": np.zeros(2000)}, {"kind": "none"}), None,
    ),
    "config of a run": ("c.json", lambda f: write_whole(str(f / "c.json"), b"{}" * 999), None),
    "consent": ("b.json", lambda f: _write_consent(f, f / "b.json"), valid_files.consent),
    "image": ("a.png", lambda f: write_image(f / "a.png", FRAMES[0], provenance=valid_files.PROVENANCE), None),
    "video": ("a.mp4", lambda f: write_video(f / "a.mp4", FRAMES, fps=25, provenance=valid_files.PROVENANCE), None),
    "GIF": ("a.gif", lambda f: write_gif(f / "a.gif", FRAMES, fps=25, provenance=valid_files.PROVENANCE), None),
    "page": ("a.html", lambda f: write_page(f / "a.html", "<p>" * 999, provenance=valid_files.PROVENANCE), None),
    "list of videos": ("videos.json", _save_list, valid_files.data_set),
    "index": (
        "test-train.tfrecord-00000-of-00001.index",
        lambda f: write_index(f / "test-train.tfrecord-00000-of-00001"), valid_files.data_set,
    ),
    "drop report": (
        "drops.jsonl",
        lambda f: write_drop_report(f / "drops.jsonl", [Drop("clip", "ada", "ada/1.mp4", Reason.UNDECODABLE)] * 9), None,
    ),
    "batch": ("batch.npz", lambda f: save_batch(str(f / "batch.npz"), BATCH), None),
}  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_what_was_there(name: str, tmp_path: Path) -> None:
    file, write, prepare = WRITERS[name]
    if prepare is not None:
        prepare(tmp_path)
    write(tmp_path)
    size = (tmp_path / file).stat().st_size
    before = contents(tmp_path)
    for limit in (0, 10, size // 2):
        with files_of_at_most(limit), pytest.raises(OSError, match=r".+"):
            write(tmp_path)
        assert contents(tmp_path) == before, f"at {limit} of {size} bytes"
    (tmp_path / file).unlink()
    before.pop(file)
    with files_of_at_most(size // 2), pytest.raises(OSError, match=r".+"):
        write(tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["consent", "image", "video", "list of videos", "index", "drop report"])
def test_a_disk_that_notices_late(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems say so only when the bytes have to be there."""
    _, write, prepare = WRITERS[name]
    if prepare is not None:
        prepare(tmp_path)
    before = contents(tmp_path)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        write(tmp_path)
    assert contents(tmp_path) == before


@pytest.fixture
def shut_and_open(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Path]]:
    """A folder that may not be written and one that may, both within reach of an unprivileged user.

    Root may write anything, so a root process becomes another user meanwhile; pytest's own folders are closed to that one.
    """
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        base.chmod(0o755)
        (base / "shut").mkdir(mode=0o555)
        (base / "open").mkdir()
        (base / "open").chmod(0o777)
        # The other user may be kept out of the environment, too: libraries that writing loads late are loaded before.
        monkeypatch.setenv("XDG_CONFIG_HOME", name)
        write_image(base / "first.png", FRAMES[0], provenance=valid_files.PROVENANCE)
        monkeypatch.setenv("XDG_CONFIG_HOME", str(base / "open"))  # where the other user's signing key can be made
        if root:
            os.seteuid(65534)
        try:
            yield base / "shut", base / "open"
        finally:
            if root:
                os.seteuid(0)


def test_a_folder_that_may_not_be_written(shut_and_open: tuple[Path, Path]) -> None:
    """Reported before anything is encoded, or when the file cannot be moved in place; a folder beside it does not matter."""
    shut, beside = shut_and_open
    with pytest.raises(PermissionError):
        write_drop_report(shut / "drops.jsonl", [])
    with pytest.raises(PermissionError):
        write_image(shut / "a.png", FRAMES[0], provenance=valid_files.PROVENANCE)
    with pytest.raises(OSError, match="ermission denied"):
        write_tensors(shut / "a.safetensors", {"adain": np.zeros(3)}, {})
    assert list(shut.iterdir()) == []
    write_drop_report(beside / "drops.jsonl", [])
    write_image(beside / "a.png", FRAMES[0], provenance=valid_files.PROVENANCE)
    write_tensors(beside / "a.safetensors", {"adain": np.zeros(3)}, {})
    assert {path.name for path in beside.iterdir()} >= {"drops.jsonl", "a.png", "a.safetensors"}
