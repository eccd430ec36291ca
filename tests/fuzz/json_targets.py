"""Fuzz targets of JSON and text that people hand on: consent, provenance, landmarks by hand, lists of people."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.fuzz.mutations import edited, texts
from tests.fuzz.targets import Target
from tests.hostile import valid_files
from th_jax.avatars.requests import read_people_file
from th_jax.consent.checks import ConsentFacts, check_valid
from th_jax.consent.record import ConsentError, parse_consent
from th_jax.data.landmark_file import read_landmark_file
from th_jax.provenance import Provenance, read_sidecar, sidecar_path


def _content(make: Callable[[Path], Path]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return make(Path(folder)).read_bytes()


def read_consent(_: Path, content: bytes) -> None:
    """A record that is read can be written, checked and compared."""
    record = parse_consent(content)
    assert parse_consent(json.dumps(record.to_dict()).encode()) == record
    assert len(record.digest) == 64
    assert ConsentFacts.of(record).to_dict()
    check_valid(record)


def read_provenance(folder: Path, content: bytes) -> None:
    image = folder / "a.png"
    image.write_bytes(b"pixels")
    sidecar_path(image).write_bytes(content)
    provenance, _ = read_sidecar(image)
    assert Provenance.from_dict(json.loads(json.dumps(provenance.to_dict()))) == provenance


def read_by_hand(suffix: str) -> Callable[[Path, bytes], None]:
    def read(folder: Path, content: bytes) -> None:
        path = folder / f"face{suffix}"
        path.write_bytes(content)
        points = read_landmark_file(path, height=256, width=256)
        assert points.shape in ((68, 2), (70, 2))
        assert points.dtype == np.float32
        assert np.isfinite(points).all()

    return read


def read_people(folder: Path, content: bytes) -> None:
    """No name leads outside of the folder, and no two avatars get the same name."""
    (folder / "ada").mkdir(exist_ok=True)
    if not (folder / "up").is_symlink():
        (folder / "up").symlink_to("..")
        (folder / "loop").symlink_to("loop")
    path = folder / "people.csv"
    path.write_bytes(content)
    people = read_people_file(path)
    for person in people:
        for named in (person.shots, person.landmarks, person.consent):
            assert named is None or named.resolve().is_relative_to(folder.resolve())
        assert "/" not in person.name
        assert not person.name.startswith(".")
    assert len({person.name.lower() for person in people}) == len(people)


_CONSENT = json.loads(_content(valid_files.consent))
_SIDECAR = json.loads(_content(valid_files.sidecar))
_POINTS = {suffix: _content(valid_files.landmarks_by_hand(suffix)) for suffix in (".txt", ".json", ".pts")}
_PEOPLE = (
    b'name,shots,landmarks,consent\nada,ada,,none\nbob,up/bob.jpg,"../a.txt",loop/x\neve,ada/../ada,a.txt,a.json\n'
)

TARGETS = {
    "consent record": Target(texts(_CONSENT), read_consent, (ConsentError,)),
    "provenance record": Target(texts(_SIDECAR), read_provenance, (ValueError,)),
    "landmarks by hand, JSON": Target(texts(json.loads(_POINTS[".json"])), read_by_hand(".json"), (ValueError,)),
    "landmarks by hand, text": Target(edited(_POINTS[".txt"]), read_by_hand(".txt"), (ValueError,)),
    "landmarks by hand, iBUG": Target(edited(_POINTS[".pts"]), read_by_hand(".pts"), (ValueError,)),
    "people": Target(edited(_PEOPLE), read_people, (ValueError,)),
}
