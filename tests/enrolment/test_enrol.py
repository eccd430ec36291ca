"""People to avatars on disk: one alone is as one of many, failures stay with whom they concern, nothing finished is lost."""

import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from th_jax.avatars import load_avatar
from th_jax.consent import NOT_RECORDED, Basis, make_consent, read_consent, revoke_consent, write_consent
from th_jax.enrolment import enrol as enrolling
from th_jax.enrolment.enrol import EnrolmentError, Finetuning, Interrupted, Saving, enrol, request_digest, unfinished
from th_jax.enrolment.report import Outcome, Report, read_report
from th_jax.enrolment.requests import PersonRequest
from th_jax.losses import LossWeights
from th_jax.media import MediaError, MediaFault
from th_jax.models.networks import Networks
from th_jax.pretrained import MetaModel
from th_jax.training.optimizers import AdamSettings, Optimizers
from th_jax.types import Shots

HOW = Finetuning(
    epochs=3,
    loss_weights=LossWeights({}, pixel=1.0),
    optimizers=Optimizers(AdamSettings(1e-3), AdamSettings(1e-3)),
    chunk_steps=2,
)


@functools.cache
def meta() -> MetaModel:
    networks = Networks(image_size=16, base_width=4)
    return MetaModel(
        networks=networks,
        weights=networks.init(jax.random.key(0)),
        perceptual={},
        description={"name": "tiny"},
        digest="0" * 64,
    )


