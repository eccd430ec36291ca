"""Fine-tuning of many people: equal to one at a time, isolated failures, and no loss of finished avatars."""

import dataclasses
import gc
import hashlib
import weakref
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from tiny_enrollment import HOW, images, make, meta, people  # noqa: F401 - a fixture

from th_jax.avatars import enroll as enrolling
from th_jax.avatars.enroll import Finetuning, Interrupted, enroll
from th_jax.avatars.file import load_avatar
from th_jax.avatars.output import EnrollmentError, Report, Saving, read_report, unfinished
from th_jax.avatars.person_files import read_shots
from th_jax.avatars.preview import write_preview
from th_jax.avatars.requests import PersonRequest
from th_jax.consent import NOT_RECORDED, Basis, ConsentFacts, make_consent, read_consent, revoke_consent, write_consent
from th_jax.data.shots import LeftOut
from th_jax.driving.poses import wants_pupils
from th_jax.provenance import Ingredient, Kind, Provenance, Role, write_image
from th_jax.provenance.record import read_sidecar


def test_one_equals_one_of_many_and_failures_are_isolated(tmp_path: Path) -> None:
    many = make(tmp_path / "many", "faceless", "ada", "broken", "bob", "unlucky", preview=True)
    alone = make(tmp_path / "alone", "bob")
    assert many["bob"].digest == alone["bob"].digest
    assert (many["ada"].status, many["ada"].steps, many["ada"].shots) == ("finished", 3, 3)
    assert (many["ada"].looked_at, many["ada"].spare, many["ada"].left_out) == (5, 1, (LeftOut("c.jpg", "is damaged"),))
    assert (many["ada"].avatar, many["unlucky"].avatar) == (str(tmp_path / "many" / "ada.safetensors"), "")
    assert {name: outcome.reason for name, outcome in many.items() if outcome.status == "failed"} == {
        "faceless": "no face was found in faceless",
        "broken": "this is no image",
        "unlucky": many["unlucky"].reason,
    }
    assert "finite" in many["unlucky"].reason
    assert sorted(path.name for path in (tmp_path / "many").iterdir()) == [
        "ada.safetensors", "bob.safetensors", "previews", "report.jsonl",
    ]  # fmt: skip
    drawn = sorted(path.name for path in (tmp_path / "many" / "previews" / "ada").glob("*.png"))
    assert drawn == ["000000.png", "000002.png", "000003.png"]
    shown, _ = read_sidecar(tmp_path / "many" / "previews" / "ada" / "000002.png")
    assert (shown.kind, shown.weights, len(shown.inputs)) == (Kind.COMPOSITE, {"tiny": "0" * 64}, 3)
    assert shown.notes == f"ada after 2 fine-tuning steps, next to the source images; {NOT_RECORDED}"
    assert read_report(tmp_path / "many") == many
    loaded = load_avatar(tmp_path / "many" / "ada.safetensors")
    assert loaded.notes["steps"] == 3
    assert loaded.landmarks is not None
    assert loaded.landmarks.shape == (3, 68, 2)
    assert len(loaded.provenance.inputs) == 3


def test_a_callback_hears_of_every_chunk_and_may_end_the_fine_tuning(tmp_path: Path) -> None:
    heard: list[tuple[int, int, int]] = []

    def on_chunk(step: int, steps: int, losses: np.ndarray) -> bool:
        heard.append((step, steps, len(losses)))
        return len(heard) == 3

    done = enroll(
        meta(), people("ada", "bob"), Saving(tmp_path), finetuning=HOW, report=Report(tmp_path), on_chunk=on_chunk
    )
    assert [(outcome.name, outcome.steps) for outcome in done] == [("ada", 3), ("bob", 2)]
    assert heard == [(2, 3, 2), (3, 3, 3), (2, 3, 2)]


