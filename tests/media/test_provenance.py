"""The record of what made a file survives JSON, and refuses what it cannot mean."""

import dataclasses
import json
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from th_jax.media import Kind, Provenance, pixel_digest, read_sidecar, sidecar_path, write_image
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


def test_defaults_say_what_and_when() -> None:
    record = Provenance(kind=Kind.REAL_CROP)
    assert (record.software, record.version) == ("th_jax", __version__)
    assert datetime.fromisoformat(record.created).tzinfo is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 3}, "schemas 1 to 2 are read here, but 3 came"),
        ({"colour": "red"}, "missing or unknown fields: colour"),
        ({"notes": None}, "a field has the wrong type"),
        ({"inputs": DIGEST}, "a field has the wrong type"),
        ({"kind": "selfie"}, "selfie"),
        ({"avatar": "abc"}, "a digest must be 64 hexadecimal digits, but is 'abc'"),
        ({"inputs": [7]}, "a field has the wrong type"),
        ({"avatar": 7}, "a field has the wrong type"),
        ({"created": "yesterday"}, "must be ISO 8601 with a time zone, but is 'yesterday'"),
        ({"created": "2026-11-23T04:00:00"}, "with a time zone"),
    ],
)
def test_malformed_records_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Provenance.from_dict(full_record().to_dict() | change)


def test_a_missing_field_is_named() -> None:
    record = full_record().to_dict()
    del record["consent"]
    with pytest.raises(ValueError, match="missing or unknown fields: consent"):
        Provenance.from_dict(record)


def test_no_record_at_all() -> None:
    with pytest.raises(ValueError, match="schemas 1 to 2 are read here, but 'list' came"):
        Provenance.from_dict([])


def test_of_shots_names_their_pictures_without_padding() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 3), np.uint8)
    shots = SimpleNamespace(frames=frames, mask=np.array([1, 1, 1, 0, 0, 0, 0, 0], np.float32))
    record = full_record().of(shots)
    assert record.inputs == tuple(pixel_digest(frame) for frame in frames[:3])
    assert record == dataclasses.replace(full_record(), inputs=record.inputs)


def test_pixel_digest_tells_shapes_and_values_apart() -> None:
    zeros = np.zeros((2, 3, 3), np.uint8)
    others = [np.zeros((3, 2, 3), np.uint8), np.zeros((2, 3, 3), np.int8), zeros + np.uint8(1)]
    assert len({pixel_digest(array) for array in (zeros, *others)}) == 4
    assert pixel_digest(zeros) == pixel_digest(np.zeros((3, 2, 3), np.uint8).transpose(1, 0, 2))


def test_sidecar_notices_a_changed_file(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8), provenance=full_record())
    assert read_sidecar(path) == (full_record(), True)
    path.write_bytes(path.read_bytes() + b"x")
    assert read_sidecar(path) == (full_record(), False)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"sha256": "x"}', "[" * 100_000, "x" * 2_000_000])
def test_sidecar_that_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.png"
    path.touch()
    sidecar_path(path).write_text(text)
    with pytest.raises(ValueError, match="no provenance record"):
        read_sidecar(path)
