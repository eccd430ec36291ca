"""The provenance record survives JSON and rejects invalid values."""

import dataclasses
import json
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from th_jax.provenance import Kind, Provenance, pixel_digest, read_sidecar, sidecar_path, write_image
from th_jax.provenance.record import MAX_INGREDIENTS, MAX_NOTES, Ingredient, Role
from th_jax.version import __version__

DIGEST = "0123456789abcdef" * 4


def full_record() -> Provenance:
    return Provenance(
        kind=Kind.GENERATED,
        created="2026-11-23T04:00:00+00:00",
        avatar=DIGEST,
        weights={"generator": DIGEST, "vgg": DIGEST[::-1]},
        inputs=(DIGEST, DIGEST[::-1]),
        consent=DIGEST,
        notes="Übung",
    )


@pytest.mark.parametrize("record", [full_record(), Provenance(kind=Kind.FIGURE)])
def test_json_round_trip(record: Provenance) -> None:
    assert Provenance.from_dict(json.loads(json.dumps(record.to_dict()))) == record


def test_defaults_have_software_and_time() -> None:
    record = Provenance(kind=Kind.REAL_CROP)
    assert (record.software, record.version) == ("th_jax", __version__)
    assert datetime.fromisoformat(record.created).tzinfo is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 3}, "schema 1 to 2, got 3"),
        ({"colour": "red"}, "missing or unknown fields: 'colour'"),
        ({"\x1b[2J": 1}, r"unknown fields: '\\x1b\[2J'"),
        ({"notes": None}, "provenance: notes must be str"),
        ({"inputs": DIGEST}, "provenance: inputs must be tuple"),
        ({"kind": "selfie"}, "kind must be one of generated, .* but is 'selfie'"),
        ({"avatar": "abc"}, "64 hexadecimal digits, got 'abc'"),
        ({"inputs": [7]}, "provenance: inputs must be tuple"),
        ({"avatar": 7}, "provenance: avatar must be str"),
        ({"weights": {"heads": 7}}, "provenance: weights must be"),
        ({"weights": [DIGEST]}, "provenance: weights must be"),
        ({"ingredients": {}}, "provenance: ingredients must be a list"),
        ({"ingredients": [7]}, "provenance: an ingredient is malformed"),
        ({"created": "yesterday"}, "ISO 8601 with a time zone, got 'yesterday'"),
        ({"created": "2026-11-23T04:00:00"}, "with a time zone"),
    ],
)
def test_malformed_records_are_rejected(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Provenance.from_dict(full_record().to_dict() | change)


def test_a_missing_field_is_named() -> None:
    record = full_record().to_dict()
    del record["consent"]
    with pytest.raises(ValueError, match="missing or unknown fields: 'consent'"):
        Provenance.from_dict(record)


def test_no_record_at_all() -> None:
    with pytest.raises(ValueError, match="schema 1 to 2, got 'list'"):
        Provenance.from_dict([])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"notes": "é" * 2**15 + "x"}, "65537 bytes, over the limit of 65536"),
        ({"inputs": [DIGEST] * 20_000}, "of 20000 inputs and 2 weights has 136.* bytes, over the limit of 800000"),
        ({"weights": {"a" * 800_000: DIGEST}}, "of 2 inputs and 1 weights has 800.* bytes, over the limit of"),
        ({"version": "1" * 800_000}, "bytes, over the limit of 800000"),
        ({"notes": "\ud800"}, r"'\\ud800' is not valid UTF-8"),
        ({"weights": {"\udce9": DIGEST}}, r"'\\udce9' is not valid UTF-8"),
    ],
)
def test_unsignable_records_are_rejected(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Provenance.from_dict(full_record().to_dict() | change)


@pytest.mark.parametrize(
    "most",
    [
        {"inputs": (DIGEST,) * 10_000, "notes": "a" * MAX_NOTES},  # as many as a consent record has
        {"inputs": (DIGEST,) * 5_000, "notes": "\x01" * MAX_NOTES},  # each six bytes long in JSON
        {"weights": {f"{number:x}": DIGEST for number in range(10_000)}},
    ],
)
def test_accepted_records_can_be_signed_and_read(tmp_path: Path, most: dict) -> None:
    ingredients = tuple(Ingredient(role=Role.SHOT, file=f"{number:064x}") for number in range(MAX_INGREDIENTS))
    record = dataclasses.replace(full_record(), ingredients=ingredients, **most)
    path = write_image(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8), provenance=record)
    read, whole = read_sidecar(path)
    assert (dataclasses.replace(read, watermark=None), whole) == (record, True)


def test_of_shots_lists_images_without_padding() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 3), np.uint8)
    shots = SimpleNamespace(frames=frames, mask=np.array([1, 1, 1, 0, 0, 0, 0, 0], np.float32))
    record = full_record().of(shots)
    assert record.inputs == tuple(pixel_digest(frame) for frame in frames[:3])
    assert record == dataclasses.replace(full_record(), inputs=record.inputs)


def test_pixel_digest_distinguishes_shapes_and_values() -> None:
    zeros = np.zeros((2, 3, 3), np.uint8)
    others = [np.zeros((3, 2, 3), np.uint8), np.zeros((2, 3, 3), np.int8), zeros + np.uint8(1)]
    assert len({pixel_digest(array) for array in (zeros, *others)}) == 4
    assert pixel_digest(zeros) == pixel_digest(np.zeros((3, 2, 3), np.uint8).transpose(1, 0, 2))


def test_sidecar_notices_a_changed_file(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8), provenance=full_record())
    assert read_sidecar(path) == (full_record(), True)
    path.write_bytes(path.read_bytes() + b"x")
    assert read_sidecar(path) == (full_record(), False)


@pytest.mark.parametrize("digest", [None, 7, "x"])
def test_a_sidecar_without_a_digest_is_rejected(tmp_path: Path, digest: object) -> None:
    path = write_image(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8), provenance=full_record())
    record = json.loads(sidecar_path(path).read_text())
    sidecar_path(path).write_text(json.dumps(record | {"sha256": digest}))
    with pytest.raises(
        ValueError, match=r"a.png.provenance.json is not a valid provenance record: (a field|provenance: a digest)"
    ):
        read_sidecar(path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"sha256": "x"}', "[" * 100_000, "x" * 2_000_000])
def test_invalid_sidecars(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.png"
    path.touch()
    sidecar_path(path).write_text(text)
    with pytest.raises(ValueError, match="provenance record"):
        read_sidecar(path)
