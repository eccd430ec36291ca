"""Bytes are read from local files and from any fsspec address in the same way."""

import re

import fsspec
import pytest

from th_jax.optional import install_command
from th_jax.storage import files as reading
from th_jax.storage.files import file_size, join, read_file, read_range

CONTENT = bytes(range(256))


@pytest.fixture(params=["local", "memory"])
def path(request, tmp_path):
    if request.param == "local":
        (tmp_path / "file").write_bytes(CONTENT)
        yield str(tmp_path / "file")
    else:
        memory = fsspec.filesystem("memory")
        memory.pipe("/reading/file", CONTENT)
        yield "memory://reading/file"
        memory.rm("/reading", recursive=True)


def test_ranges(path):
    assert read_range(path, 0, 256) == CONTENT
    assert read_range(path, 250, 3) == CONTENT[250:253]
    assert read_range(path, 250, 100) == CONTENT[250:]
    assert read_range(path, 300, 10) == b""
    assert read_range(path, 0, 0) == b""
    assert file_size(path) == 256
    assert read_file(path) == CONTENT


def test_partial_reads_are_joined(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(CONTENT)
    monkeypatch.setattr(reading, "_READ_AT_ONCE", 7)
    assert read_range(str(tmp_path / "file"), 3, 100) == CONTENT[3:103]
    assert read_range(str(tmp_path / "file"), 200, 100) == CONTENT[200:]


def test_a_missing_file_is_missing_everywhere(path):
    with pytest.raises(FileNotFoundError):
        read_range(path + "x", 0, 1)
    with pytest.raises(FileNotFoundError):
        file_size(path + "x")


def test_joining_keeps_the_scheme(tmp_path):
    assert join("gs://bucket/set/", "x") == "gs://bucket/set/x"
    assert join(tmp_path, "x") == str(tmp_path / "x")


def test_a_missing_package_is_named(monkeypatch):
    def refuse(address):
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr(fsspec.core, "url_to_fs", refuse)
    with pytest.raises(
        ValueError, match=r"gs://bucket/x requires a package .* " + re.escape(f"({install_command('gcs')})")
    ):
        read_range("gs://bucket/x", 0, 1)
