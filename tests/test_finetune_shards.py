"""Shards of `th-jax finetune`: together they make what one process makes, and --merge says who is missing."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import command
from quick_programs import XLA_FLAGS
from tiny_people import write_photos, write_tiny_weights

from th_jax.avatars import enroll as enrolling
from th_jax.avatars import person_files
from th_jax.avatars.output import REPORT_FILE, read_report
from th_jax.avatars.shards import SCHEDULERS, Shard, only_writer
from th_jax.data.shots import ImageOutcomes
from th_jax.types import Shots

ROOT = Path(__file__).parent.parent
PEOPLE = {"ada": 3, "bob": 1, "cyd": 2, "dan": 2}
"""Number of photos by name; two shards of four photos are ada and bob, and cyd and dan."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Meta weights of the smallest networks, and photos of four rendered people."""
    folder = tmp_path_factory.mktemp("shards")
    write_tiny_weights(folder / "tiny.safetensors")
    for number, (name, count) in enumerate(PEOPLE.items()):
        write_photos(folder / "photos" / name, person=number, frames=range(0, 20 * count, 20))
    write_people(folder, *PEOPLE)
    return folder


@pytest.fixture(autouse=True)
def no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    for scheduler in SCHEDULERS:
        monkeypatch.delenv(scheduler.index_variable, raising=False)


def write_people(folder: Path, *names: str, file: str = "people.csv") -> Path:
    with (folder / file).open("w", newline="") as opened:
        csv.writer(opened).writerows([["name", "shots"], *([name, f"photos/{name}"] for name in names)])
    return folder / file


def noise(path: Path, *, size: int, **options: Any) -> tuple[Shots, ImageOutcomes]:
    """Replaces `shots_and_images`: noise that depends on the person, of whom no photo shows a face if called faceless."""
    if path.name == "faceless":
        raise ValueError(f"no face was found in {path}")
    rng = np.random.default_rng(list(path.name.encode()))
    frames = rng.integers(0, 256, (8, size, size, 3), dtype=np.uint8)
    points = rng.uniform(0.2, 0.8, (8, 68, 2)).astype(np.float32)
    return Shots(frames, points, np.ones(8, np.float32)), ImageOutcomes(8)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, quickly_compiled: None) -> None:
    """Shots without decoding, and no face models."""
    monkeypatch.setattr(person_files, "shots_and_outcomes", noise)
    monkeypatch.setattr(enrolling, "check_face_models", lambda: None)


def asked(folder: Path, out: Path, *more: str, people: str = "people.csv") -> list[str]:
    chosen = ["--meta", str(folder / "tiny.safetensors"), "--people-file", str(folder / people), "--out", str(out)]
    return [*chosen, "--consent", "none", *more]


def avatars(folder: Path) -> dict[str, tuple[str, bytes]]:
    """Header and tensors of each avatar, without the time of its creation and the checksum over it."""
    made = {}
    for path in folder.glob("*.safetensors"):
        content = path.read_bytes()
        end = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:end])
        assert len(header["__metadata__"].pop("sha256")) == 64
        header, times = re.subn(r'(\\"created\\": \\")[0-9T:+-]+Z?(\\")', r"\1\2", json.dumps(header))
        assert times == 1
        made[path.stem] = (header, content[end:])
    return made


def check_same(folder: Path, out: Path, one: Path) -> None:
    """Each person was made once, in the shard that the split says, and as without shards."""
    assert avatars(out) == avatars(one)
    assert avatars(out).keys() == PEOPLE.keys()
    lines = {n: (out / f"report.{n}-of-2.jsonl").read_text().splitlines() for n in (1, 2)}
    assert {n: [json.loads(line)["name"] for line in made] for n, made in lines.items()} == {
        1: ["ada", "bob"],
        2: ["cyd", "dan"],
    }
    assert command("finetune")(["--merge", str(out), "--people-file", str(folder / "people.csv")]) == 0
    merged, alone = read_report(out), read_report(one)
    assert [*merged] == [*PEOPLE]
    assert {name: made.digest for name, made in merged.items()} == {name: made.digest for name, made in alone.items()}


