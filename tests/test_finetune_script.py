"""finetune.py as its users run it: photos of one person, a manifest of several, the same command again, and mistakes."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from commands import animate, command
from quick_programs import XLA_FLAGS
from tiny_people import write_photos, write_tiny_weights

from th_jax.avatars.file import load_avatar
from th_jax.avatars.output import read_report
from th_jax.cli import finetune
from th_jax.consent import NOT_RECORDED, Basis, make_consent, read_consent, revoke_consent, write_consent
from th_jax.faces import face_size
from th_jax.provenance import Kind, Provenance, write_image

ROOT = Path(__file__).parent.parent
QUICK = ["--config=configs/finetune_heads.py", "--config.epochs=2", "--config.rounds.chunk_steps=2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Meta weights of the smallest networks, and photos of two rendered people."""
    folder = tmp_path_factory.mktemp("finetune")
    write_tiny_weights(folder / "tiny.safetensors")
    for number, name in enumerate(("ada", "bob")):
        photos = folder / "photos" / name
        write_photos(photos, person=number, frames=(0, 20, 40))
        write_consent(folder / f"{name}.consent.json", make_consent(photos, subject=name, basis=Basis.SYNTHETIC))
    (folder / "photos" / "wall").mkdir()
    wall = np.full((64, 64, 3), 90, np.uint8)
    write_image(folder / "photos" / "wall" / "0.png", wall, provenance=Provenance(kind=Kind.FIGURE))
    return folder


