"""`th-jax compress` on avatars from elsewhere: compact files, or one-line errors."""

from pathlib import Path
from typing import Any

import pytest
from commands import compress as main

from tests.hostile import valid_files
from th_jax.avatars.compact import save_compact
from th_jax.avatars.file import AvatarError, feed_forward_with, load_avatar, named_leaves, write_tensors


def full_avatar(folder: Path, **changes: Any) -> Path:
    """A random full avatar with a changed description; `...` removes a field."""
    meta = valid_files.meta()
    read = load_avatar(valid_files.avatar(folder), meta=meta)
    tensors = named_leaves(feed_forward_with(meta, read.avatar.adain)) | {"landmarks": read.landmarks}
    said = valid_files.avatar_description() | {"kind": "full"} | changes
    path = folder / "full.safetensors"
    write_tensors(path, tensors, {name: value for name, value in said.items() if value is not ...})
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(
            ({"meta": meta}, "does not name the meta weights")
            for meta in ("abc", [], {"name": "tiny"}, {"name": 1, "digest": 2}, {"name": "tiny", "digest": "a"}, ...)
        ),
        *(({"provenance": provenance}, "no valid provenance record") for provenance in (..., None, [], "abc", {})),
    ],
)
def test_an_avatar_without_valid_provenance(
    tmp_path: Path, changes: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, meta = full_avatar(tmp_path, **changes), valid_files.meta_weights(tmp_path)
    assert main([str(path), "--meta", str(meta), "--out", str(tmp_path / "small.safetensors")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "small.safetensors").exists()


def test_meta_weights_that_are_not_named_may_be_any_that_fit(tmp_path: Path) -> None:
    meta = valid_files.meta()
    for said in (None, {"name": "tiny", "digest": meta.digest}):
        loaded = load_avatar(full_avatar(tmp_path, meta=said))
        assert save_compact(tmp_path / "small.safetensors", loaded, meta=meta).frames == 1
        assert load_avatar(tmp_path / "small.safetensors", meta=meta).made_of == loaded.made_of
    other = load_avatar(full_avatar(tmp_path, meta={"name": "tiny", "digest": "0" * 64}))
    with pytest.raises(AvatarError, match=r"meta weights 'tiny' \(0{64}\), but got 'tiny' \("):
        save_compact(tmp_path / "small.safetensors", other, meta=meta)


def test_a_small_avatar_is_not_made_compact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A feed-forward one would become 100 times as large, and a compact one has already lost quality."""
    weights = str(valid_files.meta_weights(tmp_path))
    fast, small, again = valid_files.avatar(tmp_path), tmp_path / "small.safetensors", tmp_path / "again.safetensors"
    full = full_avatar(tmp_path, meta={"name": "tiny", "digest": valid_files.meta().digest})
    assert main([str(full), "--meta", weights, "--out", str(small)]) == 0
    for path, kind in ((fast, "feed_forward"), (small, "compact")):
        assert main([str(path), "--meta", weights, "--out", str(again)]) == 1
        assert f"expected a full avatar, got a {kind} one" in capsys.readouterr().err
        assert not again.exists()


def test_an_output_that_cannot_be_created(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Found before weights are needed."""
    for out, message in (
        ("/dev/null/x.safetensors", "cannot create /dev/null/x.safetensors: /dev/null is not a folder"),
        (str(tmp_path / "no" / "x.safetensors"), "no does not exist"),
    ):
        assert main(["a.safetensors", "--meta", "nowhere", "--out", out]) == 1
        assert message in capsys.readouterr().err
