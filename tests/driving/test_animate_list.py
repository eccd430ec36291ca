"""`th-jax animate --list`: each film once, by shards, with failures that stay their own."""

import csv
import json
import os
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from commands import animate as main

from th_jax.avatars.file import save_avatar
from th_jax.avatars.shards import SCHEDULERS, only_writer
from th_jax.cli import animate as command
from th_jax.driving.many import read_list, reported_videos
from th_jax.media import open_video
from th_jax.models.networks import Networks
from th_jax.provenance import Kind, Provenance, read_sidecar
from th_jax.training.finetune import avatar_from_embedding

NETWORKS = Networks(image_size=16, base_width=4)
FILMS = {"ada-short.mp4": ("ada", "short"), "bob-long.mp4": ("bob", "long"), "ada-long.gif": ("ada", "long")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two avatars, two landmark files, and a list of three films."""
    folder = tmp_path_factory.mktemp("list")
    weights, rng = NETWORKS.init(jax.random.key(0)), np.random.default_rng(0)
    face = rng.uniform(0.3, 0.7, (1, 68, 2))
    for number, name in enumerate(("ada", "bob")):
        embedding = jax.random.normal(jax.random.key(number), (NETWORKS.plan.embedding,))
        avatar = avatar_from_embedding(NETWORKS, weights, embedding)
        record = Provenance(kind=Kind.GENERATED, inputs=("a" * 64,))
        save_avatar(folder / f"{name}.safetensors", avatar, networks=NETWORKS, provenance=record)
    for name, frames in {"short": 3, "long": 6}.items():
        moving = face + 0.01 * np.arange(frames)[:, None, None]
        np.savez(folder / f"{name}.npz", landmarks=moving.astype(np.float32), fps=10)
    write_list(folder, FILMS)
    return folder


@pytest.fixture(autouse=True)
def no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    for scheduler in SCHEDULERS:
        monkeypatch.delenv(scheduler.index_variable, raising=False)


def write_list(folder: Path, films: dict[str, tuple[str, str]], *, file: str = "films.csv") -> Path:
    rows = [[f"{avatar}.safetensors", f"{driver}.npz", out] for out, (avatar, driver) in films.items()]
    with (folder / file).open("w", newline="") as opened:
        csv.writer(opened).writerows([["avatar", "driver", "out"], *rows])
    return folder / file


def asked(folder: Path, out: Path, *more: str, file: str = "films.csv") -> list[str]:
    return ["--list", str(folder / file), "--out", str(out), "--retargeting", "none", *more]


def made_films(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir() if path.suffix in (".mp4", ".gif"))


@pytest.fixture(scope="module")
def made(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The films of the list, made by one process."""
    out = tmp_path_factory.mktemp("made") / "films"
    assert main(asked(folder, out)) == 0
    return out


def test_every_film_is_the_one_that_animate_makes(folder: Path, made: Path, tmp_path: Path) -> None:
    assert made_films(made) == sorted(FILMS)
    single = [
        "--avatar",
        str(folder / "bob.safetensors"),
        "--driver",
        str(folder / "long.npz"),
        "--retargeting",
        "none",
    ]
    assert main([*single, "--out", str(tmp_path / "bob.mp4")]) == 0
    films = []
    for path in (made / "bob-long.mp4", tmp_path / "bob.mp4"):
        with open_video(path) as video:
            films.append(np.stack([frame for _, frame in video.frames()]))
        assert read_sidecar(path)[1], "its record belongs to it"
    assert films[0].shape == (6, 16, 16, 3)
    np.testing.assert_array_equal(*films)
    assert {out: film.frames for out, film in reported_videos(made).items()} == {
        "ada-short.mp4": 3, "bob-long.mp4": 6, "ada-long.gif": 6,
    }  # fmt: skip


def test_a_list_may_lie_where_names_are_not_text(folder: Path, tmp_path: Path) -> None:
    there = tmp_path / os.fsdecode(b"\xff")
    try:
        there.mkdir()
    except OSError:
        pytest.skip("this file system has no such names")
    (there / "films.csv").write_text("avatar,driver,out\nnone.safetensors,none.npz,a.mp4\n")
    assert main(asked(there, tmp_path / "out")) == 1
    assert reported_videos(tmp_path / "out")["a.mp4"].status == "failed"


def test_films_that_are_there_are_not_made_again(
    folder: Path, made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "animate", lambda *_, **__: pytest.fail("it is there"))
    assert main(asked(folder, made)) == 0
    assert "3 of 3 videos" in (printed := capsys.readouterr().out)
    assert "(3 already before)" in printed


@pytest.mark.parametrize("change", ["option", "damage", "no line", "torn line"])
def test_a_film_of_other_options_or_bytes_is_made_again(folder: Path, tmp_path: Path, change: str) -> None:
    out, films = tmp_path / "films", {"ada-short.mp4": ("ada", "short"), "bob-short.mp4": ("bob", "short")}
    short = write_list(folder, films, file="short.csv").name
    assert main(asked(folder, out, file=short)) == 0
    before = {name: (out / name).stat().st_mtime_ns for name in films}
    report, more = out / "report.jsonl", []
    if change == "option":
        more = ["--layout", "landmarks,avatar"]
    elif change == "damage":
        (out / "ada-short.mp4").write_bytes((out / "ada-short.mp4").read_bytes()[:-1])
    else:
        lines = report.read_bytes().splitlines(keepends=True)
        assert b"ada-short.mp4" in lines[0]
        report.write_bytes(lines[1] + (lines[0][:20] if change == "torn line" else b""))
    assert main(asked(folder, out, *more, file=short)) == 0
    again = {name for name in films if (out / name).stat().st_mtime_ns != before[name]}
    assert again == (set(films) if change == "option" else {"ada-short.mp4"})
    assert reported_videos(out)["ada-short.mp4"].status == "finished"
    assert main(asked(folder, out, *more, file=short)) == 0


def test_a_film_that_fails_stops_no_other_one(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "damaged.npz").write_bytes(b"not an archive")
    films = {"a.mp4": ("ada", "damaged"), "b.mp4": ("nobody", "short"), "c.mp4": ("ada", "short")}
    some = write_list(folder, films, file="some.csv").name
    assert main(asked(folder, tmp_path / "films", file=some)) == 1
    printed = capsys.readouterr()
    assert "1 of 3 videos" in printed.out
    assert "2 failed: see" in printed.out
    assert re.search(r"^a\.mp4: .*damaged\.npz", printed.err, re.MULTILINE)
    assert re.search(r"^b\.mp4: .*nobody\.safetensors: No such file", printed.err, re.MULTILINE)
    assert made_films(tmp_path / "films") == ["c.mp4"]
    np.savez(folder / "damaged.npz", **np.load(folder / "short.npz"))
    write_list(folder, {name: pair for name, pair in films.items() if name != "b.mp4"}, file="some.csv")
    assert main(asked(folder, tmp_path / "films", file=some)) == 0
    assert "1 already before" in capsys.readouterr().out


def test_shards_make_each_film_once(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "films"
    assert main(asked(folder, out, "--shard", "1/2")) == 0
    assert "shard 1 of 2 (from --shard)" in capsys.readouterr().out
    first = made_films(out)
    assert main(asked(folder, out, "--shard", "2/2")) == 0
    assert 0 < len(first) < len(FILMS)
    assert made_films(out) == sorted(FILMS)
    lines = [json.loads(line) for path in out.glob("report.*.jsonl") for line in path.read_text().splitlines()]
    assert sorted(line["out"] for line in lines) == sorted(FILMS)
    capsys.readouterr()
    assert main(asked(folder, out)) == 0, "one process finds what the shards made"
    assert "(3 already before)" in capsys.readouterr().out


def test_a_shard_in_use_is_left_alone(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with only_writer(tmp_path / "films" / "report.jsonl"):
        assert main(asked(folder, tmp_path / "films")) == 75
    assert "another process is writing" in capsys.readouterr().err
    assert not made_films(tmp_path / "films")


def test_an_interrupted_list_keeps_its_films(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drive, calls = command.animate, []

    def interrupted(*given: Any, **options: Any) -> Any:
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt("SIGTERM")
        return drive(*given, **options)

    monkeypatch.setattr(command, "animate", interrupted)
    assert main(asked(folder, tmp_path / "films")) == 75
    assert "finished videos are kept" in capsys.readouterr().err
    assert len(made_films(tmp_path / "films")) == 1
    assert main(asked(folder, tmp_path / "films")) == 0
    assert len(calls) == 4, "the first film is not made again"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("avatar,driver\na,b\n", "header of the columns avatar, driver and out"),
        ("avatar,driver,out,face,size\n", "header of the columns"),
        ("avatar,driver,out\n", "has no entries"),
        ("avatar,driver,out\na,b,a.mp4\na,b,A.mp4\n", "line 3: duplicate video 'A.mp4', first named in line 2"),
        ("avatar,driver,out\na,b\n", "line 2: expected 3 columns, got 2"),
        ("avatar,driver,out\n,b,a.mp4\n", "line 2: the avatar is missing"),
        ("avatar,driver,out\n../a,b,a.mp4\n", "line 2: '../a' is outside the folder of the list"),
        ("avatar,driver,out\na,/etc/passwd,a.mp4\n", "line 2: '/etc/passwd' is outside the folder of the list"),
        ("avatar,driver,out\na,b,../a.mp4\n", "line 2: '../a.mp4' is not a valid video name"),
        ("avatar,driver,out\na,b,report.jsonl\n", "line 2: out must end in .mp4, .gif"),
        ("avatar,driver,out,face\na,b,a.mp4,0\n", "line 2: face must be a number from 1 to 999"),
    ],
)
def test_a_malformed_list(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "films.csv").write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        read_list(tmp_path / "films.csv")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--avatar", "a"], "--avatar cannot be given with --list"),
        (["--driver", "a", "--face", "1"], "--driver, --face cannot be given with --list"),
        (["--unmarked-output-for-research"], "is for one video at a time"),
    ],
)
def test_options_that_do_not_fit_a_list(
    folder: Path, tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(asked(folder, tmp_path / "films", *options)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "films").exists()


def test_options_of_a_list_need_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--driver", "a.npz", "--out", str(tmp_path / "a.mp4")]) == 2
    assert "give --avatar, or --list" in capsys.readouterr().err
    assert main(["--avatar", "a", "--driver", "a.npz", "--out", str(tmp_path / "a.mp4"), "--shard", "1/2"]) == 2
    assert "are parts of a list" in capsys.readouterr().err
    assert main(["--list", str(tmp_path / "a.csv")]) == 2
    assert "--out is missing" in capsys.readouterr().err
