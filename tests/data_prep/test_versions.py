"""A changed output needs a raised version; nothing else does, and begun work of another version is not continued."""

import json

import cv2
import numpy as np
import pytest

from data_prep.build import preparation
from data_prep.build.prepare_video import PREPARATION_VERSION, Settings
from data_prep.build.staging import open_staging
from data_prep.heads import pool, records
from data_prep.heads.people import Style
from data_prep.heads.records import RENDER_VERSION, HeadSettings
from tests.data_prep.golden_outputs import FILE, differences, prepared, rendered, summarize
from th_jax.data.schema import VideoRecord

STORE = "store the new output with `python -m tests.data_prep.golden_outputs`"
WHERE = {
    "preparation": "PREPARATION_VERSION in data_prep/build/prepare_video.py",
    "heads": "RENDER_VERSION in data_prep/heads/records.py",
}
VERSIONS = {"preparation": PREPARATION_VERSION, "heads": RENDER_VERSION}


@pytest.fixture(scope="module")
def golden() -> dict:
    return json.loads(FILE.read_text())


@pytest.fixture(scope="module")
def outputs() -> dict[str, dict[str, VideoRecord]]:
    return {"preparation": prepared(), "heads": rendered()}


@pytest.mark.parametrize("kind", WHERE)
def test_outputs_are_those_of_the_version(kind, golden, outputs):
    assert golden[kind]["version"] == VERSIONS[kind], f"{WHERE[kind]} was raised: {STORE}"
    stored = golden[kind]["outputs"]
    assert stored.keys() == outputs[kind].keys()
    for name, record in outputs[kind].items():
        different = differences(summarize(record), stored[name])
        assert not different, (
            f"{kind}, {name}: {', '.join(different)} changed; if the change is intended, raise {WHERE[kind]} and {STORE}"
        )


def darker(record: VideoRecord) -> VideoRecord:
    images = [cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR) for jpeg in record.frames]
    return record._replace(frames=tuple(cv2.imencode(".jpg", image // 8 * 7)[1].tobytes() for image in images))


@pytest.mark.parametrize(
    "change",
    [
        darker,
        lambda record: record._replace(frames=tuple(jpeg + bytes(len(jpeg) // 16) for jpeg in record.frames)),
        lambda record: record._replace(landmarks=record.landmarks + np.float32(0.01)),
        lambda record: record._replace(landmarks=np.where(record.landmarks > 0.55, np.nan, record.landmarks)),
        lambda record: record._replace(crops=record.crops + np.float32(3)),
        lambda record: record._replace(times=np.nan_to_num(record.times) + np.float32(0.1)),
        lambda record: record._replace(**{f: getattr(record, f)[:0] for f in ("times", "clips", "crops")}),
    ],
)
def test_the_comparison_sees_small_changes(change, golden, outputs):
    for kind, made in outputs.items():
        for name, record in made.items():
            assert differences(summarize(change(record)), golden[kind]["outputs"][name]), (kind, name)


def test_videos_of_another_version_are_not_continued(tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "PREPARATION_VERSION", PREPARATION_VERSION - 1)
    with open_staging(tmp_path / "staging", preparation.describe_preparation(Settings())):
        pass
    monkeypatch.undo()
    current = preparation.describe_preparation(Settings())
    with (
        pytest.raises(ValueError, match=r"another version .*preparation_version 0; .*delete that folder"),
        open_staging(tmp_path / "staging", current),
    ):
        pass
    earlier = {name: value for name, value in current.items() if name != "preparation_version"} | {"code": "0f"}
    (tmp_path / "staging" / "settings.json").write_text(json.dumps(earlier))
    with pytest.raises(ValueError, match=r"another version .*unknown"), open_staging(tmp_path / "staging", current):
        pass


def test_people_of_another_version_are_rendered_again(tmp_path, monkeypatch):
    settings = HeadSettings(frames=1, size=64, render_size=192)
    places = set()
    for version in (RENDER_VERSION, RENDER_VERSION + 1):
        monkeypatch.setattr(pool, "RENDER_VERSION", version)
        pool._fingerprint.cache_clear()
        places.add(pool.head_file(tmp_path, 1, settings).path)
    monkeypatch.undo()
    pool._fingerprint.cache_clear()
    assert len(places) == 2


def test_the_last_digits_of_a_parameter_do_not_count(monkeypatch):
    """Processors disagree about them; every other change makes another person."""
    before, who = records.source_sha256(7, style=Style.PHOTO), records.sitter(7)

    def changed(factor):
        def scale(value):
            if isinstance(value, tuple | list):
                return [scale(item) for item in value]
            return value * factor if isinstance(value, float) else value

        monkeypatch.setattr(records, "sitter", lambda _: who._replace(photo=scale(who.photo)))
        return records.source_sha256(7, style=Style.PHOTO)

    assert changed(1 + 1e-15) == before
    assert changed(1 + 1e-6) != before
