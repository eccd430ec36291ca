"""Manifests of shots and drivers are found, stored in the provenance, and included in new manifests."""

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import pytest
from signed_files import assertion, find_ingredients, image, manifest_of, store_of

from th_jax.provenance import (
    Ingredient,
    Kind,
    Provenance,
    Role,
    read_sidecar,
    write_image,
    write_video,
)
from th_jax.provenance.c2pa_write import PROVENANCE_LABEL
from th_jax.provenance.ingredients import find_manifests
from th_jax.provenance.record import MAX_ARCHIVES

GENERATED = Provenance(kind=Kind.GENERATED)


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def shot(tmp_path: Path) -> Path:
    return write_image(tmp_path / "shot.png", image(), provenance=GENERATED)


@pytest.fixture
def driver(tmp_path: Path) -> Path:
    return write_video(tmp_path / "driver.mp4", [image(), image(seed=1)], fps=25, provenance=GENERATED)


def test_manifests_of_shot_and_driver_are_kept(tmp_path: Path, shot: Path, driver: Path) -> None:
    found = find_ingredients([shot], role=Role.SHOT) + find_ingredients([driver], role=Role.DRIVER)
    assert [(one.role, one.file) for one in found] == [("shot", digest_of(shot)), ("driver", digest_of(driver))]
    record = dataclasses.replace(GENERATED, ingredients=found)
    made = write_image(tmp_path / "made.jpg", image(), provenance=record)
    store, manifest = store_of(made), manifest_of(made)
    assert store["validation_state"] == "Valid"
    before = {manifest_of(path)["label"] for path in (shot, driver)}
    assert before < set(store["manifests"])
    assert {one["active_manifest"] for one in manifest["ingredients"]} == before
    assert {(one["title"], one["relationship"]) for one in manifest["ingredients"]} == {
        ("shot", "inputTo"),
        ("driver", "inputTo"),
    }
    listed = assertion(manifest, PROVENANCE_LABEL)["ingredients"]
    assert listed == [{"role": one.role, "file": one.file} for one in found]


def test_ingredients_of_ingredients_are_kept(tmp_path: Path, shot: Path) -> None:
    made = shot
    for number in range(2):
        record = dataclasses.replace(GENERATED, ingredients=find_ingredients([made], role=Role.SHOT))
        made = write_image(tmp_path / f"{number}.png", image(), provenance=record)
    store = store_of(made)
    assert store["validation_state"] == "Valid"
    assert manifest_of(shot)["label"] in store["manifests"]
    assert len(store["manifests"]) == 3


def test_the_same_file_twice_is_kept_once(tmp_path: Path, shot: Path) -> None:
    found = find_ingredients([shot, shot], role=Role.SHOT)
    assert len(found) == 1
    record = dataclasses.replace(GENERATED, ingredients=found + find_ingredients([shot], role=Role.DRIVER))
    store = store_of(write_image(tmp_path / "made.png", image(), provenance=record))
    assert store["validation_state"] == "Valid"
    assert len(store["manifests"]) == 2


def test_an_altered_shot_is_kept_with_its_fault(tmp_path: Path, shot: Path) -> None:
    content = bytearray(shot.read_bytes())
    content[-20] ^= 1
    shot.write_bytes(content)
    record = dataclasses.replace(GENERATED, ingredients=find_ingredients([shot], role=Role.SHOT))
    made = write_image(tmp_path / "made.png", image(), provenance=record)
    assert store_of(made)["validation_state"] == "Valid"
    (kept,) = manifest_of(made)["ingredients"]
    faults = [fault["code"] for fault in kept["validation_results"]["activeManifest"]["failure"]]
    assert "assertion.dataHash.mismatch" in faults


def test_files_without_valid_manifests_give_no_ingredients(tmp_path: Path, shot: Path) -> None:
    plain = write_image(tmp_path / "plain.png", image(), provenance=Provenance(kind=Kind.REAL_CROP))
    (garbage := tmp_path / "garbage.jpg").write_bytes(os.urandom(1000))
    (cut := tmp_path / "cut.png").write_bytes(shot.read_bytes()[:300])
    assert find_ingredients([plain, garbage, cut, tmp_path / "missing.png", tmp_path], role=Role.SHOT) == ()


def test_manifests_over_the_limit_are_kept_by_digest(shot: Path) -> None:
    (found,) = find_ingredients([shot], role=Role.SHOT, kept=MAX_ARCHIVES - 1000)
    assert found == Ingredient(role=Role.SHOT, file=digest_of(shot), archive=None)


def test_archives_travel_in_json_and_stay_out_of_the_file_beside(tmp_path: Path, shot: Path) -> None:
    record = dataclasses.replace(GENERATED, ingredients=find_ingredients([shot], role=Role.SHOT))
    assert Provenance.from_dict(json.loads(json.dumps(record.to_dict()))) == record
    beside, intact = read_sidecar(write_image(tmp_path / "made.png", image(), provenance=record))
    assert intact
    assert beside.ingredients == (dataclasses.replace(record.ingredients[0], archive=None),)
    assert beside == dataclasses.replace(record, ingredients=beside.ingredients)


def test_the_archive_does_not_contain_the_image(shot: Path) -> None:
    digest, archive = find_manifests(str(shot), "shot")
    assert digest == digest_of(shot)
    assert 0 < archive.size < 20_000


def test_malformed_ingredients_are_rejected() -> None:
    good = Ingredient(role=Role.SHOT, file="a" * 64, archive=b"x").to_dict()
    for change in ({"role": "actor"}, {"file": "abc"}, {"archive": "?"}, {"archive": 7}, {"more": 1}):
        with pytest.raises(ValueError, match=r"ingredient|actor|64 hexadecimal|base64|padding|alphabet"):
            Ingredient.from_dict(good | change)
    with pytest.raises(ValueError, match="an ingredient is malformed"):
        Ingredient.from_dict([])


def test_too_many_ingredients_are_rejected() -> None:
    many = tuple(Ingredient(role=Role.SHOT, file=f"{i:064x}") for i in range(257))
    with pytest.raises(ValueError, match="257 ingredients with 0 bytes"):
        Provenance(kind=Kind.GENERATED, ingredients=many)
    large = Ingredient(role=Role.DRIVER, file="a" * 64, archive=bytes(MAX_ARCHIVES + 1))
    with pytest.raises(ValueError, match="1 ingredients with 16777217 bytes"):
        Provenance(kind=Kind.GENERATED, ingredients=(large,))
