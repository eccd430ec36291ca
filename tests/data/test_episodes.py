"""Episodes depend only on seed and global step, cover all videos in an epoch, and never show the target as a source."""

import numpy as np
import pytest

from th_jax.data import episodes as images
from th_jax.data.episodes import Episodes, decode_frame
from th_jax.data.records import VideoRecords
from th_jax.data.tfrecord import DamagedRecord
from th_jax.data.video_list import load_video_list, save_video_list
from th_jax.landmarks.scheme import mirror_landmarks

VIDEOS = 11
SMALL = {"image_size": 16, "batch_size": 4, "sources": 3, "seed": 7}


@pytest.fixture
def records(data_set) -> VideoRecords:
    return VideoRecords(data_set)


def assert_equal(a, b) -> None:
    for name, x, y in zip(a._fields, a, b, strict=True):
        assert x.dtype == y.dtype, name
        np.testing.assert_array_equal(x, y, err_msg=name)


def test_shapes_and_types(records):
    batch = Episodes(records, **SMALL).batch(0)
    assert {name: (x.shape, x.dtype.name) for name, x in batch._asdict().items()} == {
        "source_frames": ((4, 3, 16, 16, 3), "uint8"),
        "source_landmarks": ((4, 3, 70, 2), "float32"),
        "target_frame": ((4, 16, 16, 3), "uint8"),
        "target_landmarks": ((4, 70, 2), "float32"),
        "video_index": ((4,), "int32"),
    }


def test_an_episode_is_different_frames_of_one_video_with_their_landmarks(records, make_record):
    episodes = Episodes(records, **SMALL | {"image_size": 24})
    targets = set()
    for step in range(30):
        batch = episodes.batch(step)
        for b, video_index in enumerate(batch.video_index):
            record = make_record(int(video_index))
            decoded = [decode_frame(jpeg, size=24) for jpeg in record.frames]
            pairs = [(batch.target_frame[b], batch.target_landmarks[b])]
            pairs += list(zip(batch.source_frames[b], batch.source_landmarks[b], strict=True))
            chosen = []
            for frame, landmarks in pairs:
                (number,) = [n for n, image in enumerate(decoded) if np.array_equal(image, frame)]
                np.testing.assert_array_equal(record.landmarks[number], landmarks)
                chosen.append(number)
            assert len(set(chosen)) == 4, "the target is never among the sources"
            targets.add(chosen[0])
    assert targets == set(range(5)), "every frame is a target once"


def test_only_the_frames_of_the_episode_are_decoded(records, monkeypatch):
    decoded = []
    real = images.cv2.imdecode
    monkeypatch.setattr(images.cv2, "imdecode", lambda *arguments: decoded.append(1) or real(*arguments))
    Episodes(records, **SMALL).batch(0)
    assert len(decoded) == 4 * (3 + 1)


def test_an_epoch_is_one_episode_of_each_video_in_a_new_order(records):
    episodes = Episodes(records, **SMALL)
    assert episodes.episodes_per_epoch == VIDEOS
    # 4 does not divide 11: batches reach over the ends of epochs, and nothing is lost.
    stream = np.concatenate([episodes.batch(step).video_index for step in range(VIDEOS)])
    epochs = stream.reshape(4, VIDEOS)
    np.testing.assert_array_equal(np.sort(epochs, 1), np.tile(np.arange(VIDEOS), (4, 1)))
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert list(epochs[0]) != sorted(epochs[0])


def test_another_seed_is_another_order_and_other_frames(records):
    streams = {
        seed: np.concatenate([Episodes(records, **SMALL | {"seed": seed}).batch(s).video_index for s in range(VIDEOS)])
        for seed in (0, 1, 2)
    }
    assert len({tuple(stream) for stream in streams.values()}) == 3
    # Neighbouring seeds share no epoch, as they would if epoch and seed were added.
    assert set(map(tuple, streams[0].reshape(4, -1))).isdisjoint(map(tuple, streams[1].reshape(4, -1)))


