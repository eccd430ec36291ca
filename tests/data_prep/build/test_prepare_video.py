"""One video or one person's photos to one record: what is kept, what is dropped, and that the landmarks are true."""

import hashlib
import shutil
from pathlib import Path

import av
import cv2
import numpy as np

from data_prep.build.prepare_video import Settings, prepare_video
from data_prep.build.quality import Reason, Thresholds
from data_prep.build.sources import Layout, list_source
from tests.data_prep.clips_of_people import FPS, SIZE, talk, write_frames, write_photos, write_talk
from th_jax.data.schema import validate
from th_jax.media import read_image

SHORT = Settings(size=128, frames=6, gap=0.3, licence="CC0-1.0", thresholds=Thresholds(frames=3))
PORTRAIT = Path(__file__).parents[3] / "th_jax" / "assets" / "portrait" / "astronaut.jpg"


def prepared(folder, settings=SHORT, layout=Layout.AUTO):
    (video,) = list_source(folder, layout).videos
    result = prepare_video(folder, video, settings)
    if result.record is not None:
        validate(result.record)
    return result.record, result.drops


def why(drops):
    return [(drop.level, drop.reason) for drop in drops]


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_clips_of_a_video_are_pooled_and_taken_whole(tmp_path):
    one = write_talk(tmp_path / "id10001" / "aaa" / "00001.mp4", 1, take=1)
    two = write_talk(tmp_path / "id10001" / "aaa" / "00002.mp4", 1, take=2)
    record, drops = prepared(tmp_path)
    assert (record.video_id, record.identity, record.licence) == ("id10001/aaa", "id10001", "CC0-1.0")
    assert not drops
    assert record.clips.tolist() == [0, 0, 0, 1, 1, 1]
    assert (record.crops == [0, 0, SIZE]).all()
    assert record.source_sha256 == hashlib.sha256((sha256(one) + sha256(two)).encode()).hexdigest()
    for clip in (0, 1):
        assert (np.diff(record.times[record.clips == clip]) >= 0.3 - 1e-6).all()
    for jpeg, points, clip, time in zip(record.frames, record.landmarks, record.clips, record.times, strict=True):
        truth = talk(1, take=clip + 1)
        index = round(float(time) * FPS)
        image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
        wanted = cv2.resize(truth.frames[index], (128, 128), interpolation=cv2.INTER_AREA)
        assert np.abs(image.astype(float) - wanted).mean() < 4, "it is the frame of that time"
        assert np.linalg.norm(points[27:] - truth.landmarks[index, 27:68], axis=-1).mean() < 0.02


def test_a_head_in_a_wide_frame_is_cropped_by_one_square(tmp_path):
    """The same person twice as far away as the frame is wide: the crop must find the head and keep the landmarks."""
    clip = talk(3).frames
    wide = np.full((len(clip), 300, 480, 3), 90, np.uint8)
    wide[:, 100 : 100 + SIZE, 250 : 250 + SIZE] = clip
    path = write_frames(tmp_path / "ada" / "a.mp4", wide)
    record, drops = prepared(tmp_path)
    assert not drops
    assert (record.video_id, record.identity, record.source_sha256) == ("ada/a.mp4", "ada", sha256(path))
    assert len({tuple(crop) for crop in record.crops.tolist()}) == 1
    left, top, side = record.crops[0]
    assert 240 <= left < left + side <= 260 + SIZE
    assert 90 <= top < top + side <= 110 + SIZE
    for points, time in zip(record.landmarks, record.times, strict=True):
        true = talk(3).landmarks[round(float(time) * FPS), 27:68] * SIZE + (250, 100)
        assert np.linalg.norm(points[27:] * side + (left, top) - true, axis=-1).mean() / side < 0.02


