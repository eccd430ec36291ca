"""Manifest archives from an avatar are tested in another process; unusable ones are dropped."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from signed_files import find_ingredients, image, store_of

from th_jax.provenance import Ingredient, Kind, Provenance, Role, write_image
from th_jax.provenance import ingredients as module
from th_jax.provenance.c2pa_write import c2pa, offline_context
from th_jax.provenance.ingredients import rejected_archives, usable_ingredients
from th_jax.provenance.signing import throwaway_signer

GENERATED = Provenance(kind=Kind.GENERATED)


@pytest.fixture
def good(tmp_path: Path) -> Ingredient:
    (found,) = find_ingredients([write_image(tmp_path / "a.png", image(), provenance=GENERATED)], role=Role.SHOT)
    return found


def of(archive: bytes | None) -> Ingredient:
    return Ingredient(role=Role.SHOT, file="b" * 64, archive=archive)


def can_be_added(archive: bytes, folder: Path) -> bool:
    """Whether c2pa accepts it, which does not imply that it can sign with it."""
    (file := folder / "archive").write_bytes(archive)
    with offline_context() as context, c2pa().Builder({}, context) as builder, file.open("rb") as content:
        try:
            builder.add_ingredient_from_archive(content)
        except c2pa().C2paError:
            return False
    return True


def altered_archives(archive: bytes) -> list[bytes]:
    changed = []
    for place in np.linspace(0, len(archive) - 1, 120).astype(int):
        content = bytearray(archive)
        content[place] ^= 1
        changed.append(bytes(content))
    return changed


def test_signable_archives_are_kept(good: Ingredient) -> None:
    assert usable_ingredients([of(None), good]) == (of(None), good)


def test_unsignable_archives_are_dropped(good: Ingredient, tmp_path: Path) -> None:
    broken = [of(good.archive[:2000]), of(os.urandom(500)), of(b"")]
    kept = usable_ingredients([broken[0], good, *broken[1:], of(None)])
    assert kept == (of(None), good, of(None), of(None), of(None))
    made = write_image(tmp_path / "b.png", image(), provenance=dataclasses.replace(GENERATED, ingredients=kept))
    assert store_of(made)["validation_state"] == "Valid"


def test_archives_accepted_but_unsignable_are_dropped(good: Ingredient, tmp_path: Path) -> None:
    added = [archive for archive in altered_archives(good.archive) if can_be_added(archive, tmp_path)]
    late = next(archive for archive in added if rejected_archives([archive]))
    assert usable_ingredients([good, of(late)]) == (good, of(None))


def crashes(_: list[bytes]) -> list[int]:
    os.abort()


def test_a_crashed_trial_drops_all_archives(good: Ingredient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "rejected_archives", crashes)
    assert usable_ingredients([good, of(None)]) == (dataclasses.replace(good, archive=None), of(None))


def test_without_archives_no_process_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "run_limited", None)
    assert usable_ingredients([of(None)]) == (of(None),)
    assert usable_ingredients([]) == ()


def test_the_trial_uses_no_key_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good: Ingredient) -> None:
    monkeypatch.setenv("TH_JAX_SIGNING_KEY", str(tmp_path / "missing.pem"))
    assert rejected_archives([good.archive, b"x"]) == [1]
    assert throwaway_signer().key != throwaway_signer().key
