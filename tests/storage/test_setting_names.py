"""Renamed settings: old names work in files, options, stored runs and avatars, and a hint names the new one."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from configs import defaults
from th_jax.avatars.output import request_digest
from th_jax.avatars.settings import check_config, default_config
from th_jax.cli import settings as cli_settings
from th_jax.storage.run_folder import read_config, write_config
from th_jax.storage.setting_names import RENAMED, current_names, previous_names
from th_jax.training.presets import check_meta_settings, finetune_preset, read_settings
from th_jax.weights import MetaModel

OF_TRAINING = defaults.get_config().to_dict()
OF_FINETUNING = default_config("paper")


def value_of(settings: Any, name: str) -> Any:
    for part in name.split("."):
        settings = settings[part]
    return settings


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_every_old_name_works_as_a_change_with_a_hint(old: str, new: str, capsys: pytest.CaptureFixture[str]) -> None:
    known = OF_TRAINING if new.split(".")[0] in OF_TRAINING else OF_FINETUNING
    assert value_of(cli_settings.changed(known, [f"{old}=7"]), new) == 7
    assert f"the setting {old} is called {new} now" in capsys.readouterr().err
    assert value_of(cli_settings.changed(known, [f"{new}=7"]), new) == 7
    assert capsys.readouterr().err == ""


def test_old_names_in_a_config_of_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a config that changes a copy of configs/defaults.py has them, beside the new ones; and as an old config.json."""
    (path := tmp_path / "mine.py").write_text(
        "from configs import defaults\n"
        "def get_config():\n"
        "    config = defaults.get_config()\n"
        "    config.stop_after_skips = 3\n"
        "    config.step.slices = 4\n"
        "    return config\n"
    )
    (stored := tmp_path / "config.json").write_text(json.dumps(previous_names(OF_TRAINING)))
    for file, skips, slices in ((path, 3, 4), (stored, 20, 1)):
        settings = cli_settings.changed(cli_settings.read_settings_file(file), [])
        check_meta_settings(settings, known=OF_TRAINING)
        assert settings["max_consecutive_nonfinite_steps"] == skips
        assert settings["step"]["grad_accumulation_steps"] == slices
        said = capsys.readouterr().err
        assert "stop_after_skips is called max_consecutive_nonfinite_steps now" in said
        assert "step.slices is called step.grad_accumulation_steps now" in said


def test_old_names_in_settings_of_fine_tuning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path := tmp_path / "mine.json").write_text(json.dumps(previous_names(OF_FINETUNING)))
    settings = cli_settings.changed(cli_settings.read_settings_file(path), [])
    check_config(settings)
    assert settings == OF_FINETUNING
    assert "rounds.width is called rounds.vmap_width now" in capsys.readouterr().err
    path.write_text('{"rounds": {"at_once": 4, "width": 2}}')
    with pytest.warns(FutureWarning, match=r"rounds\.width is called rounds\.vmap_width now"):
        assert read_settings(str(path))["rounds"]["vmap_width"] == 2
    hints: list[str] = []
    read_settings(str(path), on_message=hints.append)
    assert len(hints) == 1


def test_a_run_with_old_names_goes_on_without_a_difference(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(previous_names(OF_TRAINING)))
    assert "stop_after_skips" in (tmp_path / "config.json").read_text()
    assert "max_consecutive_nonfinite_steps" in read_config(tmp_path)
    assert write_config(tmp_path, json.loads(json.dumps(OF_TRAINING))) == []


def test_avatars_of_the_last_release_are_recognized() -> None:
    """Their digest was that of the settings with their old names, as sha256sum computes it."""
    settings = finetune_preset("paper")
    assert settings["rounds"].pop("vmap_width") == 1
    before = settings | {"rounds": settings["rounds"] | {"width": 1}}
    text = json.dumps({"meta": "m", "settings": before}, sort_keys=True)
    meta = object.__new__(MetaModel)
    object.__setattr__(meta, "digest", "m")
    assert request_digest(meta, finetune_preset("paper")) == hashlib.sha256(text.encode()).hexdigest()


def test_names_come_back_and_nothing_else_changes() -> None:
    assert current_names(previous_names(OF_TRAINING)) == OF_TRAINING
    assert current_names({"step": 3, "width": 1}) == {"step": 3, "width": 1}
