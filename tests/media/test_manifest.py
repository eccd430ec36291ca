"""Generated media carry a signed manifest; other media do not."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from signed_files import assertion, image, make_identity, manifest_of, store_of, write_private

from tests.provenance.marked_files import GENERATED, NAMES, write
from th_jax.media import open_video, read_image
from th_jax.provenance import (
    Kind,
    Person,
    Provenance,
    SigningError,
    load_signer,
    read_sidecar,
    sidecar_path,
    unmarked_path,
    write_gif,
    write_image,
    write_video,
)
from th_jax.provenance.c2pa_write import PROVENANCE_LABEL, SOURCE_TYPES, source_type
from th_jax.version import __version__

DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize("name", NAMES)
def test_the_manifest_is_valid_and_agrees_with_the_record(tmp_path: Path, name: str) -> None:
    record = Provenance(
        kind=Kind.GENERATED, avatar=DIGEST, weights={"heads": DIGEST[::-1]}, consent=DIGEST, watermark="00ff"
    )
    path = write(tmp_path / name, provenance=record)
    store = store_of(path)
    assert store["validation_state"] == "Valid"
    assert [fault["code"] for fault in store["validation_status"]] == ["signingCredential.untrusted"]
    manifest = manifest_of(path)
    software = manifest["claim_generator_info"][0]
    assert (software["name"], software["version"]) == ("th_jax", __version__)
    created, watermarked = assertion(manifest, "c2pa.actions.v2")["actions"]
    assert created["action"] == "c2pa.created"
    assert created["when"] == record.created
    assert created["digitalSourceType"] == SOURCE_TYPES + "compositeWithTrainedAlgorithmicMedia"
    assert watermarked["action"] == "c2pa.watermarked.unbound"
    own = assertion(manifest, PROVENANCE_LABEL)
    expected = {"avatar": DIGEST, "weights": {"heads": DIGEST[::-1]}, "consent": DIGEST, "kind": "generated"}
    assert expected.items() <= own.items()
    assert (own["created"], own["watermark"], own["ingredients"]) == (record.created, "00ff", [])


@pytest.mark.parametrize("name", NAMES)
def test_the_record_beside_is_of_the_signed_file(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name)
    assert read_sidecar(path) == (GENERATED, True)
    record = json.loads(sidecar_path(path).read_text())
    assert record["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (record["marks"], record["unmarked_for_research"]) == (["c2pa"], False)
    assert sorted(p.name for p in tmp_path.iterdir()) == [name, f"{name}.provenance.json"]


def test_the_manifest_changes_no_pixel(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_image(write(tmp_path / "a.png")), image())
    plain = write(tmp_path / "b.unmarked.mp4", unmarked_for_research=True)
    with open_video(write(tmp_path / "a.mp4")) as marked, open_video(plain) as unmarked:
        pairs = list(zip(marked.frames(), unmarked.frames(), strict=True))
    assert len(pairs) == 3
    for one, other in pairs:
        np.testing.assert_array_equal(one[1], other[1])


def test_the_manifest_has_no_name_and_no_second_image(tmp_path: Path) -> None:
    path = write(tmp_path / "ada-lovelace.png")
    assert b"lovelace" not in path.read_bytes()
    assert not {"title", "thumbnail"} & set(manifest_of(path))


def test_missing_consent_is_stated_in_the_manifest(tmp_path: Path) -> None:
    assert assertion(manifest_of(write(tmp_path / "a.png")), PROVENANCE_LABEL)["consent"] == "no consent recorded"


@pytest.mark.parametrize(
    ("record", "term"),
    [
        (Provenance(kind=Kind.GENERATED, person=Person.SYNTHETIC), "trainedAlgorithmicMedia"),
        (Provenance(kind=Kind.GENERATED, person=Person.REAL), "compositeWithTrainedAlgorithmicMedia"),
        (Provenance(kind=Kind.GENERATED), "compositeWithTrainedAlgorithmicMedia"),
        (Provenance(kind=Kind.COMPOSITE, person=Person.SYNTHETIC), "compositeWithTrainedAlgorithmicMedia"),
        (Provenance(kind=Kind.FIGURE, weights={"heads": DIGEST}), "compositeWithTrainedAlgorithmicMedia"),
        (Provenance(kind=Kind.SYNTHETIC_RENDER), "algorithmicMedia"),
    ],
)
def test_source_types(tmp_path: Path, record: Provenance, term: str) -> None:
    assert source_type(record) == SOURCE_TYPES + term
    assert record.shows_generated
    assert store_of(write(tmp_path / "a.png", provenance=record)) is not None


@pytest.mark.parametrize("kind", [Kind.TRAINING_GRID, Kind.REAL_CROP, Kind.FIGURE])
def test_non_generated_content_is_not_marked(tmp_path: Path, kind: Kind) -> None:
    path = write(tmp_path / "a.png", provenance=Provenance(kind=kind))
    assert store_of(path) is None
    record = json.loads(sidecar_path(path).read_text())
    assert (record["marks"], record["unmarked_for_research"]) == ([], False)


@pytest.mark.parametrize("name", NAMES)
def test_unmarked_output_is_stated_in_name_and_record(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=rf"use a\.unmarked\.{name[2:]} instead of {name}"):
        write(tmp_path / name, unmarked_for_research=True)
    assert not list(tmp_path.iterdir())
    path = write(unmarked_path(tmp_path / name), unmarked_for_research=True)
    assert path.name == f"a.unmarked.{name[2:]}"
    assert unmarked_path(path) == path
    assert store_of(path) is None
    record = json.loads(sidecar_path(path).read_text())
    assert (record["marks"], record["unmarked_for_research"]) == ([], True)
    assert read_sidecar(path) == (GENERATED, True)


def test_the_user_s_own_key_signs(tmp_path: Path) -> None:
    key, certificate, root = make_identity()
    signer = load_signer(key=write_private(tmp_path / "ada.pem", key + certificate + root))
    signature = manifest_of(write(tmp_path / "a.png", signer=signer))["signature_info"]
    assert (signature["common_name"], signature["issuer"]) == ("Ada", "Ada's")


def test_an_invalid_certificate_is_found_before_the_first_frame(tmp_path: Path) -> None:
    key, certificate, _ = make_identity(usable=False)
    signer = load_signer(key=write_private(tmp_path / "ada.pem", key + certificate))
    asked = []

    def frames() -> Iterator[np.ndarray]:
        asked.append(True)
        yield image()

    for write_frames, name in ((write_video, "a.mp4"), (write_gif, "a.gif")):
        with pytest.raises(SigningError, match="signer 'Ada' cannot sign"):
            write_frames(tmp_path / name, frames(), fps=25, provenance=GENERATED, signer=signer)
    with pytest.raises(SigningError, match="cannot sign"):
        write_image(tmp_path / "a.png", image(), provenance=GENERATED, signer=signer)
    assert not asked
    assert [p.name for p in tmp_path.iterdir()] == ["ada.pem"]


def test_without_a_key_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TH_JAX_SIGNING_KEY", str(tmp_path / "nowhere.pem"))
    with pytest.raises(SigningError, match=r"no signing key at .*nowhere"):
        write(tmp_path / "a.mp4")
    assert not list(tmp_path.iterdir())


def test_without_the_extra_a_hint_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    with pytest.raises(ImportError, match=r"requires the module.*th_jax\[video\]"):
        write(tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
    write(tmp_path / "a.png", provenance=Provenance(kind=Kind.TRAINING_GRID))


def test_a_disk_that_fills_up_while_signing_leaves_nothing(tmp_path: Path) -> None:
    program = f"""
import resource, numpy as np, pathlib
from th_jax.provenance import Kind
from th_jax.provenance import Provenance
from th_jax.provenance import write_image
folder = pathlib.Path({str(tmp_path)!r})
noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
plain = write_image(folder / "plain.png", noise, provenance=Provenance(kind=Kind.FIGURE)).stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (plain + 500, plain + 500))
try:
    write_image(folder / "a.png", noise, provenance=Provenance(kind=Kind.GENERATED))
except OSError as error:
    print("refused:", error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "refused: [Errno 27]" in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plain.png", "plain.png.provenance.json"]