def test_each_person_is_bound_to_their_own_consent(tmp_path: Path) -> None:
    """From record to avatar; an extra image fails only that person, a missing record is stated, and revocation is noticed."""
    for name in ("ada", "eve"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.jpg").write_bytes(name.encode())
        made = make_consent(tmp_path / name, subject=name, basis=Basis.SELF, expires="2099-01-01T00:00:00+00:00")
        write_consent(tmp_path / f"{name}.consent.json", made)
    (tmp_path / "eve" / "1.jpg").write_bytes(b"another person")
    asked = [PersonRequest(n, tmp_path / n, consent=tmp_path / f"{n}.consent.json") for n in ("ada", "eve")]
    asked.append(PersonRequest("bob", Path("bob")))
    saving = Saving(tmp_path / "out")
    done = {o.name: o for o in enroll(meta(), asked, saving, finetuning=None, report=Report(tmp_path / "out"))}
    assert (done["ada"].status, done["bob"].status, done["eve"].status) == ("finished", "finished", "failed")
    assert "1 of 2 files in" in done["eve"].reason
    assert not saving.avatar("eve").exists()
    ada, bob = (load_avatar(saving.avatar(name), meta=meta()) for name in ("ada", "bob"))
    record = read_consent(tmp_path / "ada.consent.json")
    assert ada.notes["consent"] == {"basis": "self", "expires": record.expires}
    assert (ada.provenance.consent, ada.provenance.notes) == (record.digest, "")
    assert (bob.notes["consent"], bob.provenance.consent, bob.provenance.notes) == (None, None, NOT_RECORDED)
    assert unfinished(asked, saving) == [asked[1]]
    for other in (asked[0]._replace(consent=None), asked[2]._replace(consent=asked[0].consent)):
        with pytest.raises(EnrollmentError, match="another consent record"):
            unfinished([other], saving)
    facts = ConsentFacts.of(record)
    shots = read_shots(Path("ada"), size=16).shots
    signed = (Ingredient(role=Role.SHOT, file="a" * 64),)
    start = enrolling._start(meta(), shots)
    drawn = write_preview(tmp_path, "ada", 0, meta(), start, shots, consent=facts, ingredients=signed)
    assert (read_sidecar(drawn)[0].consent, read_sidecar(drawn)[0].ingredients) == (record.digest, signed)
    revoke_consent(tmp_path / "ada.consent.json")
    assert unfinished([asked[0]], saving) == []
    again = list(enroll(meta(), [asked[0]], Saving(tmp_path / "new"), finetuning=None, report=Report(tmp_path / "new")))
    assert [(o.status, o.reason.split(" on ")[0]) for o in again] == [("failed", "this consent was revoked")]


def test_stopping_keeps_finished_avatars(tmp_path: Path) -> None:
    report = Report(tmp_path)
    everyone = enroll(
        meta(),
        people("ada", "bob", "eve"),
        Saving(tmp_path),
        finetuning=HOW,
        report=report,
        stop=lambda: bool(report.outcomes),
    )
    assert next(everyone).name == "ada"
    with pytest.raises(Interrupted):
        next(everyone)
    assert [outcome.name for outcome in report.outcomes] == ["ada"]
    assert (tmp_path / "ada.safetensors").exists()
    assert not (tmp_path / "eve.safetensors").exists()


def test_feed_forward_avatars_are_small_and_compact_ones_close(tmp_path: Path) -> None:
    fast = make(tmp_path / "fast", "ada", finetuning=None)["ada"]
    assert (fast.status, fast.steps) == ("finished", 0)
    assert load_avatar(tmp_path / "fast" / "ada.safetensors", meta=meta()).kind == "feed_forward"
    assert (tmp_path / "fast" / "ada.safetensors").stat().st_size < 100_000
    small = make(tmp_path / "small", "ada", compact="float16")["ada"]
    assert (small.status, small.steps) == ("finished", 3)
    assert [path.name for path in (tmp_path / "small").glob("*.safetensors")] == ["ada.safetensors"]
    loaded = load_avatar(tmp_path / "small" / "ada.safetensors", meta=meta())
    assert (loaded.kind, loaded.notes["compaction"]["bits"]) == ("compact", "float16")
    assert 0 < loaded.notes["compaction"]["loss"] < 0.1


def test_avatars_follow_the_gaze_if_the_weights_learned_to(tmp_path: Path) -> None:
    """Pupils are found in the shots of weights that were trained with pupils, and then in a driver's frames."""
    with_pupils = dataclasses.replace(
        meta(), description={"name": "tiny", "config": {"episodes": {"drop_pupils": 0.15}}}
    )
    made = make(tmp_path / "gaze", "ada", finetuning=None, weights=with_pupils)["ada"]
    loaded = load_avatar(Path(made.avatar), meta=with_pupils)
    assert loaded.landmarks is not None
    assert loaded.landmarks.shape == (3, 70, 2)
    assert wants_pupils(loaded, None)
    for other in ({"drop_pupils": 0.0}, {}, [], {"drop_pupils": "0.1"}):
        assert not dataclasses.replace(meta(), description={"name": "tiny", "config": {"episodes": other}}).pupils
    assert not meta().pupils


def test_manifests_of_the_shots_go_into_the_avatar(tmp_path: Path) -> None:
    shots = tmp_path / "eve"
    shots.mkdir()
    frame = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    write_image(shots / "0.png", frame, provenance=Provenance(kind=Kind.GENERATED))
    write_image(shots / "1.png", frame, provenance=Provenance(kind=Kind.REAL_CROP))
    asked = [PersonRequest("eve", shots)]
    assert [o.status for o in enroll(meta(), asked, Saving(tmp_path), finetuning=None, report=Report(tmp_path))] == [
        "finished"
    ]
    (kept,) = load_avatar(tmp_path / "eve.safetensors", meta=meta()).provenance.ingredients
    assert (kept.role, kept.file) == (Role.SHOT, hashlib.sha256((shots / "0.png").read_bytes()).hexdigest())
    assert kept.archive is not None


@pytest.mark.parametrize(
    "finetuning", [None, pytest.param(HOW, marks=pytest.mark.slow)], ids=["feed_forward", "fine_tuned"]
)
def test_memory_does_not_grow_with_the_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finetuning: Finetuning | None
) -> None:
    """Images are read one person ahead at most, and released when the avatar is written."""
    reader: list[Any] = []
    split: list[Any] = []
    original = enrolling._Reader

    class Watched(original):  # type: ignore[misc, valid-type]
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            reader.append(self)

        def _split(self, shots: Any) -> Any:
            split.append(weakref.ref(shots.frames))
            return super()._split(shots)

    monkeypatch.setattr(enrolling, "_Reader", Watched)
    most = alive = 0
    for number, _ in enumerate(
        enroll(meta(), people(*"abcdefgh"), Saving(tmp_path), finetuning=finetuning, report=Report(tmp_path))
    ):
        gc.collect()
        most = max(most, len(reader[0].read))
        alive = max(alive, sum(frames() is not None for frames in split))
        assert len(split) == number + 1, "no person is read before there is room"
    assert (number, most) == (7, 0)
    assert alive <= 1


def test_waiting_people_share_the_meta_generator() -> None:
    """Many people may wait in a round: a starting avatar is as large as its AdaIN parameters."""
    shots = read_shots(Path("ada"), size=16).shots
    start = enrolling._start(meta(), shots)
    whole = meta().weights.synthesis.params["generator"]
    assert all(a is b for a, b in zip(jax.tree.leaves(start.generator_params), jax.tree.leaves(whole), strict=True))
    assert np.abs(np.asarray(start.adain)).max() > 0


def test_missing_face_models_are_found_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not reported as the people's failure; hand-marked landmarks need no models."""

    def missing() -> None:
        raise FileNotFoundError("dlib's models are not installed")

    monkeypatch.setattr(enrolling, "check_face_models", missing)
    with pytest.raises(FileNotFoundError, match="not installed"):
        make(tmp_path, "ada", "bob", finetuning=None)
    assert not list(tmp_path.glob("*"))
    marked = [PersonRequest("mona", Path("mona"), landmarks=Path("mona.txt"))]
    (done,) = enroll(meta(), marked, Saving(tmp_path), finetuning=None, report=Report(tmp_path))
    assert done.status == "finished"
