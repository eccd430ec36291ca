"""config.json and metrics.jsonl: whole or not there, and what differs is named."""

from pathlib import Path

import pytest

from th_jax.storage.run_folder import read_config, read_metrics, write_config

CONFIG = {"networks": {"image_size": 64, "base_width": 32}, "seed": 0, "data": {"path": "x"}}


@pytest.mark.parametrize("remote", [False, True])
def test_config_is_written_once_and_compared(tmp_path: Path, remote: bool) -> None:
    workdir = f"memory:/{tmp_path}" if remote else tmp_path / "run"
    assert write_config(workdir, CONFIG) == []
    assert read_config(workdir) == CONFIG
    assert write_config(workdir, CONFIG) == []
    other = {"networks": {"image_size": 64, "base_width": 64}, "seed": 0, "new": None}
    assert write_config(workdir, other) == ["data", "networks.base_width", "new"]
    assert read_config(workdir) == CONFIG, "the caller decides"
    assert write_config(workdir, other, overwrite=True) == ["data", "networks.base_width", "new"]
    assert read_config(workdir) == other
    if not remote:
        assert [path.name for path in workdir.iterdir()] == ["config.json"]


def test_damaged_configs(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"is not a run's folder: it has no config\.json"):
        read_config(tmp_path)
    with pytest.raises(ValueError, match="a config must be JSON values"):
        write_config(tmp_path, {"path": tmp_path})
    for content in ('{"a": 1', "[]", ""):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(ValueError, match=r"config\.json is damaged"):
            write_config(tmp_path, CONFIG)
    assert write_config(tmp_path, CONFIG, overwrite=True) == []
    assert read_config(tmp_path) == CONFIG


def test_metrics_may_end_in_a_torn_line_only(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with pytest.raises(FileNotFoundError, match="there are no metrics at"):
        read_metrics(path)
    whole = [b'{"step": 1, "time": 2.5, "x": "nan"}', b'{"step": 2, "time": 3.5, "x": 1}']
    for torn in (b"", b"{", b"[1]", b"7", b'{"step": 3, "tim', b'{"x": 3}', b"\xff"):
        path.write_bytes(b"\n".join([*whole, torn]))
        assert [line["step"] for line in read_metrics(path)] == [1, 2]
    path.write_bytes(b"\n".join([whole[0], whole[1][:9], whole[1]]))
    with pytest.raises(ValueError, match=r"line 2 of .*metrics\.jsonl is damaged"):
        read_metrics(path)