@pytest.mark.usefixtures("quick")
def test_shards_make_what_one_process_makes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, one = tmp_path / "out", tmp_path / "one"
    assert command("finetune")(asked(folder, one, "--feed-forward")) == 0
    assert capsys.readouterr().out.startswith("4 finished\n")
    merge = ["--merge", str(out), "--people-file", str(folder / "people.csv")]
    assert command("finetune")(asked(folder, out, "--feed-forward", "--shard", "1/2")) == 0
    said = capsys.readouterr().out
    assert said.startswith("shard 1 of 2 (from --shard): 2 of 4 people, about 4 of 8 images\n2 finished\n")
    assert command("finetune")(merge) == 1
    assert capsys.readouterr().out.splitlines() == [
        "2 finished, 2 missing",
        "  cyd: no shard has made it yet",
        "  dan: no shard has made it yet",
        "  shard 2 of 2 has no report: it has not started",
    ]
    monkeypatch.setenv("SKYPILOT_JOB_RANK", "1")
    monkeypatch.setenv("SKYPILOT_NUM_JOBS", "2")
    assert command("finetune")(asked(folder, out, "--feed-forward")) == 0
    said = capsys.readouterr().out
    assert said.startswith("shard 2 of 2 (from SKYPILOT_JOB_RANK and SKYPILOT_NUM_JOBS): 2 of 4 people, about 4 of 8")
    check_same(folder, out, one)
    assert capsys.readouterr().out == "4 finished\n"
    assert command("finetune")(asked(folder, out, "--feed-forward")) == 0
    assert "2 were already finished" in capsys.readouterr().out
    check_same(folder, out, one)
    (out / "bob.safetensors").write_bytes((out / "bob.safetensors").read_bytes()[:100])
    (out / "cyd.safetensors").unlink()
    (out / "report.2-of-2.jsonl").write_text("")  # killed between dan's avatar and its line
    (out / REPORT_FILE).unlink()
    capsys.readouterr()
    assert command("finetune")(merge) == 1
    assert capsys.readouterr().out.splitlines() == [
        "2 finished, 2 missing", "  bob: its avatar is damaged", "  cyd: no shard has made it yet",
    ]  # fmt: skip


@pytest.mark.usefixtures("quick")
def test_who_failed_is_named_until_a_shard_succeeds(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "photos" / "faceless").mkdir(exist_ok=True)
    people = write_people(folder, "faceless", "bob", file="some.csv")
    shard = asked(folder, tmp_path, "--feed-forward", "--shard", "1/1", people="some.csv")
    for environment in ({"JOB_COMPLETION_INDEX": "0"}, {"JOB_COMPLETION_INDEX": "1"}, {"JOB_COMPLETION_INDEX": "2"}):
        monkeypatch.setenv("JOB_COMPLETION_INDEX", environment["JOB_COMPLETION_INDEX"])
        code = command("finetune")([*shard[:-2], "--shard-count", "3"])
        assert code == (1 if environment["JOB_COMPLETION_INDEX"] == "1" else 0)
    said = capsys.readouterr().out
    assert "shard 3 of 3 (from JOB_COMPLETION_INDEX and --shard-count): 0 of 2 people, about 0 of 2 images" in said
    merge = ["--merge", str(tmp_path), "--people-file", str(people)]
    assert command("finetune")(merge) == 1
    assert (
        capsys.readouterr().out == f"1 finished, 1 failed\n  faceless: no face was found in {folder}/photos/faceless\n"
    )
    monkeypatch.setattr(person_files, "shots_and_outcomes", lambda path, **how: noise(Path("now"), **how))
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    assert command("finetune")([*shard[:-2], "--shard-count", "3"]) == 0
    capsys.readouterr()
    assert command("finetune")(merge) == 0
    assert capsys.readouterr().out == "2 finished\n"
    fewer = write_people(folder, "bob", file="fewer.csv")
    assert command("finetune")(["--merge", str(tmp_path), "--people-file", str(fewer)]) == 0
    assert capsys.readouterr().out == f"1 finished\n  1 people of the reports are not in {fewer}\n"
    assert [*read_report(tmp_path)] == ["bob", "faceless"], "no line is lost"


