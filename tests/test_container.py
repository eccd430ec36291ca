"""The Dockerfile: documented commands alone, no root, nothing written outside of its volume, and a linter's rules."""

import configparser
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from th_jax.cli.studio import parser

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "docs" / "serving.md").read_text()


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile with their arguments; a backslash continues a line."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.split(None, 1) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(name, " ".join(rest.split())) for name, rest in lines]


def all_of(name: str) -> list[str]:
    return [rest for given, rest in instructions() if given == name]


def documented() -> set[str]:
    """The commands in blocks of shell code of the guide, without quotes and comments."""
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", GUIDE, re.S)).replace("\\\n", " ")
    return {
        " ".join(line.partition("  #")[0].replace('"', "").replace("'", "").split()) for line in blocks.splitlines()
    }


def test_it_runs_documented_commands_alone() -> None:
    commands = [command for run in all_of("RUN") for command in run.split(" && ")]
    default = dict(argument.split("=") for argument in all_of("ARG"))
    assert len(commands) == 2
    for command in commands:
        for name, value in default.items():
            command = command.replace(f"${{{name}}}", value)
        assert command.replace('"', "").replace(" --no-cache-dir", "") in documented(), command


def test_its_variants_are_extras() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    variants = re.findall(r"EXTRAS=([\w,]+)", f"{GUIDE} {(ROOT / 'Dockerfile').read_text()}")
    assert {"studio", "studio,cuda"} <= set(variants)
    assert {extra for variant in variants for extra in variant.split(",")} <= set(settings["options.extras_require"])


def test_nothing_runs_as_root() -> None:
    (user,) = all_of("USER")
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user), "by number, so that a supervisor sees that it is not root"
    names = [name for name, _ in instructions()]
    assert names.index("USER") > max(number for number, name in enumerate(names) if name in ("RUN", "COPY"))
    owner, group = user.split(":")
    assert f"--owner={owner} --group={group}" in all_of("RUN")[-1]


def test_all_that_is_written_lies_in_the_volume() -> None:
    (volume,) = all_of("VOLUME")
    places = dict(pair.split("=") for line in all_of("ENV") for pair in line.split())
    assert {"HOME", "TMPDIR", "XDG_CACHE_HOME"} <= set(places)
    assert (places.pop("PYTHONDONTWRITEBYTECODE"), places.pop("USER")) == ("1", "studio")
    for place in (*places.values(), all_of("WORKDIR")[-1]):
        assert Path(place).is_relative_to(volume), place
    # Temporary files need a folder that is there from the beginning.
    assert places["TMPDIR"] == volume
    options = parser().parse_args(json.loads(all_of("CMD")[0])[1:])
    assert options.folder.is_relative_to(volume)
    assert options.users.is_relative_to(volume)
    assert str(options.port) in all_of("EXPOSE")


def test_signals_reach_the_program_and_the_image_holds_no_secrets() -> None:
    for name in ("ENTRYPOINT", "CMD"):
        (given,) = all_of(name)
        assert isinstance(json.loads(given), list), "a shell in between would keep the signals"
    assert json.loads(all_of("ENTRYPOINT")[0]) == ["th-jax"]
    given = " ".join(rest for name, rest in instructions() if name in ("ARG", "ENV", "CMD", "LABEL"))
    assert not re.search(r"password|token|secret|_key", given, re.I)
    assert not all_of("ADD"), "which would also fetch"
    assert all(re.fullmatch(r"[\w./-]+:\d[\w.-]+", base) for base in all_of("FROM")), "of a version"


def test_what_belongs_to_users_is_left_out_of_the_image() -> None:
    left_out = (ROOT / ".dockerignore").read_text().split()
    assert {".git", ".venv*", "runs", "out", "data", "studio"} <= set(left_out)


def test_a_linter_has_nothing_to_say() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip('needs the extra "container"')
    done = subprocess.run([hadolint, str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
