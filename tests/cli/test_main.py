"""`th-jax`: dispatch, exit codes, options of before, the reference page, and a cache that belongs to the user alone."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from commands import th_jax

from th_jax.cli import checkout, compile_cache, settings
from th_jax.cli.main import COMMANDS, load
from th_jax.cli.options import with_hyphens
from th_jax.cli.reference import reference

ROOT = Path(__file__).parent.parent.parent


def test_alone_it_says_what_to_do_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert th_jax([]) == 0
    assert "th-jax demo" in capsys.readouterr().out


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert th_jax(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in COMMANDS)


def test_an_unknown_command_has_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert th_jax(["anmate"]) == 2
    assert capsys.readouterr().err == "th-jax: unknown command 'anmate'; did you mean animate?\n"
    assert th_jax(["prepare", "nothing"]) == 2


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "prepare"])
def test_every_command_has_help_and_refuses_unknown_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert th_jax([name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: th-jax {name}")
    assert th_jax([name, "--no-such-option"]) == (5 if name == "verify" else 2)
    options = [option for action in load(name).parser()._actions for option in action.option_strings]
    assert not [option for option in options if "_" in option]


def test_options_of_before_work_with_a_hint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert with_hyphens(["--signing_key=a_b", "x_y", "--out", "z_z"]) == (
        ["--signing-key=a_b", "x_y", "--out", "z_z"], ["--signing_key"],
    )  # fmt: skip
    assert th_jax(["summary", "--image_size", "100"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("th-jax summary: write --image_size with hyphens")
    assert said[1].startswith("th-jax summary: image_size must be one of")
    assert th_jax(["finetune", "--meta", "heads64", "--manifest=no.csv", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("th-jax finetune: --manifest is now --people-file")
    assert "no.csv" in said[1]


def test_bundled_weights_of_before_work_with_a_hint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for given in (["--meta", "heads_128"], ["--meta=heads_128"]):
        assert th_jax(["finetune", *given, "--people-file", "no.csv", "--out", str(tmp_path)]) == 1
        said = capsys.readouterr().err.splitlines()
        assert said[0] == "th-jax finetune: heads_128 is now heads; the old name ends with the next release"
        assert "no.csv" in said[1]


def test_a_wrong_option_names_the_right_one_and_help_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert th_jax(["finetune", "--shot", "photos"]) == 2
    assert capsys.readouterr().err == ("th-jax finetune: unknown option --shot; did you mean --shots?\n")
    assert th_jax(["finetune", "--face", "none"]) == 2
    assert capsys.readouterr().err == (
        "th-jax finetune: argument --face: must be a number from 1 to 999, but is none; "
        "th-jax finetune --help lists the options\n"
    )
    assert th_jax(["animate", "--help"]) == 0
    assert "frames that are generated together; default: 16\n" in capsys.readouterr().out


def test_a_file_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def denied(_: object) -> int:
        raise PermissionError(13, "Permission denied", "/no/where")

    monkeypatch.setattr(load("summary"), "run", denied)
    assert th_jax(["summary"]) == 1
    assert capsys.readouterr().err == (
        "th-jax summary: cannot use /no/where: Permission denied; check the path, its permissions and the free space\n"
    )


def test_a_task_that_fails_is_named_with_its_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also if a worker was killed; other errors of the program itself keep their traceback."""
    for error, said in (
        (
            PermissionError(13, "Permission denied", "/no/\x1b[31mwhere"),
            r"cannot use /no/\x1b[31mwhere: Permission denied; check",
        ),
        (RuntimeError("a worker was killed"), "a worker was killed\n"),
        (ValueError("first\nsecond"), "first\nsecond\n"),
    ):

        def fail(_: object, error: Exception = error) -> int:
            raise error

        monkeypatch.setattr(load("prepare"), "delegate", fail)
        assert th_jax(["prepare", "build", "--out", "x"]) == 1
        assert capsys.readouterr().err.startswith(f"th-jax prepare build: {said}")

    def recurse(_: object) -> int:
        raise RecursionError

    monkeypatch.setattr(load("prepare"), "delegate", recurse)
    with pytest.raises(RecursionError):
        th_jax(["prepare", "build"])


def test_an_interrupted_command_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(load("summary"), "run", interrupted)
    assert th_jax(["summary"]) == 75
    assert capsys.readouterr().err == "th-jax summary: interrupted; run the same command again\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["prepare", "inspect", "--help"], (0, "usage: th-jax prepare inspect")),
        (["train", "--config", "nowhere.py", "--workdir", "w"], (1, "nowhere.py")),
    ],
)
def test_what_needs_the_checkout_finds_it_from_anywhere(
    arguments: list[str], said: tuple[int, str], tmp_path: Path
) -> None:
    """As the console script runs it: neither the checkout nor the current folder is on the path."""
    program = "import sys; from th_jax.cli.main import main; sys.exit(main(sys.argv[1:]))"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-P", "-c", program, *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == said[0], done.stderr
    assert said[1] in done.stdout + done.stderr


