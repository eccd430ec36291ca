"""Forgetting a person removes all files of their avatars, also of killed runs, and no files of others."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from data_prep.forget.avatars import LOG_SUFFIX, PREVIEWS, REPORT_FILE
from data_prep.forget.traces import Traces, find_traces, remove_traces
from tests import commands
from tests.data_prep.folders import files
from th_jax.avatars import output as report
from th_jax.avatars import preview
from th_jax.avatars.file import save_avatar
from th_jax.cli.main import main as th_jax_main
from th_jax.consent import Basis, make_consent
from th_jax.driving import output
from th_jax.models.networks import Networks
from th_jax.provenance import Kind, Provenance, sidecar_path, write_image
from th_jax.training.finetune import avatar_from_embedding

NETWORKS = Networks(image_size=16, base_width=4)
IMAGE = np.zeros((16, 16, 3), np.uint8)
ADA, EVE = "a" * 64, "e" * 64

Avatars = Callable[[Path, str], Path]


@pytest.fixture(scope="module")
def avatar_of(tmp_path_factory: pytest.TempPathFactory) -> Avatars:
    """Writes an avatar that was made of the shot of this digest."""
    avatar = avatar_from_embedding(NETWORKS, NETWORKS.init(jax.random.key(0)), jax.numpy.ones(NETWORKS.plan.embedding))
    folder = tmp_path_factory.mktemp("avatars")
    for shot in (ADA, EVE):
        record = Provenance(kind=Kind.GENERATED, inputs=(shot,))
        save_avatar(folder / f"{shot}.safetensors", avatar, networks=NETWORKS, provenance=record)

    def write(path: Path, shot: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(folder / f"{shot}.safetensors", path))

    return write


def file(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def forget(root: Path, *names: str) -> Traces:
    traces = find_traces(root, names)
    remove_traces(traces)
    return traces


def test_names_are_those_that_the_library_gives() -> None:
    assert (REPORT_FILE, PREVIEWS, LOG_SUFFIX) == (report.REPORT_FILE, preview.PREVIEWS, output.LOG_SUFFIX)


@pytest.mark.parametrize("name", ["...safetensors", "....safetensors", "..safetensors", ".safetensors"])
def test_a_file_whose_name_is_dots_leaves_the_previews_of_others(tmp_path: Path, avatar_of: Avatars, name: str) -> None:
    avatar_of(tmp_path / "ada.safetensors", ADA)
    avatar_of(tmp_path / name, ADA)
    kept = {avatar_of(tmp_path / "eve.safetensors", EVE), file(tmp_path / "notes.txt")}
    kept |= {file(tmp_path / PREVIEWS / "eve" / "000000.png"), file(tmp_path / "000000.png")}
    file(tmp_path / PREVIEWS / "ada" / "000000.png")
    forget(tmp_path, "ada")
    assert files(tmp_path) == {path.relative_to(tmp_path).as_posix() for path in kept}


def test_what_a_killed_run_left_is_found_by_name(tmp_path: Path, avatar_of: Avatars) -> None:
    for name in (".ada.safetensors.4242", ".ada.whole.safetensors", "..ada.whole.safetensors.17", "ada.safetensors"):
        avatar_of(tmp_path / "whole" / name, ADA)
        cut = avatar_of(tmp_path / "cut" / name, ADA)
        cut.write_bytes(cut.read_bytes()[:-100])
    file(tmp_path / "other version" / "ada.safetensors", b"no tensors")
    file(tmp_path / "driven" / f"ada.safetensors{LOG_SUFFIX}")
    media_left = ".0123456789abcdef.partial.json", ".0123456789abcdef.plain.png", ".000000.png.01234567.partial"
    left = *media_left, ".000000.png.provenance.json.01234567.partial"
    for image in ("000000.png", "000000.png.provenance.json", *left):
        file(tmp_path / "killed" / PREVIEWS / "ada" / image)
    lines = b'{"name": "eve", "status": "failed"}\n', b'{"name": "ada", "status": "failed"}\n{"name": "ada", "sta'
    log = file(tmp_path / "killed" / REPORT_FILE, b"".join(lines))
    log.chmod(0o600)
    of_shard = file(tmp_path / "killed" / "report.1-of-2.jsonl", b"".join(lines))
    other = file(tmp_path / "tests" / REPORT_FILE, b'{"name": "ada", "outcome": "passed"}\n')
    kept = {other, log, of_shard, avatar_of(tmp_path / "whole" / "adam.safetensors", EVE)}
    kept |= {
        file(tmp_path / "killed" / PREVIEWS / "adam" / "000000.png"),
        file(tmp_path / f"adam.safetensors{LOG_SUFFIX}"),
    }
    traces = forget(tmp_path, "ada")
    assert files(tmp_path) == {path.relative_to(tmp_path).as_posix() for path in kept}
    assert log.read_bytes() == of_shard.read_bytes() == lines[0]
    assert log.stat().st_mode & 0o777 == 0o600
    assert b"ada" in other.read_bytes()
    assert not traces.doubts


def test_an_avatar_of_the_same_shots_takes_its_log_and_its_own_previews(tmp_path: Path, avatar_of: Avatars) -> None:
    for name in ("ada", "seven"):
        avatar_of(tmp_path / f"{name}.safetensors", ADA)
    file(tmp_path / f"seven.safetensors{LOG_SUFFIX}")
    file(tmp_path / PREVIEWS / "seven" / "000100.png")
    elsewhere = file(tmp_path / "site" / PREVIEWS / "seven" / "000100.png")
    forget(tmp_path, "ada")
    assert files(tmp_path) == {elsewhere.relative_to(tmp_path).as_posix()}


def test_other_files_in_a_folder_of_previews_stay(tmp_path: Path) -> None:
    file(tmp_path / PREVIEWS / "ada" / "000000.png")
    kept = file(tmp_path / PREVIEWS / "ada" / "letter.txt")
    traces = forget(tmp_path, "ada")
    assert files(tmp_path) == {kept.relative_to(tmp_path).as_posix()}
    assert traces.doubts == {kept.parent: "contains other files, which stay"}


def test_the_folder_that_is_searched_may_be_any_of_these(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file(tmp_path / PREVIEWS / "ada" / "000000.png")
    staged = file(tmp_path / ".people.staging" / "videos" / "ab" / "abc", b"record of ada")
    settings = file(tmp_path / ".people.staging" / "settings.json", b"without ada")
    for folder in (tmp_path / PREVIEWS / "ada", tmp_path / PREVIEWS, settings.parent):
        monkeypatch.chdir(folder)
        forget(Path("."), "ada")
        assert (tmp_path / PREVIEWS / "ada").exists() == (folder.name == "ada")
    assert not staged.exists()
    assert settings.exists()


def test_files_that_do_not_say_whose_they_are_stay_and_are_listed(tmp_path: Path) -> None:
    left = {".0123456789abcdef.plain.mp4", ".0123456789abcdef.partial.json", ".config.json.01234567.partial"}
    for name in left:
        file(tmp_path / name)
    traces = forget(tmp_path, "ada")
    assert {path.name for path in traces.doubts} == files(tmp_path) == left
    assert all("temporary file" in why for why in traces.doubts.values())


def test_shots_under_any_ending_and_images_of_the_records_shots(tmp_path: Path) -> None:
    photo = file(tmp_path / "photos" / "0.jpg", b"a photo")
    consent = make_consent(photo.parent, subject="ada", basis=Basis.SELF)
    for name in ("0.jpg.bak", "no ending", ".people.staging/x.tmp"):
        file(tmp_path / name, b"a photo")
    kept = file(tmp_path / "1.jpg", b"another one")
    digest = hashlib.sha256(b"a photo").hexdigest()
    write_image(tmp_path / "sheet.png", IMAGE, provenance=Provenance(kind=Kind.FIGURE, inputs=(digest,)))
    remove_traces(find_traces(tmp_path, [], consent=consent))
    assert files(tmp_path) == {kept.name}


def test_files_over_the_limit_are_not_compared_and_listed(tmp_path: Path) -> None:
    photo = file(tmp_path / "photos" / "0.jpg", b"a photo")
    consent = make_consent(photo.parent, subject="ada", basis=Basis.SELF)
    with (tmp_path / "video.mp4").open("wb") as video:
        video.truncate(2**33 + 1)
    traces = find_traces(tmp_path, [], consent=consent)
    assert traces.shots == (photo,)
    assert traces.doubts == {tmp_path / "video.mp4": "is too large to compare with the consent record"}


def test_another_file_beside_a_record_stays(tmp_path: Path, avatar_of: Avatars) -> None:
    avatar_of(tmp_path / "ada.safetensors", ADA)
    record = Provenance(kind=Kind.COMPOSITE, inputs=(ADA,))
    for name in ("own.png", "exchanged.png", "gone.png"):
        write_image(tmp_path / name, IMAGE, provenance=record)
    exchanged = file(tmp_path / "exchanged.png", b"of another person")
    (tmp_path / "gone.png").unlink()
    undated = sidecar_path(file(tmp_path / "undated.png"))
    undated.write_text(json.dumps({"provenance": record.to_dict()}))
    traces = forget(tmp_path, "ada")
    assert files(tmp_path) == {"exchanged.png", "undated.png"}
    why = "does not match the record beside it"
    assert traces.doubts == {exchanged: why, tmp_path / "undated.png": why}


def test_names_that_are_no_text_are_removed_and_listed(tmp_path: Path, avatar_of: Avatars) -> None:
    root = tmp_path / "root"
    (root / "people\x1b[31m").mkdir(parents=True)
    names = (os.fsdecode(b"Jos\xe9.safetensors"), "Zoë.safetensors")
    for name in names:
        avatar_of(root / "people\x1b[31m" / name, ADA)
    command = [
        sys.executable,
        "-m",
        "th_jax.cli.main",
        "prepare",
        "forget",
        os.fsencode(root),
        b"Jos\xe9",
        "--everywhere",
    ]
    ascii_only = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, cwd=Path(__file__).parents[3], env=ascii_only, check=True)
    assert not files(root)
    assert rb"people\x1b[31m/Jos\udce9.safetensors" in done.stdout
    assert rb"people\x1b[31m/Zo\xeb.safetensors" in done.stdout
    assert b"2 items removed" in done.stdout


def test_a_file_is_listed_before_it_is_removed(
    tmp_path: Path, avatar_of: Avatars, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = avatar_of(tmp_path / "ada.safetensors", ADA)

    def refuse(path: Path, *, missing_ok: bool = False) -> None:
        raise PermissionError(13, f"not \x1b[31m{path}")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        assert commands.forget([str(tmp_path), "ada", "--everywhere"]) == 1
    said = capsys.readouterr()
    assert said.out.splitlines() == [str(path)]
    assert r"not \x1b[31m" in said.err
    assert path.exists()


def test_a_file_that_cannot_be_listed_stays(
    tmp_path: Path, avatar_of: Avatars, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = avatar_of(tmp_path / "ada.safetensors", ADA)
    reader, writer = os.pipe()
    os.close(reader)
    with monkeypatch.context() as patched, os.fdopen(writer, "w") as gone:
        patched.setattr(sys, "stdout", gone)
        assert th_jax_main(["prepare", "forget", str(tmp_path), "ada", "--everywhere"]) == 1
    assert capsys.readouterr().err == "th-jax prepare forget: cannot write the output: [Errno 32] Broken pipe\n"
    assert path.exists()