def run(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit code, output, errors; a traceback is never right."""
    cache = {"JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2"}
    cache["XLA_FLAGS"] = XLA_FLAGS
    done = subprocess.run(
        [sys.executable, "finetune.py", *arguments],
        env={**os.environ, **cache, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=900,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    return done.returncode, done.stdout, done.stderr


def test_one_person_and_many(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same avatar alone and among others; a wall fails for itself; the second time there is nothing left to do."""
    meta = ["--meta", str(folder / "tiny.safetensors"), *QUICK]
    code, said, err = run(
        folder, *meta, "--shots", str(folder / "photos" / "ada"), "--consent", str(folder / "ada.consent.json"),
        "--out", str(folder / "one"), "--preview",
    )  # fmt: skip
    assert (code, said.splitlines()) == (
        0, ["1 finished", f"  ada: {folder}/one/ada.safetensors, from 3 of 3 images"],
    ), err  # fmt: skip
    assert "person" not in err, "a bar belongs on a terminal"
    assert (folder / "one" / "previews" / "ada" / "000002.png").exists()
    with (folder / "people.csv").open("w", newline="") as file:
        rows = [["wall", "photos/wall", "none"], *([n, f"photos/{n}", f"{n}.consent.json"] for n in ("ada", "bob"))]
        csv.writer(file).writerows([["name", "shots", "consent"], *rows])
    many = [*meta, "--people-file", str(folder / "people.csv"), "--out", str(folder / "many")]
    code, said, err = run(folder, *many)
    assert code == 1
    assert said.startswith("2 finished, 1 failed\n  wall: no face was found")
    assert "wall: no face was found" in err
    report = read_report(folder / "many")
    assert report["ada"].digest == read_report(folder / "one")["ada"].digest
    assert (report["bob"].shots, report["bob"].steps) == (3, 2)
    ada = load_avatar(folder / "many" / "ada.safetensors")
    assert ada.provenance.consent == read_consent(folder / "ada.consent.json").digest
    assert (ada.notes["consent"]["basis"], ada.provenance.notes) == ("synthetic", "")
    assert main_code(many) == 1
    assert capsys.readouterr().out.startswith("0 finished, 2 were already finished, 1 failed")
    assert main_code([*many, "--config.epochs=3"]) == 1
    refusal = "ada.safetensors was made with other meta weights or settings: remove it, or choose another folder"
    assert refusal in capsys.readouterr().err


def test_the_reason_of_one_person_is_printed_once(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = tmp_path / "notes.jpg"
    photo.write_text("not a photo")
    given = ["--meta", str(folder / "tiny.safetensors"), "--shots", str(photo), "--consent", "none"]
    assert main_code([*given, "--feed-forward", "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert (said.out, said.err.count("notes.jpg")) == ("", 1), said.err


def test_feed_forward(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also: what was left out is named, where letters cannot be shown as well."""
    tiny, out = str(folder / "tiny.safetensors"), folder / "fast"
    photos = shutil.copytree(folder / "photos" / "bob", tmp_path / "bob")
    (photos / "half.jpg").write_bytes((photos / "0.jpg").read_bytes()[:1000])
    (photos / "zwü.dng").write_bytes(b"an image of another kind")
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    code, said, err = run(
        folder, "--meta", tiny, "--shots", str(photos), "--out", str(out), "--feed-forward",
        "--name", "robert", "--consent", "none",
    )  # fmt: skip
    assert code == 0, err
    why = dict(read_report(out)["robert"].left_out)
    assert said.splitlines() == [
        "1 finished",
        f"  robert: {out}/robert.safetensors, from 3 of 4 images",
        f"    skipped: half.jpg: {why['half.jpg']}",
        f"    skipped: zw\\xfc.dng: {why['zwü.dng']}",
    ]
    assert why["half.jpg"].startswith("is damaged or truncated")
    assert why["zwü.dng"].startswith("not read: .dng is not one of .png, ")
    assert (out / "robert.safetensors").stat().st_size < 100_000
    robert = load_avatar(out / "robert.safetensors", meta=tiny)
    assert (robert.provenance.consent, robert.provenance.notes) == (None, NOT_RECORDED)


def test_landmarks_by_another_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = ["--meta", str(folder / "tiny.safetensors"), "--shots", str(folder / "photos" / "bob"), "--consent", "none"]
    made += ["--feed-forward", "--out"]
    assert main_code([*made, str(folder / "by_dlib")]) == 0
    assert main_code([*made, str(folder / "by_heads"), "--landmark-model", "heads"]) == 0
    dlib, heads = (
        load_avatar(folder / name / "bob.safetensors", meta=str(folder / "tiny.safetensors")).landmarks
        for name in ("by_dlib", "by_heads")
    )
    difference = np.linalg.norm(heads[:, :68] - dlib[:, :68], axis=-1).mean() / face_size(dlib).mean()
    assert 0.003 < difference < 0.08
    capsys.readouterr()
    assert main_code([*made, str(folder / "by_heads")]) == 1
    assert "bob.safetensors was made with another --landmark-model: remove it" in capsys.readouterr().err
    driven = ["--avatar", str(folder / "by_heads" / "bob.safetensors"), "--meta", str(folder / "tiny.safetensors")]
    driven += ["--driver", str(folder / "nowhere.mp4"), "--out", str(folder / "bob.mp4")]
    hint = "bob.safetensors was made with another landmark model"
    assert animate(driven) == 1
    assert hint in capsys.readouterr().err
    assert animate([*driven, "--landmark-model", "heads"]) == 1
    said = capsys.readouterr().err
    assert hint not in said
    assert "nowhere.mp4" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shots", "x", "--people-file", "y"], "give either --shots, for one person, or --people-file, for many"),
        (["--people-file", "y", "--name", "z"], "--name, --landmarks and --face are for one person"),
        (["--shots", "nowhere"], "th-jax finetune: there are no images at nowhere"),
        (["--people-file", "nowhere.csv"], "there is no people file at nowhere.csv"),
        (
            ["--shots", "docs", "--config=configs/finetune.py", "--config.epoch=3"],
            "'epoch' is not a setting of the config; did you mean 'epochs'",
        ),
        (
            ["--shots", "docs", *QUICK, "--config.nope=3"],
            "'nope' is not a setting of the config",
        ),
        (
            ["--shots", "docs", *QUICK, "--config.epochs.x=3"],
            "the config has no setting epochs.x: epochs is not a section",
        ),
        (["--shots", "docs", "--set", f"averaging={10**400}"], "the setting averaging is float, such as "),
        (["--shots", "docs", "--set", f"seed={'-' * 20000}1"], "the setting seed is int, such as 0, but '------"),
        (["--shots", "docs", "--set", "seed=1.5"], "the setting seed is int, such as 0, but '1.5' was given"),
        (["--shots", "docs", "--set", "seed"], "a setting is changed by KEY=VALUE, not by 'seed'"),
        (
            ["--shots", "docs", *QUICK, "--config.early_stopping.from_shots=-1"],
            "early stopping needs from_shots",
        ),
        (["--shots", "docs", "--max-shots", "0"], "argument --max-shots: must be 1 to 32, but is 0"),
        (["--shots", "docs", "--max-shots", "33"], "argument --max-shots: must be 1 to 32, but is 33"),
        (["--shots", "docs", "--feed-forward", "--compact", "int8"], "--compact applies to trained avatars"),
        (
            ["--shots", "docs", "--out", "/dev/null/x"],
            "cannot create /dev/null/x: /dev/null is not a folder",
        ),
        (["--shots", "docs", "--out", "setup.cfg"], "cannot create setup.cfg: setup.cfg is not a folder"),
        (["--shots", "docs", "extra"], "unrecognized arguments: extra"),
        (["--shots", "docs", "--name", "../up"], "'../up' is not a valid avatar name"),
        (["--shots", "docs"], "th-jax finetune: the person shown in docs must have consented: give the consent record"),
        (["--shots", "docs", "--consent", "nowhere.json"], "invalid consent record: nowhere.json does not exist"),
        (["--people-file", "y", "--consent", "ada.consent.json"], "--consent FILE is for one person"),
        (["--shots", "docs", "--config=configs/heads.py"], "this is not a config of fine-tuning: it lacks "),
        (["--shots", "docs", *QUICK, "--config.epochs=0"], "'epochs' must be a whole number of at least 1, but is 0"),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    assert message in refused(arguments, monkeypatch, capsys, tmp_path)


def test_a_config_in_another_encoding(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_bytes('"""Kühe."""\n'.encode("latin-1"))
    said = refused(["--shots", "docs", f"--config={tmp_path / 'mine.py'}"], monkeypatch, capsys, tmp_path)
    assert said.startswith("1th-jax finetune: the config ")
    assert said.endswith("; save it as UTF-8\n")


def test_a_config_that_fails_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text("def get_config():\n    return {'epochs': EPOCHS}\n")
    said = refused(["--shots", "docs", f"--config={tmp_path / 'mine.py'}"], monkeypatch, capsys, tmp_path)
    assert said.endswith("cannot be used: NameError: name 'EPOCHS' is not defined\n")


def test_configs_that_fit_no_fine_tuning() -> None:
    """Found before anything is loaded, wherever they come from."""

    def changed(section: str, **values: Any) -> Any:
        config = finetune.default_config("heads")
        (config[section] if section else config).update(values)
        return config

    finetune.check_config(changed(""))
    finetune.check_config(changed("early_stopping", from_shots=0))
    for config, message in (
        (changed("", adversary=-1.0), "'adversary' must be a number of at least 0, but is -1.0"),
        (changed("losses", pixel=-1.0), "the loss weight pixel must be finite"),
        (changed("rounds", vmap_width=2), "at_once must be a multiple of vmap_width"),
        (changed("early_stopping", held_out=1.5), "early stopping .* got 8, 1.5 and 3"),
        (changed("early_stopping", patience=0), "early stopping .* got 8, 0.25 and 0"),
        (changed("early_stopping", patient=1), "'patient' is not a setting of .*early_stopping; did you mean"),
        (changed("", note="x"), "'note' is not a setting of"),
    ):
        with pytest.raises(ValueError, match=message):
            finetune.check_config(config)


def refused(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], out: Path
) -> str:
    """What is said to mistakes, in this process: they are found before anything is loaded."""

    def nothing(_: str) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(finetune, "load_meta", nothing)
    code = main_code(["--meta", "heads64", "--out", str(out), *arguments])
    printed = capsys.readouterr()
    return f"{code}{printed.out}{printed.err}"


def main_code(arguments: list[str]) -> int:
    """What the command ends with in this process."""
    return command("finetune")(arguments)


def test_a_stop_has_a_code_of_its_own_and_the_weights_name_decides_on_the_preset(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """0 would mean that all people have avatars; and a released file is fine-tuned as under its name."""
    asked: list[Any] = []

    def stopped(meta: Any, people: Any, saving: Any, **settings: Any) -> Any:
        asked.append(settings["finetuning"])
        raise finetune.Interrupted
        yield

    monkeypatch.setattr(finetune, "enroll", stopped)
    weights = str(ROOT / "th_jax" / "assets" / "pretrained" / "heads64.safetensors")
    arguments = ["--shots", str(folder / "photos" / "ada"), "--consent", "none", "--out", str(tmp_path)]
    assert main_code(["--meta", weights, *arguments]) == 75
    assert "finished avatars are saved; run the same command again to continue" in capsys.readouterr().out
    assert (asked[0].adversary, asked[0].loss_weights.pixel, asked[0].optimizers.synthesis.beta2) == (4.0, 200.0, 0.99)
    assert main_code(["--meta", str(folder / "tiny.safetensors"), *arguments]) == 75
    assert (asked[1].adversary, asked[1].loss_weights.pixel, asked[1].optimizers.synthesis.beta2) == (1.0, 0.0, 0.999)


def test_a_revoked_record_stops_it_before_anything_is_loaded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, path = folder / "photos" / "ada", tmp_path / "ada.consent.json"
    write_consent(path, make_consent(photos, subject="Ada", basis=Basis.SELF))
    revoke_consent(path)
    asked = ["--shots", str(photos), "--consent", str(path)]
    assert "th-jax finetune: this consent was revoked on" in refused(asked, monkeypatch, capsys, tmp_path)


@pytest.mark.parametrize("error", [jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"), MemoryError()])
def test_out_of_memory_is_one_sentence(
    error: Exception, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fails_to_load(error, folder, tmp_path, monkeypatch)
    assert (
        "out of memory; lower --set rounds.vmap_width=1, --set rounds.at_once=1, or --max-shots"
        in capsys.readouterr().err
    )
    fails_to_load(error, folder, tmp_path, monkeypatch, "--feed-forward")
    assert capsys.readouterr().err == "th-jax finetune: out of memory; lower --max-shots\n"


def test_what_is_wrong_with_the_machine_is_not_called_memory(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        fails_to_load(jax.errors.JaxRuntimeError("INTERNAL: no such device"), folder, tmp_path, monkeypatch)


def fails_to_load(error: Exception, folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """Loading the weights ends with an error."""

    def fails(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(finetune, "load_meta", fails)
    shots = str(folder / "photos" / "ada")
    chosen = ["--meta", "heads64", "--shots", shots, "--consent", "none", "--out", str(out), *arguments]
    assert main_code(chosen) == 1