def test_without_a_checkout_that_is_the_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checkout, "_BESIDE_PACKAGE", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["th-jax"])
    commands = (("prepare inspect", ["x"]), ("train", ["--config", "x.py", "--dry-run"]))
    for name, arguments in commands:
        assert th_jax([*name.split(), *arguments]) == 1
        assert (
            capsys.readouterr().err
            == f"th-jax {name}: this command needs a checkout of the project: run it in its folder\n"
        )


@pytest.mark.skipif(
    sys.version_info >= (3, 13), reason="argparse breaks lines and joins options differently since 3.13"
)
def test_the_reference_is_that_of_the_parsers() -> None:
    assert (ROOT / "docs" / "cli.md").read_text() == reference(), "run `make docs`"


def test_settings_change_by_name_and_type() -> None:
    before = {"epochs": 40, "losses": {"pixel": 0.0, "preset": "iccv"}}
    after = settings.changed(before, ["epochs=3", "losses.pixel=2", "losses.preset=other"])
    assert after == {"epochs": 3, "losses": {"pixel": 2.0, "preset": "other"}}
    assert before["epochs"] == 40
    for change, message in (
        ("epoch=3", "'epoch' is not a setting of the config; did you mean 'epochs'"),
        ("losses.pixel.x=1", "no setting losses.pixel.x"),
        ("epochs=three", "the setting epochs is int, such as 40, but 'three' was given"),
        ("epochs", "a setting is changed by KEY=VALUE"),
    ):
        with pytest.raises(ValueError, match=message):
            settings.changed(before, [change])


@pytest.fixture
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """No cache is set, the user's folder is a new one, and JAX's settings are put back."""
    names = [
        "jax_compilation_cache_dir", "jax_compilation_cache_max_size",
        "jax_persistent_cache_min_compile_time_secs", "jax_persistent_cache_min_entry_size_bytes",
    ]  # fmt: skip
    before = {name: getattr(jax.config, name) for name in names}
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.delenv("TH_JAX_COMPILE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    yield tmp_path / "th_jax" / "compiled"
    for name, value in before.items():
        jax.config.update(name, value)


def test_programs_are_kept_where_only_the_user_reads(own_cache: Path) -> None:
    assert compile_cache.use_compile_cache() == own_cache
    assert jax.config.jax_compilation_cache_dir == str(own_cache)
    assert stat.S_IMODE(own_cache.stat().st_mode) == 0o700
    own_cache.chmod(0o777)
    compile_cache.use_compile_cache()
    assert stat.S_IMODE(own_cache.stat().st_mode) == 0o700


def test_a_second_process_compiles_nothing(tmp_path: Path) -> None:
    """Warnings are errors: JAX only warns where it cannot read what it keeps."""
    program = """
import jax
from th_jax.cli import compile_cache
compile_cache._LEAST_SECONDS = 0.0
folder = compile_cache.use_compile_cache()
before = len(list(folder.glob("*-cache")))
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event) if event.endswith("cache_hits") else None)
jax.jit(lambda x: jax.numpy.sin(x) @ x)(jax.numpy.ones((8, 8))).block_until_ready()
print(before, len(hits))
"""
    environment = {name: value for name, value in os.environ.items() if "CACHE" not in name}
    environment |= {"XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error::UserWarning", "-c", program]
    first, second = (
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
        for _ in range(2)
    )
    assert first == ["0", "0"]
    assert int(second[0]) == int(second[1]) >= 1


def test_the_cache_can_be_elsewhere_or_nowhere(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TH_JAX_COMPILE_CACHE", "off")
    assert compile_cache.use_compile_cache() is None
    monkeypatch.setenv("TH_JAX_COMPILE_CACHE", str(tmp_path / "mine"))
    assert compile_cache.use_compile_cache() == tmp_path / "mine"
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "jax"))
    assert compile_cache.use_compile_cache() == tmp_path / "jax"
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "mine"), "JAX's own settings hold"


def test_a_cache_of_another_user_is_not_used(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_cache.mkdir(parents=True)
    monkeypatch.setattr(os, "getuid", lambda: os.stat(own_cache).st_uid + 1)
    assert compile_cache.use_compile_cache() is None


def test_without_a_folder_that_can_be_made_there_is_no_cache(own_cache: Path) -> None:
    own_cache.parent.write_text("a file")
    assert compile_cache.use_compile_cache() is None


def test_the_doctor_finds_this_machine_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert th_jax(["doctor", "--folder", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "a generated frame is finite and repeatable" in printed
    assert "th-jax prepare convert-weights" in printed
    assert "WRONG" not in printed
    assert th_jax(["doctor", "--folder", str(tmp_path / "nowhere")]) == 1
    assert "nowhere is not a folder" in capsys.readouterr().out
