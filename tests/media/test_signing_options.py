"""A key given on the command line signs; an unusable one is rejected before any work."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import animate, evaluate, study
from signed_files import make_identity, store_of, write_private

from data_prep.tools.contact_sheet import main as contact_sheet
from data_prep.tools.threshold_figures import main as threshold_figures
from th_jax.avatars.file import save_avatar
from th_jax.models.networks import Networks
from th_jax.provenance import Kind, Provenance, SigningError, load_signer
from th_jax.provenance.signing_options import tried_signer
from th_jax.training.finetune import avatar_from_embedding

ROOT = Path(__file__).parent.parent.parent
NETWORKS = Networks(image_size=16, base_width=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid key, a readable one, one invalid for C2PA, an avatar and its driver."""
    folder = tmp_path_factory.mktemp("signing")
    key, certificate, root = make_identity()
    write_private(folder / "key.pem", key)
    (folder / "chain.pem").write_bytes(certificate + root)
    write_private(folder / "open.pem", key + certificate).chmod(0o644)
    write_private(folder / "useless.pem", b"".join(make_identity(usable=False)))
    embedding = jnp.zeros(NETWORKS.plan.embedding)
    avatar = avatar_from_embedding(NETWORKS, NETWORKS.init(jax.random.key(0)), embedding)
    save_avatar(folder / "ada.safetensors", avatar, networks=NETWORKS, provenance=Provenance(kind=Kind.GENERATED))
    landmarks = np.random.default_rng(0).uniform(0.2, 0.8, (3, 68, 2))
    np.savez(folder / "landmarks.npz", landmarks=landmarks, fps=10)
    return folder


def driving(folder: Path, out: Path, *signing: str) -> list[str]:
    chosen = {"avatar": folder / "ada.safetensors", "driver": folder / "landmarks.npz", "out": out}
    return [part for name, value in chosen.items() for part in (f"--{name}", str(value))] + list(signing)


@pytest.mark.parametrize("ending", [".png", ".gif", ".mp4"])
def test_the_named_key_signs_driven_output(folder: Path, tmp_path: Path, ending: str) -> None:
    signing = ("--signing-key", str(folder / "key.pem"), "--signing-certificate", str(folder / "chain.pem"))
    assert animate(driving(folder, tmp_path / f"ada{ending}", *signing)) == 0
    store = store_of(tmp_path / f"ada{ending}")
    assert store["manifests"][store["active_manifest"]]["signature_info"]["common_name"] == "Ada"
    assert store["validation_state"] == "Valid"


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("nothing.pem", "there is no signing key at"),
        ("open.pem", "is accessible to other users (mode 0644)"),
        ("key.pem", "contains no certificate: give its file with --signing-certificate"),
        ("useless.pem", "the signer 'Ada' cannot sign"),
    ],
)
def test_a_key_that_cannot_sign_is_rejected_before_the_avatar_is_read(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str, sentence: str
) -> None:
    arguments = driving(folder, tmp_path / "ada.mp4", "--signing-key", str(folder / key))
    arguments[1] = str(tmp_path / "no avatar at all")
    assert animate(arguments) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_an_unusable_key_in_the_environment_is_rejected(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TH_JAX_SIGNING_KEY", str(folder / "open.pem"))
    arguments = driving(folder, tmp_path / "ada.mp4")
    arguments[1] = str(tmp_path / "no avatar at all")
    assert animate(arguments) == 1
    assert "is accessible to other users" in capsys.readouterr().err


def test_commands_that_do_not_sign_take_no_key(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    named = ("--signing-key", str(folder / "key.pem"), "--unmarked-output-for-research")
    assert animate(driving(folder, tmp_path / "ada.mp4", *named)) == 1
    assert "camera frames and unmarked output are not signed" in capsys.readouterr().err
    named = ("--signing-certificate", str(folder / "chain.pem"), "--unmarked-output-for-research")
    assert animate(driving(folder, tmp_path / "ada.mp4", *named)) == 1
    assert "omit --signing-certificate" in capsys.readouterr().err
    monkeypatch.setenv("TH_JAX_SIGNING_KEY", str(folder / "open.pem"))  # which is not asked for
    assert animate(driving(folder, tmp_path / "ada.png", "--unmarked-output-for-research")) == 0
    assert store_of(tmp_path / "ada.unmarked.png") is None


def test_sheets_of_rendered_heads_are_signed_by_it(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    signing = ["--signing-key", str(folder / "key.pem"), "--signing-certificate", str(folder / "chain.pem")]
    sheet = ["--out", str(tmp_path / "heads.png"), "--people", "1", "--frames", "1", "--size", "32"]
    assert contact_sheet([*sheet, *signing]) == 0
    store = store_of(tmp_path / "heads.png")
    assert store["manifests"][store["active_manifest"]]["signature_info"]["common_name"] == "Ada"
    capsys.readouterr()
    for command in (contact_sheet, threshold_figures):
        assert command(["--out", str(tmp_path / "new"), "--signing-key", str(folder / "open.pem")]) == 1
        assert "is accessible to other users" in capsys.readouterr().err
    assert contact_sheet([*sheet, "--people", "0"]) == 1
    assert capsys.readouterr().err == "contact_sheet: people must be 1 or more, but is 0\n"
    (tmp_path / "file").touch()
    assert threshold_figures(["--out", str(tmp_path / "file")]) == 1
    assert capsys.readouterr().err.startswith("threshold_figures: ")
    assert {path.name for path in tmp_path.iterdir()} == {"heads.png", "heads.png.provenance.json", "file"}


def test_evaluation_and_study_reject_it_too(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ["--signing-key", str(folder / "open.pem")]
    run = ["--meta", "no weights", "--data", "bundled", "--protocol", "heads", "--no-faces", "--out", str(tmp_path)]
    assert evaluate([*run, *wrong]) == 1
    assert "is accessible to other users" in capsys.readouterr().err
    assert study(["build", "--frames", str(tmp_path / "none"), "--out", str(tmp_path / "study"), *wrong]) == 1
    assert "is accessible to other users" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["finetune", "demo"])
def test_the_scripts_reject_it_too(folder: Path, tmp_path: Path, name: str) -> None:
    wrong = [f"--signing-key={folder / 'open.pem'}", f"--out={tmp_path / 'out'}"]
    person = ["--shots=th_jax/assets/portrait/astronaut.jpg", "--consent=none", "--meta=no weights"]

    def said(*arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, f"{name}.py", *arguments],
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=False,
        )
        assert not (tmp_path / "out").exists()
        return done.returncode, done.stderr

    code, sentence = said(*wrong, *([*person, "--preview"] if name == "finetune" else []))
    assert code == 1
    assert sentence.startswith(f"th-jax {name}: the signing key {folder / 'open.pem'} is accessible to other users")
    assert sentence.count("\n") == 1
    if name == "finetune":
        code, sentence = said(*wrong, *person)
        assert code == 2
        assert "--signing-key signs previews: give --preview too" in sentence


def test_without_options_the_users_own_signer_is_used(folder: Path) -> None:
    assert tried_signer(None, None) == load_signer()
    with pytest.raises(SigningError, match=r"without its key: .*--signing-key"):
        tried_signer(None, folder / "chain.pem")