def test_another_person_in_the_video_is_left_out(tmp_path):
    portrait = cv2.resize(read_image(PORTRAIT), (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    write_frames(tmp_path / "ada.mp4", np.concatenate([talk(3).frames, np.repeat(portrait[None], 4, axis=0)]))
    record, drops = prepared(tmp_path)
    assert record.times.max() < 1.6
    assert why(drops) == [("segment", Reason.OTHER_PERSON)]
    assert drops[0].time >= 1.6
    assert drops[0].numbers["distance"] > 0.6


def test_a_segment_that_begins_among_several_faces_is_left_out(tmp_path):
    write_frames(tmp_path / "two.mp4", np.concatenate([talk(3).frames, talk(1).frames], axis=2))
    record, drops = prepared(tmp_path)
    assert record is None
    assert ("segment", Reason.SEVERAL_FACES) in why(drops)
    assert why(drops)[-1] == ("video", Reason.SEVERAL_FACES)


def test_a_small_person_in_the_background_is_no_rival(tmp_path):
    wide = np.full((len(talk(3).frames), 320, 480, 3), 90, np.uint8)
    for frame, near, far in zip(wide, talk(3).frames, talk(1).frames, strict=True):
        frame[:, :320] = cv2.resize(near, (320, 320), interpolation=cv2.INTER_CUBIC)
        frame[:SIZE, 320:] = far
    write_frames(tmp_path / "two.mp4", wide)
    record, _ = prepared(tmp_path)
    assert len(record.frames) == 4
    for points, crop, time in zip(record.landmarks, record.crops, record.times, strict=True):
        true = talk(3).landmarks[round(float(time) * FPS), 30] * 320
        assert np.linalg.norm(points[30] * crop[2] + crop[:2] - true) < 12


def test_a_still_is_one_frame_and_too_short(tmp_path):
    write_frames(tmp_path / "still.mp4", np.repeat(talk(3).frames[:1], 16, axis=0))
    record, drops = prepared(tmp_path)
    assert record is None
    assert {drop.reason for drop in drops[:-1]} == {Reason.DUPLICATE_FRAME}
    assert drops[-1].reason is Reason.TOO_SHORT
    assert drops[-1].numbers == {"frames": 1.0, "needed": 3.0}


def test_a_head_cut_by_the_frame_is_left_out(tmp_path):
    write_frames(tmp_path / "cut.mp4", talk(3).frames[:, :, : SIZE // 2 + 8])
    record, drops = prepared(tmp_path)
    assert record is None
    assert {drop.reason for drop in drops} <= {Reason.OUT_OF_FRAME, Reason.NO_FACE, Reason.LANDMARK_JUMP}


def test_a_bad_clip_does_not_cost_the_video(tmp_path):
    folder = tmp_path / "id10001" / "aaa"
    write_talk(folder / "00002.mp4", 1)
    (folder / "00001.mp4").write_bytes(b"")
    record, drops = prepared(tmp_path)
    assert (record.clips == 1).all()
    assert record.source_sha256 == sha256(folder / "00002.mp4")
    (drop,) = drops
    assert drop.line() == (
        '{"level": "clip", "video_id": "id10001/aaa", "path": "id10001/aaa/00001.mp4", '
        '"reason": "undecodable", "detail": "it is empty (0 bytes)"}'
    )


def write_with_keyframes(path: Path, frames: np.ndarray, *, every: int) -> None:
    path.parent.mkdir(parents=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=int(FPS))
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuv420p"
        stream.options = {"g": str(every), "crf": "10", "bf": "0", "x264-params": "scenecut=0"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def test_a_damaged_video_is_used_but_for_what_the_damage_reaches(tmp_path):
    """What a decoder shows after damage still has a face, but is half made up of guesses."""
    path = tmp_path / "id10001" / "aaa" / "00001.mp4"
    write_with_keyframes(path, talk(1).frames, every=4)
    with av.open(str(path)) as container:
        start, size = [(packet.pos, packet.size) for packet in container.demux(video=0)][5]
    content = bytearray(path.read_bytes())
    content[start + size // 3 : start + size] = bytes(size - size // 3)
    path.write_bytes(content)
    record, drops = prepared(tmp_path, SHORT._replace(frames=16, gap=0.05, thresholds=Thresholds(frames=1)))
    (drop,) = [drop for drop in drops if drop.reason is not Reason.DUPLICATE_FRAME]
    assert (drop.level, drop.reason, drop.numbers) == ("segment", Reason.UNDECODABLE, {"frames": 3.0})
    assert drop.detail == "damaged frames, and those after them up to a keyframe, are left out"
    used = {round(float(time) * FPS) for time in record.times}
    assert not used & {5, 6, 7}
    assert min(used) < 5
    assert max(used) > 7
    for jpeg, time in zip(record.frames, record.times, strict=True):
        image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
        wanted = cv2.resize(talk(1).frames[round(float(time) * FPS)], (128, 128), interpolation=cv2.INTER_AREA)
        assert np.abs(image.astype(float) - wanted).mean() < 4


def test_photos_of_a_person(tmp_path):
    folder = write_photos(tmp_path / "ada", 3)
    shutil.copyfile(PORTRAIT, folder / "4.jpg")
    (folder / "5.jpg").write_text("no image")
    record, drops = prepared(tmp_path)
    assert (record.video_id, record.identity, record.minimum_gap) == ("ada", "ada", 0.0)
    assert len(record.frames) == 4
    assert np.isnan(record.times).all()
    assert record.clips.tolist() == [0, 1, 2, 3]
    assert len({tuple(crop) for crop in record.crops.tolist()}) == 4, "a square for each photo"
    left, top, side = record.crops[3]
    nose = record.landmarks[3, 30] * side + (left, top)
    assert np.linalg.norm(nose - (129, 128)) < 3, "the tip of the nose in the portrait"
    assert why(drops) == [("clip", Reason.UNDECODABLE)]


def test_pupils_follow_the_points_if_they_are_asked_for(tmp_path):
    write_talk(tmp_path / "id10001" / "aaa" / "00001.mp4", 3)
    plain, _ = prepared(tmp_path)
    record, _ = prepared(tmp_path, SHORT._replace(pupils=True))
    assert record.frames == plain.frames
    assert record.landmarks.shape == (len(plain.frames), 70, 2)
    assert (record.landmarks[:, :68] == plain.landmarks).all()
    found = np.isfinite(record.landmarks[:, 68:]).all(-1)
    assert found.any()
    truth = talk(3).landmarks[np.round(record.times * FPS).astype(int), 68:]
    eye = np.linalg.norm(record.landmarks[:, 36] - record.landmarks[:, 39], axis=-1).mean()
    error = np.linalg.norm(record.landmarks[:, 68:] - truth, axis=-1)[found]
    assert error.mean() < 0.2 * eye