def test_another_seed_chooses_other_frames_of_the_same_video(make_data_set, make_record):
    records = VideoRecords(make_data_set({"train": [make_record(0)]}))
    targets = [
        Episodes(records, **SMALL | {"seed": seed, "batch_size": 16}).batch(0).target_landmarks for seed in (0, 1)
    ]
    same = (targets[0] == targets[1]).all((1, 2))
    assert same.mean() < 0.7, "one in five by chance"


def test_resuming_at_any_step_is_bit_equal(records):
    settings = SMALL | {"flip": True, "color_jitter": 0.3, "drop_pupils": 0.5, "crop_scale": 0.2, "crop_shift": 0.1}
    through = list(Episodes(records, **settings).iterate(stop_step=120, threads=1))
    assert len(through) == 120
    for step in np.random.default_rng(0).choice(119, 50, replace=False):
        resumed = Episodes(records, **settings).iterate(start_step=int(step), threads=int(step) % 3)
        assert_equal(next(resumed), through[step])
        assert_equal(next(resumed), through[step + 1])


def test_the_order_is_the_one_of_older_runs(records):
    """Pinned: if numpy changes its random numbers, a resumed run would see another order."""
    batches = [Episodes(records, **SMALL).batch(step) for step in (0, 1000)]
    assert [batch.video_index.tolist() for batch in batches] == [[4, 6, 10, 0], [6, 7, 8, 4]]
    assert [int(batch.target_landmarks[0, 20, 0] * 1e4) for batch in batches] == [2570, 1834]