@pytest.fixture(autouse=True)
def pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pictures of a person are noise of their own; there are people whose pictures cannot be used."""

    def read(path: Path, *, size: int, shots: int | None, landmarks: Path | None) -> Any:
        if path.name == "faceless":
            raise ValueError(f"no face was found in {path}")
        if path.name == "broken":
            raise MediaError(MediaFault.UNDECODABLE, "this is no picture")
        rng = np.random.default_rng(list(path.name.encode()))
        points = rng.uniform(0.2, 0.8, (8, 68, 2)).astype(np.float32)
        frames = rng.integers(0, 256, (8, size, size, 3), dtype=np.uint8)
        if path.name == "unlucky":
            points[:] = np.inf
        mask = (np.arange(8) < (shots or 3)).astype(np.float32)
        return type("Read", (), {"shots": Shots(frames, points, mask)})

    monkeypatch.setattr(enrolling, "inspect_shots", read)


def people(*names: str) -> list[PersonRequest]:
    return [PersonRequest(name, Path(name)) for name in names]


def make(folder: Path, *names: str, how: Finetuning | None = HOW, **settings: Any) -> dict[str, Outcome]:
    saving = Saving(folder, **settings)
    done = enrol(meta(), people(*names), saving, how=how, report=Report(folder))
    return {outcome.name: outcome for outcome in done}


def test_one_alone_is_as_one_of_many_and_failures_are_their_own(tmp_path: Path) -> None:
    many = make(tmp_path / "many", "faceless", "ada", "broken", "bob", "unlucky", preview=True)
    alone = make(tmp_path / "alone", "bob")
    assert many["bob"].digest == alone["bob"].digest
    assert (many["ada"].status, many["ada"].steps, many["ada"].shots) == ("finished", 3, 3)
    assert {name: outcome.reason for name, outcome in many.items() if outcome.status == "failed"} == {
        "faceless": "no face was found in faceless",
        "broken": "this is no picture",
        "unlucky": many["unlucky"].reason,
    }
    assert "finite" in many["unlucky"].reason
    assert sorted(path.name for path in (tmp_path / "many").iterdir()) == [
        "ada.safetensors", "bob.safetensors", "previews", "report.jsonl",
    ]  # fmt: skip
    drawn = sorted(path.name for path in (tmp_path / "many" / "previews" / "ada").glob("*.png"))
    assert drawn == ["000000.png", "000002.png", "000003.png"]
    assert read_report(tmp_path / "many") == many
    loaded = load_avatar(tmp_path / "many" / "ada.safetensors")
    assert loaded.notes["steps"] == 3
    assert loaded.landmarks is not None
    assert loaded.landmarks.shape == (3, 68, 2)
    assert len(loaded.provenance.inputs) == 3


def test_what_is_finished_is_skipped_and_what_is_other_is_refused(tmp_path: Path) -> None:
    notes = {"request": request_digest(meta(), {"epochs": 3})}
    saving = Saving(tmp_path, notes=notes)
    make(tmp_path, "ada", notes=notes, how=None)
    assert unfinished(people("ada", "bob"), saving) == people("bob")
    other = Saving(tmp_path, notes={"request": request_digest(meta(), {"epochs": 4})})
    with pytest.raises(EnrolmentError, match=r"ada.safetensors was made with other meta weights or settings"):
        unfinished(people("ada"), other)
    (tmp_path / "bob.safetensors").write_bytes(b"not tensors")
    with pytest.raises(EnrolmentError, match=r"bob.safetensors is no readable safetensors file.*choose another folder"):
        unfinished(people("bob"), saving)


def test_each_is_bound_to_their_own_consent(tmp_path: Path) -> None:
    """Record to avatar, a picture too many is that person's failure, no record is said, and a change of mind is noticed."""
    for name in ("ada", "eve"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.jpg").write_bytes(name.encode())
        made = make_consent(tmp_path / name, subject=name, basis=Basis.SELF, expires="2099-01-01T00:00:00+00:00")
        write_consent(tmp_path / f"{name}.consent.json", made)
    (tmp_path / "eve" / "1.jpg").write_bytes(b"somebody else")
    asked = [PersonRequest(n, tmp_path / n, consent=tmp_path / f"{n}.consent.json") for n in ("ada", "eve")]
    asked.append(PersonRequest("bob", Path("bob")))
    saving = Saving(tmp_path / "out")
    done = {o.name: o for o in enrol(meta(), asked, saving, how=None, report=Report(tmp_path / "out"))}
    assert (done["ada"].status, done["bob"].status, done["eve"].status) == ("finished", "finished", "failed")
    assert "1 of 2 files of" in done["eve"].reason
    assert not saving.avatar("eve").exists()
    ada, bob = (load_avatar(saving.avatar(name), meta=meta()) for name in ("ada", "bob"))
    record = read_consent(tmp_path / "ada.consent.json")
    assert ada.notes["consent"] == {"digest": record.digest, "basis": "self", "expires": record.expires}
    assert (ada.provenance.consent, ada.provenance.notes) == (record.digest, "")
    assert (bob.notes["consent"], bob.provenance.consent, bob.provenance.notes) == (None, None, NOT_RECORDED)
    assert unfinished(asked, saving) == [asked[1]]
    for other in (asked[0]._replace(consent=None), asked[2]._replace(consent=asked[0].consent)):
        with pytest.raises(EnrolmentError, match=r"was made with another consent record, or with none: remove it"):
            unfinished([other], saving)
    revoke_consent(tmp_path / "ada.consent.json")
    assert unfinished([asked[0]], saving) == []
    again = list(enrol(meta(), [asked[0]], Saving(tmp_path / "new"), how=None, report=Report(tmp_path / "new")))
    assert [(o.status, o.reason.split(" on ")[0]) for o in again] == [("failed", "this consent was revoked")]


def test_who_asks_to_stop_keeps_what_is_finished(tmp_path: Path) -> None:
    report = Report(tmp_path)
    everybody = enrol(
        meta(),
        people("ada", "bob", "eve"),
        Saving(tmp_path),
        how=HOW,
        report=report,
        stop=lambda: bool(report.outcomes),
    )
    assert next(everybody).name == "ada"
    with pytest.raises(Interrupted):
        next(everybody)
    assert [outcome.name for outcome in report.outcomes] == ["ada"]
    assert (tmp_path / "ada.safetensors").exists()
    assert not (tmp_path / "eve.safetensors").exists()


def test_feed_forward_avatars_are_small_and_compact_ones_close(tmp_path: Path) -> None:
    fast = make(tmp_path / "fast", "ada", how=None)["ada"]
    assert (fast.status, fast.steps) == ("finished", 0)
    assert load_avatar(tmp_path / "fast" / "ada.safetensors", meta=meta()).kind == "feed_forward"
    assert (tmp_path / "fast" / "ada.safetensors").stat().st_size < 100_000
    small = make(tmp_path / "small", "ada", compact="float16")["ada"]
    assert (small.status, small.steps) == ("finished", 3)
    assert [path.name for path in (tmp_path / "small").glob("*.safetensors")] == ["ada.safetensors"]
    loaded = load_avatar(tmp_path / "small" / "ada.safetensors", meta=meta())
    assert (loaded.kind, loaded.notes["compaction"]["bits"]) == ("compact", "float16")
    assert 0 < loaded.notes["compaction"]["loss"] < 0.1


def test_memory_does_not_grow_with_the_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's pictures are read more than one person ahead, and nobody's are kept when the avatar is written."""
    reader: list[Any] = []
    original = enrolling._Reader

    class Watched(original):  # type: ignore[misc, valid-type]
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            reader.append(self)

    monkeypatch.setattr(enrolling, "_Reader", Watched)
    most = 0
    for _ in enrol(meta(), people(*"abcdefgh"), Saving(tmp_path), how=None, report=Report(tmp_path)):
        most = max(most, len(reader[0].read))
    assert most == 0
