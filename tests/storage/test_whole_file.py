"""Files appear whole; locations where nothing can be created are rejected before any work, with the reason."""

import os
from pathlib import Path

import pytest

from th_jax.storage.files import check_place, whole_file, whole_path


def test_valid_output_locations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").write_text("")
    for path in ("new", "there", str(tmp_path / "new")):
        check_place(path)
        with whole_file(path) as file:
            file.write(b"x")
    for path in (".", "no/such/folder", str(tmp_path), "/"):
        check_place(path, folder=True)
    assert not (tmp_path / "no").exists(), "it only looks"


def test_blocked_output_locations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "folder").mkdir()
    for path in ("/dev/null/x", "a.txt/x", "a.txt/x/y", "nowhere/x"):
        for folder in (False, True):
            with pytest.raises(NotADirectoryError, match=r"cannot create .* is not a folder"):
                check_place(path, folder=folder)
    for path in ("a.txt", "nowhere"):
        with pytest.raises(NotADirectoryError, match=f"cannot create {path}: {path} is not a folder"):
            check_place(path, folder=True)
    with pytest.raises(FileNotFoundError, match="no/such does not exist"):
        check_place("no/such/file")
    with pytest.raises(IsADirectoryError, match="folder is a folder"):
        check_place("folder")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileExistsError, match="pipe is a device or a pipe"):
        check_place("pipe")


def test_a_read_only_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A superuser may write everywhere, so the system call is patched."""
    closed = tmp_path / "closed"
    closed.mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != closed)
    for path, folder in ((closed / "a", False), (closed / "a", True), (closed / "a" / "b", True)):
        with pytest.raises(PermissionError, match="closed is not writable"):
            check_place(path, folder=folder)
    check_place(tmp_path / "a")


def test_the_longest_name_has_a_temporary_one(tmp_path: Path) -> None:
    for name in ("a" * 255, "ä" * 127, "b"):
        with whole_path(tmp_path / name) as partial:
            assert partial.name.startswith(".")
            assert partial.suffix == ".partial"
            partial.write_bytes(b"x")
        assert [path.name for path in tmp_path.iterdir()] == [name]
        (tmp_path / name).unlink()


def test_a_file_that_must_not_be_replaced(tmp_path: Path) -> None:
    """As another process may have made it since this one looked."""
    path = tmp_path / "key"
    with whole_file(path, replace=False) as file:
        file.write(b"first")
    with pytest.raises(FileExistsError), whole_file(path, replace=False) as file:
        file.write(b"second")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]