@pytest.mark.parametrize("threads", [0, 1, 2, 5])
def test_threads_change_nothing(records, threads):
    episodes = Episodes(records, **SMALL)
    for step, batch in enumerate(episodes.iterate(stop_step=12, threads=threads)):
        assert_equal(batch, episodes.batch(step))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_worker_processes_change_nothing(records, workers):
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    episodes = Episodes(records, **SMALL)
    for step, batch in enumerate(episodes.iterate(start_step=5, stop_step=12, workers=workers)):
        assert type(batch).__name__ == "EpisodeBatch"
        assert_equal(batch, episodes.batch(5 + step))


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_hosts_together_see_the_batch_of_one(records, hosts):
    one = Episodes(records, **SMALL)
    several = [Episodes(records, **SMALL, process_index=host, process_count=hosts) for host in range(hosts)]
    seen = []
    for step in range(VIDEOS):
        parts = [episodes.batch(step) for episodes in several]
        assert {len(part.video_index) for part in parts} == {4 // hosts}
        whole = type(parts[0])(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
        assert_equal(whole, one.batch(step))
        seen += whole.video_index.tolist()
    # Disjoint and complete: each epoch of 11 episodes has each video once, whichever host read it.
    for start in range(0, len(seen), VIDEOS):
        assert sorted(seen[start : start + VIDEOS]) == list(range(VIDEOS))


def test_another_number_of_hosts_resumes(records):
    before = [Episodes(records, **SMALL, process_index=h, process_count=4).batch(9) for h in range(4)]
    after = [next(Episodes(records, **SMALL, process_index=h, process_count=2).iterate(start_step=9)) for h in range(2)]
    for name in ("source_frames", "video_index"):
        np.testing.assert_array_equal(
            *(np.concatenate([getattr(b, name) for b in batches]) for batches in (before, after))
        )


def test_flipping_mirrors_whole_episodes(records):
    plain, flipping = Episodes(records, **SMALL), Episodes(records, **SMALL, flip=True)
    mirrored = []
    for step in range(20):
        a, b = plain.batch(step), flipping.batch(step)
        np.testing.assert_array_equal(a.video_index, b.video_index)
        for slot in range(4):
            flipped = not np.array_equal(a.target_frame[slot], b.target_frame[slot])
            mirrored.append(flipped)
            frames = a.source_frames[slot][:, :, ::-1] if flipped else a.source_frames[slot]
            points = mirror_landmarks(a.source_landmarks[slot]) if flipped else a.source_landmarks[slot]
            np.testing.assert_array_equal(frames, b.source_frames[slot])
            np.testing.assert_array_equal(points, b.source_landmarks[slot])
            if flipped:
                np.testing.assert_array_equal(mirror_landmarks(a.target_landmarks[slot]), b.target_landmarks[slot])
                np.testing.assert_array_equal(a.target_frame[slot][:, ::-1], b.target_frame[slot])
    assert 0.3 < np.mean(mirrored) < 0.7


def test_jitter_changes_all_frames_of_an_episode_alike(records):
    plain, jittered = Episodes(records, **SMALL).batch(3), Episodes(records, **SMALL, color_jitter=0.4).batch(3)
    np.testing.assert_array_equal(plain.source_landmarks, jittered.source_landmarks)
    slopes = []
    for slot in range(4):
        frames = [*plain.source_frames[slot], plain.target_frame[slot]]
        changed = [*jittered.source_frames[slot], jittered.target_frame[slot]]
        assert all(not np.array_equal(x, y) for x, y in zip(frames, changed, strict=True))
        x, y = (np.concatenate([f.reshape(-1, 3) for f in many]).astype(float) for many in (frames, changed))
        inside = ((y > 2) & (y < 253)).all(1)
        matrix, residual, *_ = np.linalg.lstsq(np.c_[x, np.ones(len(x))][inside], y[inside], rcond=None)
        assert np.sqrt(residual / inside.sum()).max() < 0.5, "one affine map explains all of them but for rounding"
        slopes.append(matrix[0, 0])
    assert len(set(np.round(slopes, 3))) == 4, "episodes differ"


def test_all_frames_of_an_episode_move_alike(records):
    settings = {"crop_scale": 0.2, "crop_shift": 0.1}
    plain, moved = (Episodes(records, **SMALL, **changes).batch(3) for changes in ({}, settings))
    maps = []
    for slot in range(4):
        before, after = (
            np.concatenate([batch.source_landmarks[slot], batch.target_landmarks[slot][None]]).reshape(-1, 2)
            for batch in (plain, moved)
        )
        known = np.isfinite(before).all(1)
        scale = np.ptp(after[known, 0]) / np.ptp(before[known, 0])
        shift = (after - 0.5 - scale * (before - 0.5))[known]
        np.testing.assert_allclose(shift, np.broadcast_to(shift.mean(0), shift.shape), atol=1e-5)
        maps.append((scale, *shift.mean(0)))
        assert not np.array_equal(plain.target_frame[slot], moved.target_frame[slot])
    assert len({round(float(scale), 4) for scale, *_ in maps}) == 4, "episodes differ"
    scales, shifts = np.array(maps)[:, 0], np.array(maps)[:, 1:]
    assert ((scales >= 0.8) & (scales <= 1.2)).all()
    assert (np.abs(shifts) <= 0.1).all()


def test_pupils_are_dropped_in_the_stated_share(records):
    episodes = Episodes(records, **SMALL | {"batch_size": 50}, drop_pupils=0.3)
    source, target = episodes.batch(0).source_landmarks, episodes.batch(0).target_landmarks
    dropped = np.isnan(target[:, 68:]).all((1, 2))
    assert 8 <= dropped.sum() <= 22
    np.testing.assert_array_equal(np.isnan(source[:, :, 68:]).any((1, 2, 3)), dropped, "all frames of an episode alike")
    np.testing.assert_array_equal(
        target[:, :68], Episodes(records, **SMALL | {"batch_size": 50}).batch(0).target_landmarks[:, :68]
    )


def test_targets_are_drawn_on_another_persons_face(make_data_set, make_record):
    """Two faces that differ by a similarity: the other one's outline is mapped onto the own one."""
    rng = np.random.default_rng(0)
    shapes = rng.uniform(-1, 1, (2, 68)) + 1j * rng.uniform(-1, 1, (2, 68))
    shapes -= shapes.mean(1, keepdims=True)
    shapes /= np.abs(shapes).mean(1, keepdims=True)
    turns = 0.1 * np.exp(0.2j * rng.normal(size=5)) * rng.uniform(0.8, 1.2, 5)
    places = 0.5 + 0.5j + 0.1 * (rng.uniform(-1, 1, 5) + 1j * rng.uniform(-1, 1, 5))

    def landmarks(number: int) -> np.ndarray:
        points = shapes[number] * turns[:, None] + places[:, None]
        points = np.concatenate([points, points[:, 36:48:6]], axis=1)
        return np.stack([points.real, points.imag], -1).astype(np.float32)

    def eyes_level(shape: np.ndarray) -> np.ndarray:
        across = shape[42:48].mean() - shape[36:42].mean()
        return shape * abs(across) / across

    folder = make_data_set({"train": [make_record(n)._replace(landmarks=landmarks(n)) for n in range(2)]})
    records = VideoRecords(folder)
    plain, moved = (Episodes(records, **SMALL, other_shape=share) for share in (0.0, 1.0))
    seen = set()
    for step in range(20):
        before, after = plain.batch(step), moved.batch(step)
        assert_equal(before._replace(target_landmarks=after.target_landmarks), after)
        for b, own in enumerate(before.video_index):
            points = before.target_landmarks[b] @ (1, 1j)
            turn = (
                (points[:68] - points[:68].mean()) @ eyes_level(shapes[own]).conj() / (np.abs(shapes[own]) ** 2).sum()
            )
            on_either = [turn * eyes_level(shape)[:17] + points[:68].mean() for shape in shapes]
            drawn = after.target_landmarks[b, :17] @ (1, 1j)
            (face,) = [n for n, expected in enumerate(on_either) if np.allclose(drawn, expected, atol=1e-5)]
            seen.add((int(own), face))
    assert seen == {(0, 0), (0, 1), (1, 0), (1, 1)}
    half = [Episodes(records, **SMALL, other_shape=0.5).batch(step).target_landmarks for step in range(40)]
    whole = [moved.batch(step).target_landmarks for step in range(40)]
    redrawn = [np.array_equal(a, b) for x, y in zip(half, whole, strict=True) for a, b in zip(x, y, strict=True)]
    assert 0.5 <= np.mean(redrawn) <= 0.95, "of those that are not, half come from their own face"


def test_a_face_that_is_unknown_is_not_redrawn(make_data_set, make_record):
    half_known = [make_record(n) for n in range(2)]
    for record in half_known:
        record.landmarks[:, :17] = np.nan
    records = VideoRecords(make_data_set({"train": half_known}))
    assert_equal(*(Episodes(records, **SMALL, other_shape=share).batch(0) for share in (0.0, 1.0)))


def test_true_landmarks_are_a_choice(records, make_record):
    detected, true = Episodes(records, **SMALL).batch(0), Episodes(records, **SMALL, landmarks="true").batch(0)
    np.testing.assert_array_equal(detected.target_frame, true.target_frame)
    truth = make_record(int(true.video_index[0])).true_landmarks
    assert (truth == true.target_landmarks[0]).all((1, 2)).any()
    assert not (truth == detected.target_landmarks[0]).all((1, 2)).any()


def test_video_index_is_the_place_in_the_list(data_set):
    save_video_list(load_video_list(data_set).forget(["video0", "video4"]), data_set)
    episodes = Episodes(VideoRecords(data_set), **SMALL)
    seen = np.concatenate([episodes.batch(step).video_index for step in range(9)])
    assert sorted(set(seen.tolist())) == [1, 2, 3, 5, 6, 7, 8, 9, 10]


def test_short_videos_stop_or_are_left_out(make_data_set, make_record):
    records = VideoRecords(make_data_set({"train": [make_record(i, frames=3 + i % 2) for i in range(6)]}))
    message = "needs 4 different frames, but 3 of 6 videos have fewer .*'video0' with 3"
    with pytest.raises(ValueError, match=message):
        Episodes(records, **SMALL)
    episodes = Episodes(records, **SMALL, short_videos="leave_out")
    assert episodes.episodes_per_epoch == 3
    assert set(np.concatenate([episodes.batch(s).video_index for s in range(3)]).tolist()) == {1, 3, 5}
    with pytest.raises(ValueError, match="no video with the 5 frames"):
        Episodes(records, **SMALL | {"sources": 4}, short_videos="leave_out")


def damage(data_set, shard: int, place: int) -> None:
    path = data_set / f"test-train.tfrecord-{shard:05d}-of-00004"
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_a_damaged_record_stops_or_is_replaced(data_set):
    whole = Episodes(VideoRecords(data_set), **SMALL)
    reference = [whole.batch(step) for step in range(VIDEOS)]
    damage(data_set, 1, 300)
    with pytest.raises(DamagedRecord, match=r"record 0 of .*test-train.tfrecord-00001-of-00004 \(video 'video3'\)"):
        list(Episodes(VideoRecords(data_set), **SMALL).iterate(stop_step=3))
    records = VideoRecords(data_set, on_damage="skip")
    for step, batch in enumerate(Episodes(records, **SMALL).iterate(stop_step=VIDEOS)):
        for slot, video_index in enumerate(reference[step].video_index):
            if video_index == 3:
                assert batch.video_index[slot] != 3
            else:
                np.testing.assert_array_equal(batch.source_frames[slot], reference[step].source_frames[slot])
    assert len(records.damaged) == 1
    for shard in range(4):
        for place in range(30, (data_set / f"test-train.tfrecord-{shard:05d}-of-00004").stat().st_size, 500):
            damage(data_set, shard, place)
    with pytest.raises(DamagedRecord, match=r"all 11 videos of .* are damaged"):
        Episodes(VideoRecords(data_set, on_damage="skip"), **SMALL).batch(0)


def test_an_undecodable_frame_is_damage(make_data_set, make_record):
    broken = make_record(0)._replace(frames=(b"\xff\xd8\xff nothing \xff\xd9",) * 5)
    records = VideoRecords(make_data_set({"train": [broken]}))
    with pytest.raises(DamagedRecord, match=r"record 0 of .* \(video 'video0'\) is damaged: .*JPEG"):
        Episodes(records, **SMALL).batch(0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 32}, "image_size must be 1 to 24 px, .*got 32"),
        ({"batch_size": 0}, r"batch_size \(0\) must be a positive multiple"),
        ({"process_count": 3}, r"batch_size \(4\) .* process_count \(3\)"),
        ({"process_index": 1}, "process_index must be 0 to 0, got 1"),
        ({"sources": 0}, "sources .*got 0"),
        ({"color_jitter": 1.0}, r"color_jitter must be in \[0, 1\), got 1.0"),
        ({"crop_scale": 0.6}, r"crop_scale must be in \[0, 0.5\], got 0.6"),
        ({"crop_shift": -0.1}, r"crop_shift must be in \[0, 0.5\], got -0.1"),
        ({"drop_pupils": 1.5}, r"drop_pupils must be in \[0, 1\], got 1.5"),
        ({"other_shape": -0.1}, r"other_shape must be in \[0, 1\], got -0.1"),
        ({"landmarks": "dlib"}, "landmarks .* got 'dlib'"),
        ({"short_videos": "pad"}, "short_videos .* got 'pad'"),
        ({"seed": -1}, "seed .* got -1"),
    ],
)
def test_settings_that_do_not_fit(records, settings, message):
    with pytest.raises(ValueError, match=message):
        Episodes(records, **SMALL | settings)


def test_settings_that_the_data_do_not_allow(make_data_set, make_record):
    records = VideoRecords(make_data_set({"train": [make_record(0, points=68, true_landmarks=False)]}))
    with pytest.raises(ValueError, match=r"drop_pupils .* 70 points, got 68"):
        Episodes(records, **SMALL, drop_pupils=0.5)
    with pytest.raises(ValueError, match="no true landmarks"):
        Episodes(records, **SMALL, landmarks="true")
    with pytest.raises(ValueError, match=r"start_step .* got -1"):
        Episodes(records, **SMALL).iterate(start_step=-1)
    assert Episodes(records, **SMALL).batch(5).video_index.tolist() == [0, 0, 0, 0], "one video fills any batch"