def test_a_shard_that_is_in_work_is_left_alone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with only_writer(tmp_path / Shard(1, 2).report_file):
        assert command("finetune")(asked(folder, tmp_path, "--shard", "1/2")) == 75
    assert "report.1-of-2.jsonl: wait for it or stop it, then run the same command again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--shard", "0/4"], {}, "argument --shard: a shard is 1/N to N/N, with N at most 100000, but got 0/4"),
        (["--shard", "1/2", "--shard-count", "2"], {}, "give either --shard I/N or --shard-count N"),
        (["--shard-count", "0"], {}, "argument --shard-count: must be 1 to 100000, but is 0"),
        (["--shard-count", "2"], {}, "--shard-count needs the index of a scheduler"),
        ([], {"JOB_COMPLETION_INDEX": "0"}, "add --shard-count N, or --shard 1/1 to make everyone in one process"),
        ([], {"SLURM_ARRAY_TASK_ID": "a"}, "SLURM_ARRAY_TASK_ID must be a whole number, but is 'a'"),
        (["--merge", "x"], {}, "--merge makes nothing: leave out --meta, --out"),
    ],
)
def test_unclear_shards_are_one_sentence_and_code_2(
    arguments: list[str],
    environment: dict[str, str],
    message: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert command("finetune")(asked(folder, tmp_path / "out", *arguments)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--merge", "x"], 2, "--merge needs --people-file"),
        (["--shots", "docs"], 2, "give --meta and --out"),
        (["--meta", "heads64", "--out", "x", "--shots", "docs", "--shard", "1/2"], 2, "give --people-file"),
        (
            ["--merge", "nowhere", "--people-file", "FILE"],
            1,
            "there is no folder nowhere: give the --out of the shards",
        ),
        (["--merge", "docs", "--people-file", "FILE"], 1, "there is no report in docs: give the --out of the shards"),
    ],
)
def test_options_that_do_not_fit(
    arguments: list[str], code: int, message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    people = str(folder / "people.csv")
    assert command("finetune")([people if given == "FILE" else given for given in arguments]) == code
    assert message in capsys.readouterr().err


def test_one_person_is_no_shard(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's own job array for single people: its variables do not count here."""
    from th_jax.cli import finetune

    monkeypatch.setenv("JOB_COMPLETION_INDEX", "7")
    one = ["--meta", "heads64", "--shots", str(folder / "photos" / "ada"), "--out", str(tmp_path)]
    seen: list[str] = []
    monkeypatch.setattr(finetune, "_finetune", lambda options, config, people, report: seen.append(report) or 0)
    assert finetune.finetune(finetune.parse([*one, "--consent", "none"]), None) == 0
    assert seen == [REPORT_FILE]


@pytest.mark.slow
def test_two_processes_share_a_folder(folder: Path, tmp_path: Path) -> None:
    """Two tasks of an array at a time, with real photos and training."""

    def start(out: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        cache = {"JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"), "XLA_FLAGS": XLA_FLAGS, "JAX_PLATFORMS": "cpu"}
        cache["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
        settings = ["--config=configs/finetune_heads.py", "--set=epochs=2", "--set=rounds.chunk_steps=2"]
        chosen = asked(folder, tmp_path / out, *settings, *arguments)
        environment = {**os.environ, **cache, **environment}
        piped: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen([sys.executable, "finetune.py", *chosen], cwd=ROOT, env=environment, **piped)

    running = [start("out", "--shard-count=2", JOB_COMPLETION_INDEX=str(index)) for index in range(2)]
    for process in [*running, start("one")]:
        said, error = process.communicate(timeout=900)
        assert (process.returncode, "Traceback" in error) == (0, False), said + error
    check_same(folder, tmp_path / "out", tmp_path / "one")
