"""train.py in this process: mistakes in a command or a config are one sentence, before anything is loaded."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest
from absl import flags

from configs import defaults

ROOT = Path(__file__).parent.parent
CONFIG = "tests/tiny_experiment.py"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--workdir is missing"),
        (["--workdir", "w", "more"], "unexpected: more"),
        (
            ["--workdir", "w", "--config.netwoks.pool=max"],
            'the config has no setting netwoks.pool (did you mean "networks"?); configs/defaults.py lists them',
        ),
        (["--workdir", "w", "--config.nope=1"], "the config has no setting nope; configs/defaults.py lists them"),
        (["--workdir", "w", "--config.seed.x=1"], "the config has no setting seed.x; configs/defaults.py lists them"),
        (
            ["--config", "configs/typo.py", "--dry_run"],
            "cannot be loaded: No such file or directory: 'configs/typo.py'",
        ),
        (
            ["--config", "configs/typo.py", "--workdir", "w", "--config.seed=1"],
            "train.py: the config cannot be loaded: No such file or directory: 'configs/typo.py'",
        ),
        (["--config", "configs", "--workdir", "w"], "the config cannot be loaded: Is a directory: 'configs'"),
        (["--config", "configs/finetune.py", "--workdir", "w"], "this is no config of meta-learning: it has no "),
        (["--workdir", "w", "--config.log_every=0"], "train.py: log_every must be at least 1, but is 0"),
        (["--workdir", "w", "--config.steps=-5"], "train.py: steps must be at least 0, but is -5"),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: list[str],
    message: str,
    script: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """Found before anything is loaded: in this process, where a traceback would be another exception."""
    if "--config" not in arguments:
        arguments = ["--config", CONFIG, *arguments]
    monkeypatch.setattr(sys, "argv", ["train.py", *(str(tmp_path / "run") if a == "w" else a for a in arguments)])
    with pytest.raises(SystemExit) as stopped:
        script.main(script.parse(sys.argv))
    printed = capsys.readouterr()
    assert stopped.value.code not in (None, 0)
    assert message in f"{stopped.value.code}{printed.out}{printed.err}"
    assert not (tmp_path / "run").exists()


@pytest.fixture
def script() -> Iterator[Any]:
    """train.py as a module, its flags unparsed; they go again afterwards: finetune.py has some of the same name."""
    before = {name: flags.FLAGS[name] for name in flags.FLAGS}
    precision = jax.config.jax_default_matmul_precision
    for name in before:
        if name.split(".")[0] == "config":
            delattr(flags.FLAGS, name)
    kept = set(flags.FLAGS)
    try:
        yield importlib.import_module("train")
    finally:
        jax.config.update("jax_default_matmul_precision", precision)
        del sys.modules["train"]
        for name in set(flags.FLAGS) - kept:
            delattr(flags.FLAGS, name)
        for name in before.keys() - kept:
            flags.FLAGS[name] = before[name]


@pytest.mark.parametrize("error", [jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"), MemoryError()])
def test_too_little_memory_is_one_sentence(error: Exception, script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(_: Any) -> None:
        raise error

    for name, value in (("CONFIG", defaults.get_config()), ("WORKDIR", "w"), ("DRY_RUN", False), ("REPLAY", None)):
        monkeypatch.setattr(script, name, SimpleNamespace(value=value))
    monkeypatch.setattr(script, "DISTRIBUTED", SimpleNamespace(value=False))
    monkeypatch.setattr(script, "train", exhausted)
    with pytest.raises(SystemExit, match=r"out of memory: lower --config\.episodes\.batch_size, or see step\.slices"):
        script.main(["train.py"])
    assert {"slices", "remat_perceptual"} <= set(defaults.get_config().step)
    monkeypatch.setattr(script, "train", lambda _: (_ for _ in ()).throw(jax.errors.JaxRuntimeError("INTERNAL: no")))
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        script.main(["train.py"])


def test_configs_that_fit_no_run(script: Any) -> None:
    """Found before anything is loaded, wherever they come from."""
    for path in (ROOT / "configs").glob("*.py"):
        if not path.stem.startswith("finetune"):
            script.check_config(importlib.import_module(f"configs.{path.stem}").get_config().to_dict())

    def changed(section: str, **values: Any) -> dict[str, Any]:
        config = defaults.get_config().to_dict()
        (config[section] if section else config).update(values)
        return config

    script.check_config(changed("", health_every=0, steps=3, epochs=0))
    for config, message in (
        (changed("", evaluate_every=0), "evaluate_every must be at least 1, but is 0"),
        (changed("", checkpoint_every=-2), "checkpoint_every must be at least 1, but is -2"),
        (changed("", stop_after_skips=0), "stop_after_skips must be at least 1, but is 0"),
        (changed("", log_every="5"), "log_every must be at least 1, but is '5'"),
        (changed("", health_every=-1), "health_every must be at least 0, but is -1"),
        (changed("", epochs=-1.0), "a run needs steps or epochs above 0, but steps is 0 and epochs is -1.0"),
        (changed("episodes", batch_size=0), r"episodes\.batch_size must be at least 1, but is 0"),
        (changed("episodes", flipp=True), "'flipp' is not a setting of the section episodes; did you mean 'flip'"),
        (changed("", log_evry=5), "'log_evry' is not a setting of a config of meta-learning; did you mean 'log_every'"),
        (changed("", step=3), "step is a section of settings in configs/defaults.py, but is 3"),
        (
            {"seed": 0},
            "it has no adversary, batch_rule, checkpoint_every and [0-9]+ more; begin with configs/defaults.py",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            script.check_config(config)
