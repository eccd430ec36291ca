"""th-jax train in this process: mistakes in a command or a config are one sentence, before anything is loaded."""

import importlib
from pathlib import Path
from typing import Any

import jax
import pytest
from commands import command

import train as script
from configs import defaults
from th_jax.training.presets import check_meta_settings

ROOT = Path(__file__).parent.parent
CONFIG = "tests/tiny_experiment.py"
KNOWN = defaults.get_config().to_dict()

train = command("train")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "--workdir is missing"),
        (["--workdir", "w", "more"], 2, "unrecognized arguments: more"),
        (["--workdir", "w", "--config.netwoks.pool=max"], 1, "no setting netwoks.pool: netwoks is not a section"),
        (
            ["--workdir", "w", "--set", "networks.pol=max"],
            1,
            "'pol' is not a setting of the config.networks; did you mean",
        ),
        (["--workdir", "w", "--config.nope=1"], 1, "'nope' is not a setting of the config"),
        (["--workdir", "w", "--config.seed.x=1"], 1, "no setting seed.x: seed is not a section"),
        (["--config", "configs/typo.py", "--dry-run"], 1, "configs/typo.py does not exist"),
        (
            ["--config", "configs/typo.py", "--workdir", "w", "--config.seed=1"],
            1,
            "configs/typo.py does not exist",
        ),
        (["--config", "configs", "--workdir", "w"], 1, "the config file configs does not exist"),
        (["--config", "configs/finetune.py", "--workdir", "w"], 1, "this is not a config of meta-learning: it lacks "),
        (["--workdir", "w", "--config.log_every=0"], 1, "log_every must be at least 1, but is 0"),
        (["--workdir", "w", "--config.steps=-5"], 1, "steps must be at least 0, but is -5"),
        (["--workdir", "w", "--profile", "--profile-steps", "0"], 2, "must be 1 to 1000, but is 0"),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    if "--config" not in arguments:
        arguments = ["--config", CONFIG, *arguments]
    assert train([str(tmp_path / "run") if argument == "w" else argument for argument in arguments]) == code
    printed = capsys.readouterr()
    assert "th-jax train: " in printed.err
    assert message in printed.err
    assert not (tmp_path / "run").exists()


def test_without_a_config_that_is_the_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert train(["--workdir", "w"]) == 2
    assert "--config" in capsys.readouterr().err


@pytest.fixture
def precision() -> Any:
    """The commands set JAX's precision of products; it is put back."""
    before = jax.config.jax_default_matmul_precision
    yield
    jax.config.update("jax_default_matmul_precision", before)


@pytest.mark.parametrize("error", [jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"), MemoryError()])
def test_out_of_memory_is_one_sentence(
    error: Exception, precision: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(raised: Exception) -> int:
        def exhausted(*_: Any, **__: Any) -> None:
            raise raised

        monkeypatch.setattr(script, "train", exhausted)
        return train(["--config", CONFIG, "--workdir", "w"])

    assert fails(error) == 1
    assert (
        "out of memory; lower --set episodes.batch_size, or see step.grad_accumulation_steps" in capsys.readouterr().err
    )
    assert {"grad_accumulation_steps", "remat_perceptual"} <= set(KNOWN["step"])
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        fails(jax.errors.JaxRuntimeError("INTERNAL: no"))


def test_the_settings_reach_the_algorithm(precision: None, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Any] = []
    monkeypatch.setattr(script, "train", lambda config, workdir, **more: not ran.append((config, workdir, more)))
    command_line = ["--config", CONFIG, "--workdir", "w", "--config.seed=3", "--set", "start_growing=true"]
    assert train([*command_line, "--set", "perceptual=()"]) == 0
    assert train([*command_line, "--profile"]) == 0
    (config, workdir, more), (_, _, profiled) = ran
    assert (config.seed, config.start_growing, config.perceptual, workdir) == (3, True, (), "w")
    assert (more, profiled) == ({"profile_steps": 0}, {"profile_steps": 5})


def test_configs_that_fit_no_run() -> None:
    """Found before anything is loaded, wherever they come from."""
    for path in (ROOT / "configs").glob("*.py"):
        if not path.stem.startswith("finetune"):
            config = importlib.import_module(f"configs.{path.stem}").get_config().to_dict()
            check_meta_settings(config, known=KNOWN)

    def changed(section: str, **values: Any) -> dict[str, Any]:
        config = defaults.get_config().to_dict()
        (config[section] if section else config).update(values)
        return config

    check_meta_settings(changed("", health_every=0, steps=3, epochs=0), known=KNOWN)
    for config, message in (
        (changed("", evaluate_every=0), "evaluate_every must be at least 1, but is 0"),
        (changed("", checkpoint_every=-2), "checkpoint_every must be at least 1, but is -2"),
        (
            changed("", max_consecutive_nonfinite_steps=0),
            "max_consecutive_nonfinite_steps must be at least 1, but is 0",
        ),
        (changed("", log_every="5"), "log_every must be at least 1, but is '5'"),
        (changed("", health_every=-1), "health_every must be at least 0, but is -1"),
        (changed("", epochs=-1.0), "a run needs steps or epochs above 0, but steps is 0 and epochs is -1.0"),
        (changed("episodes", batch_size=0), r"episodes\.batch_size must be at least 1, but is 0"),
        (changed("episodes", flipp=True), "'flipp' is not a setting of the section episodes; did you mean 'flip'"),
        (changed("", log_evry=5), "'log_evry' is not a setting of a config of meta-learning; did you mean 'log_every'"),
        (changed("", step=3), "step is a section of settings in configs/defaults.py, but is 3"),
        (
            {"seed": 0},
            "it lacks adversary, batch_rule, checkpoint_every and [0-9]+ more; begin with configs/defaults.py",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            check_meta_settings(config, known=KNOWN)
