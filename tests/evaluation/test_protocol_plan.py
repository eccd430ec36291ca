"""The choice of people and frames: deterministic, nested shots, each person once before any person twice."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import evaluate

from th_jax import weights as pretrained
from th_jax.cli import evaluate as command
from th_jax.data.records import VideoRecords, bundled_heads
from th_jax.data.video_list import VideoEntry, row_key
from th_jax.evaluation.people import choose_frames
from th_jax.evaluation.protocol.plan import PROTOCOLS, Protocol, choose_people, load_person
from th_jax.training.presets import finetune_preset


@pytest.fixture(scope="module")
def records() -> VideoRecords:
    return VideoRecords(bundled_heads(), "heldout")


class Listed(VideoRecords):
    """A split of which only the list exists."""

    def __init__(self, videos: list[tuple[str, str, int]]) -> None:
        self._entries: Any = [VideoEntry(row_key(video), video, person, frames) for video, person, frames in videos]

    def __repr__(self) -> str:
        return "Listed"


def test_the_published_numbers() -> None:
    assert PROTOCOLS["zakharov19"] == Protocol(people=50, targets=32, shots=(1, 8, 32))
    assert PROTOCOLS["heads"].people == 24
    assert PROTOCOLS["cross"].crossed


def test_shots_are_nested_and_apart_from_targets(records: VideoRecords) -> None:
    people = choose_people(records, PROTOCOLS["heads"])
    assert [person.record for person in people] == list(range(24)), "all people, in the split's order"
    for person, frames in zip(people, choose_frames(records, targets=8), strict=True):
        assert person.targets == frames.targets == person.driving
        one, eight, all_of_them = (set(person.shots(count)) for count in (1, 8, 32))
        assert (len(one), len(eight), len(all_of_them)) == (1, 8, 32)
        assert one < eight < all_of_them
        assert not all_of_them & set(person.targets)
    assert len({person.order for person in people}) == 24


def test_the_seed_decides_and_people_do_not_move_each_other(records: VideoRecords) -> None:
    few = choose_people(records, PROTOCOLS["heads"]._replace(people=5), seed=3)
    assert few == choose_people(records, PROTOCOLS["heads"]._replace(people=5), seed=3)
    everyone = {person.video_id: person for person in choose_people(records, PROTOCOLS["heads"], seed=3)}
    assert all(everyone[person.video_id].order == person.order for person in few)
    assert {p.video_id for p in few} != {
        p.video_id for p in choose_people(records, PROTOCOLS["heads"]._replace(people=5), seed=4)
    }


def test_each_person_is_drawn_once_before_any_twice() -> None:
    videos = [(f"v{number}", f"p{number % 3}", 40) for number in range(30)] + [("short", "p9", 11)]
    drawn = choose_people(Listed(videos), Protocol(people=4, targets=4, shots=(8,)))
    assert sorted(person.identity for person in drawn)[-1] != "p9", "one frame too few for 8 shots and 4 targets"
    assert len({person.identity for person in drawn}) == 3
    assert len({person.video_id for person in drawn}) == 4


def test_no_person_is_driven_by_another_of_their_videos() -> None:
    """Also if few people have many videos; up to half may show one person."""
    videos = [(f"v{number}", f"p{max(0, number - 4)}", 40) for number in range(10)]
    cross = Protocol(people=10, targets=4, shots=(1,), crossed=True)
    for seed in range(30):
        people = {person.name: person for person in choose_people(Listed(videos), cross, seed=seed)}
        drivers = [str(person.driver) for person in people.values()]
        assert sorted(drivers) == sorted(people), "each person drives once"
        assert all(people[str(person.driver)].identity != person.identity for person in people.values())
        assert all(people[str(person.driver)].targets == person.driving for person in people.values())
    with pytest.raises(ValueError, match="5 of 9 videos show 'p0'"):
        choose_people(Listed(videos[:9]), cross._replace(people=9))
    with pytest.raises(ValueError, match="2 of 2 videos show 'a'"):
        choose_people(Listed([("v", "a", 40), ("w", "a", 40)]), cross._replace(people=2))


def test_people_of_one_video_are_crossed_along_the_circle_that_was_drawn(records: VideoRecords) -> None:
    people = choose_people(records, PROTOCOLS["cross"], seed=3)
    circle = np.random.default_rng([3, 1]).permutation(24)
    assert [people[place].driver for place in circle] == [people[place].name for place in np.roll(circle, 1)]


def test_loaded_frames_are_those_of_the_plan(records: VideoRecords) -> None:
    (person,) = choose_people(records, Protocol(people=1, targets=3, shots=(2, 5)))
    loaded = load_person(records, person, image_size=16, landmarks="true")
    record = records.read(person.record)
    assert record.true_landmarks is not None
    np.testing.assert_array_equal(loaded.landmarks, record.true_landmarks[list(person.targets)])
    np.testing.assert_array_equal(loaded.first(2).landmarks, record.true_landmarks[list(person.order[:2])])
    held = loaded.held(5)
    assert held.source_frames.shape == (1, 5, 16, 16, 3)
    np.testing.assert_array_equal(held.target_frames[0], loaded.frames)


def test_the_weights_name_decides_on_the_settings(tmp_path: Path) -> None:
    """Bundled weights given by file use the same preset as by name; others need --settings."""
    released = Path(pretrained.__file__).parent / "assets" / "pretrained" / "heads64.safetensors"
    for more, preset in (([], "heads"), (["--settings", "paper"], "paper")):
        given = ["--meta", str(released), "--data", "bundled", "--protocol", "heads", "--people", "2", "--no-faces"]
        options = command.parser().parse_args([*given, *more, "--out", str(tmp_path / preset)])
        evaluation, about = command.begin(options)
        assert evaluation.settings == about["settings"] == finetune_preset(preset)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--seed", "-1"], "seed must be 0 or more, but is -1"),
        (["--settings", "my.txt"], "known are paper, heads, or name a file that ends in .json"),
        (["--settings", "my.json"], "the settings file my.json does not exist"),
        (["--out", "/dev/null/x"], "cannot create /dev/null/x: /dev/null is not a folder"),
        (["--out", "setup.cfg"], "cannot create setup.cfg: setup.cfg is not a folder"),
    ],
)
def test_options_that_make_no_run(
    more: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    given = ["--meta", "nowhere", "--data", "bundled", "--protocol", "heads", "--out", str(tmp_path / "out"), *more]
    assert evaluate(given) == 1
    said = capsys.readouterr().err
    assert said.startswith("th-jax evaluate: ")
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_impossible_plans() -> None:
    listed = Listed([("long", "a", 40), ("short", "b", 11)])
    with pytest.raises(ValueError, match=r"only 1 of Listed .* video 'short' has 11"):
        choose_people(listed, Protocol(people=2, targets=4, shots=(8,)))
    with pytest.raises(ValueError, match="expected 3 people, but Listed has 2"):
        choose_people(listed, Protocol(people=3, targets=1, shots=(8,)))
    with pytest.raises(ValueError, match="got 2, 0 and 8"):
        choose_people(listed, Protocol(people=2, targets=0, shots=(8,)))
    with pytest.raises(ValueError, match="at least 2 people, got 1"):
        choose_people(listed, Protocol(people=1, targets=1, shots=(1,), crossed=True))
