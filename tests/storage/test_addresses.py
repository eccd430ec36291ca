"""Paths with a scheme are addresses; all others are local paths."""

import re
from pathlib import Path

import fsspec
import pytest

from th_jax.optional import install_command
from th_jax.storage.files import filesystem_of, is_remote


def test_addresses_have_a_scheme() -> None:
    assert [is_remote(path) for path in ("gs://bucket/x", "memory://x", "/a/b", "a:b", Path("a/b"))] == [
        True, True, False, False, False
    ]  # fmt: skip
    assert filesystem_of("memory://runs/a")[1] == "/runs/a"


@pytest.mark.parametrize(
    ("address", "hint"), [("gs://b/x", re.escape(f" ({install_command('gcs')}): ")), ("s3://b/x", ": ")]
)
def test_a_missing_package_is_named(address: str, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(address: str) -> None:
        raise ImportError("install it")

    monkeypatch.setattr(fsspec.core, "url_to_fs", refuse)
    with pytest.raises(ValueError, match=f"{address} requires a package .*{hint}install it"):
        filesystem_of(address)
