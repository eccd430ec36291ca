"""Driving checks consent before it reads the driver, and outputs name the consent record."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from commands import animate as main

from th_jax.avatars.file import load_avatar, save_avatar
from th_jax.cli import animate as animate_command
from th_jax.consent import (
    NOT_RECORDED,
    Basis,
    ConsentError,
    ConsentFacts,
    make_consent,
    read_consent,
    revoke_consent,
    with_consent,
    write_consent,
)
from th_jax.driving import animate as script
from th_jax.driving.animate import animate
from th_jax.models.networks import Networks
from th_jax.provenance import Kind, Provenance, read_sidecar
from th_jax.training.finetune import avatar_from_embedding

NETWORKS = Networks(image_size=16, base_width=4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Avatars with consent, without, and with one that has expired; the record; landmarks to drive with."""
    (tmp_path / "a.jpg").write_bytes(b"a picture")
    agreed = make_consent(tmp_path / "a.jpg", subject="Ada", basis=Basis.SELF, expires="2099-01-01T00:00:00+00:00")
    write_consent(tmp_path / "ada.consent.json", agreed)
    facts, plain = ConsentFacts.of(agreed), Provenance(kind=Kind.GENERATED)
    late = facts._replace(expires="2026-01-01T00:00:00+00:00")
    avatar = avatar_from_embedding(NETWORKS, NETWORKS.init(jax.random.key(0)), jax.numpy.ones(NETWORKS.plan.embedding))
    for name, stated in (("ada", facts), ("nobody", None), ("late", late)):
        notes = {"consent": None if stated is None else stated.to_dict()}
        record = with_consent(plain, stated)
        save_avatar(tmp_path / f"{name}.safetensors", avatar, networks=NETWORKS, provenance=record, notes=notes)
    save_avatar(tmp_path / "bare.safetensors", avatar, networks=NETWORKS, provenance=plain)
    points = np.random.default_rng(0).uniform(0.2, 0.8, (2, 68, 2)).astype(np.float32)
    np.savez(tmp_path / "landmarks.npz", landmarks=points)
    (tmp_path / "out").mkdir()
    return tmp_path


def made(folder: Path, name: str, **options: Any) -> Provenance:
    """The provenance record of an avatar's image."""
    loaded = load_avatar(folder / f"{name}.safetensors")
    animate(loaded, folder / "landmarks.npz", folder / "out" / "a.png", **options)
    return read_sidecar(folder / "out" / "a.png")[0]


def test_outputs_name_the_record_or_its_absence(folder: Path) -> None:
    digest = read_consent(folder / "ada.consent.json").digest
    assert made(folder, "ada").consent == made(folder, "ada", consents=folder).consent == digest
    for name in ("nobody", "bare"):
        record = made(folder, name, consents=folder)
        assert record.consent is None
        assert record.notes.startswith(f"{NOT_RECORDED}; driven by a file of SHA-256")


def test_ended_consent_is_rejected_before_the_driver_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def looked(*_: Any, **__: Any) -> Any:
        raise AssertionError("the driver was looked at")

    for reader in ("read_landmarks", "track_driver"):
        monkeypatch.setattr(script, reader, looked)
    monkeypatch.setattr(animate_command, "drive_with_camera", looked)
    monkeypatch.setattr(animate_command, "missing_window", lambda: None)
    revoke_consent(folder / "ada.consent.json")
    film = ["--out", str(folder / "out" / "b.mp4")]
    for driver, more in (("driver.mp4", film), ("landmarks.npz", film), ("camera:0", [])):
        for name, records, message in (
            ("ada", ["--consents", str(folder)], "this consent was revoked on"),
            ("ada", ["--consents", str(folder / "out")], "this avatar's consent record"),
            ("late", [], "this consent expired on 2026-01-01T00:00:00+00:00"),
        ):
            command = ["--avatar", str(folder / f"{name}.safetensors"), "--driver", driver, *more, *records]
            assert main(command) == 1
            printed = capsys.readouterr().err.strip()
            assert message in printed
            assert len(printed.splitlines()) == 1
    with pytest.raises(ConsentError, match="expired"):
        made(folder, "late")
    assert not list((folder / "out").iterdir())
