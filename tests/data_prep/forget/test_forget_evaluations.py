"""Forgetting a person removes their images, features and scores from evaluations, and no other person's."""

import json
from pathlib import Path

import numpy as np
import pytest

from data_prep.build.shard_writer import write_data_set
from data_prep.forget.traces import CHOSEN_FILE, STUDY_FOLDER, find_traces, remove_traces
from tests.data_prep.folders import files
from tests.data_prep.video_records import record_of
from th_jax.consent import Basis, make_consent
from th_jax.data.records import VideoRecords
from th_jax.evaluation.face_measures import FaceMeasures
from th_jax.evaluation.protocol import judging, plan, score_store
from th_jax.evaluation.protocol.plan import Person, Protocol, choose_people, chosen_text
from th_jax.provenance import Kind, Provenance

FRAMES = np.zeros((1, 16, 16, 3), np.uint8)
RECORD = Provenance(kind=Kind.REAL_CROP, notes="held-out frame")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """An evaluation of six videos of four people, with everything that is kept of each."""
    write_data_set(tmp_path / "heads", {"train": map(record_of, range(6))}, name="heads", records_per_shard=6)
    records = VideoRecords(tmp_path / "heads")
    people = choose_people(records, Protocol(people=6, targets=1, shots=(1,)))
    folder = tmp_path / "run"
    kept = score_store.ScoreStore(folder)
    for person in people:
        kept.write_faces(person, FaceMeasures(np.zeros((1, 68, 2), np.float32), np.zeros((1, 128), np.float32)))
        for group, shots in ((score_store.REAL, 0), ("ours", 1)):
            kept.write(group, shots, person, score_store.Cell({group: {"ssim": np.zeros(1)}}, {}))
        kept.write_images(score_store.REAL, 0, person, FRAMES, RECORD)
        features = folder / judging.NETWORK_FOLDER / "vggface-0123" / "FT-1" / f"{person.name}.npz"
        features.parent.mkdir(parents=True, exist_ok=True)
        features.write_bytes(b"x")
    about = {"schema": plan.CHOSEN_SCHEMA, "shots": [1]}
    (folder / CHOSEN_FILE).write_text(chosen_text(records, people, about))
    (folder / "results.json").write_text("{}")
    return folder


def of(person: str) -> set[str]:
    image = f"study/real/{person}"
    return {
        f"faces/{person}.npz", f"cells/real/T00/{person}.json", f"cells/ours/T01/{person}.json",
        f"networks/vggface-0123/FT-1/{person}.npz", *(f"{image}/{name}" for name in image_names(person)),
    }  # fmt: skip


def image_names(person: str) -> tuple[str, str]:
    # The middle frame of a video of 4 or of 5.
    return "0002.png", "0002.png.provenance.json"


def test_names_are_those_that_the_evaluation_gives() -> None:
    assert (CHOSEN_FILE, STUDY_FOLDER) == (plan.CHOSEN_FILE, score_store.STUDY_FOLDER)
    assert (score_store.FACE_FOLDER, score_store.CELL_FOLDER, judging.NETWORK_FOLDER) == ("faces", "cells", "networks")
    assert "name" in Person._fields


@pytest.mark.parametrize(("name", "people"), [
    ("person1", ["002-video2", "003-video3"]), ("video4", ["004-video4"]), ("000-video0", ["000-video0"]),
    ("person", []), ("video", []), ("004", []),
])  # fmt: skip
def test_who_is_named_goes(run: Path, name: str, people: list[str]) -> None:
    before = files(run)
    remove_traces(find_traces(run, [name]))
    assert before - files(run) == set().union(*map(of, people))
    assert {path.name for path in (run / "study" / "real").iterdir()} == {
        path.split("/")[2] for path in before if path.startswith("study/") and path.split("/")[2] not in people
    }


def test_what_a_killed_writer_left_goes_too(run: Path) -> None:
    for left in ("faces/.002-video2.npz.0123abcd.partial", "cells/ours/T01/.002-video2.json.0123abcd.partial"):
        (run / left).write_bytes(b"x")
    before = files(run)
    remove_traces(find_traces(run, ["video2"]))
    assert len(before - files(run)) == len(of("002-video2")) + 2


def test_a_consent_record_finds_them_by_their_rows(run: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photos" / "0.jpg"
    photo.parent.mkdir()
    photo.write_bytes(bytes([5]))  # whose hash `record_of` gives to the fifth video
    consent = make_consent(photo.parent, subject="ada", basis=Basis.SELF)
    before = files(run)
    traces = find_traces(tmp_path, [], consent=consent)
    assert traces.rows == {tmp_path / "heads": ("video5",)}
    remove_traces(traces)
    assert before - files(run) == of("005-video5")


@pytest.mark.parametrize("people", [
    [{"name": "../../outside", "video_id": "ada", "identity": "ada"}], [{"name": "..", "video_id": "ada", "identity": "ada"}],
    [{"name": "", "video_id": "ada", "identity": "ada"}],
])  # fmt: skip
def test_a_hostile_list_reaches_nothing_outside(run: Path, tmp_path: Path, people: list[object]) -> None:
    outside = tmp_path / "outside.npz"
    outside.write_bytes(b"x")
    (run / CHOSEN_FILE).write_text(json.dumps({"people": people}))
    before = files(tmp_path)
    remove_traces(find_traces(run, ["ada"]))
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    "text", ["", "[" * 100_000, "{}", '{"people": 3}', '{"people": [{"name": []}]}', "\0" * (2**24 + 1)]
)
def test_an_invalid_list_is_reported(run: Path, text: str) -> None:
    (run / CHOSEN_FILE).write_text(text)
    (run / "other" / CHOSEN_FILE).parent.mkdir()
    (run / "other" / CHOSEN_FILE).write_text(text)  # nothing of an evaluation beside it
    traces = find_traces(run, ["video2"])
    assert traces.doubts == {run / CHOSEN_FILE: "does not list the chosen people, so this evaluation was not searched"}
