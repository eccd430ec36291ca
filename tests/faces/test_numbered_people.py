"""People are numbered by prominence; a chosen one is found again in other places and images; commands take the number."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from commands import th_jax
from portrait import moved, portrait

from data_prep.heads.identity import draw_identity
from data_prep.heads.motion import talk
from data_prep.heads.render import render_head
from th_jax.avatars.output import Saving, input_fingerprint
from th_jax.avatars.person_files import read_shots
from th_jax.avatars.requests import PersonRequest, one_person, read_people_file
from th_jax.data.people import people_of
from th_jax.data.shots import Verdict, inspect_shots, load_shots
from th_jax.driving.driver import track_driver
from th_jax.faces import detect_faces, face_size, follow_face
from th_jax.faces.people import PORTRAIT_SIDE, PersonChooser, people_in, people_sheet
from th_jax.media import read_image
from th_jax.provenance import Kind, Provenance, read_sidecar, write_image, write_video

RECORD = Provenance(kind=Kind.REAL_CROP)
SIDE = 256


@pytest.fixture(scope="module")
def two() -> tuple[np.ndarray, np.ndarray]:
    """A photo of a woman, and a rendered man whose face is as clear but half as large."""
    head = render_head(draw_identity(100_001), talk(100_001, seconds=1.0, fps=2.0).state(0), size=SIDE)[0]
    small = cv2.resize(head, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return portrait(), small


def together(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.concatenate([left, right], axis=1)


def center_of(landmarks: np.ndarray) -> float:
    return float(landmarks[:, 0].mean())


@pytest.fixture(scope="module")
def files(two: tuple[np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo of both people, and a video in which they change places after 6 of 12 frames."""
    folder = tmp_path_factory.mktemp("people")
    one, other = two
    write_image(folder / "both.png", together(one, other), provenance=RECORD)
    ways = np.linspace(-3, 3, 12)
    frames = [together(moved(one, x=x), moved(other, x=-x)) for x in ways[:6]]
    frames += [together(moved(other, x=-x), moved(one, x=x)) for x in ways[6:]]
    write_video(folder / "both.mp4", frames, fps=6, provenance=RECORD, crf=12)
    return folder


def test_the_most_prominent_person_is_first_and_faces_of_one_image_are_two_people(
    two: tuple[np.ndarray, np.ndarray],
) -> None:
    one, other = two
    people = people_in([together(one, other), together(other, one)])
    assert [person.images for person in people] == [2, 2], "they are known again where they changed places"
    expected = sorted((sum(f.score * f.box.side for f in detect_faces(image)) for image in two), reverse=True)
    np.testing.assert_allclose([person.prominence for person in people], np.multiply(expected, 2), rtol=0.2)
    assert people[0].prominence > people[1].prominence
    twins = people_in([together(one, one)])
    assert [person.images for person in twins] == [1, 1]
    assert people_in([np.zeros((100, 100, 3), np.uint8)]) == []


def test_a_chosen_face_is_that_person_or_none(two: tuple[np.ndarray, np.ndarray]) -> None:
    one, other = two
    image = together(one, other)
    people = people_in([image])
    woman = min((0, 1), key=lambda n: center_of(people[n].landmarks))
    choose = PersonChooser(people, woman + 1).choose
    swapped = together(other, one)
    face = choose(swapped, detect_faces(swapped))
    assert face is not None
    assert face.box.center[0] == pytest.approx(SIDE + center_of(people[woman].landmarks), abs=12)
    assert choose(other, detect_faces(other)) is None, "the other person is not taken for her"


def test_a_track_follows_the_chosen_person_through_a_change_of_places(two: tuple[np.ndarray, np.ndarray]) -> None:
    one, other = two
    frames = [together(one, other)] * 2 + [together(other, one)] * 2 + [together(other, other)]
    people = people_in(frames[:1])
    for number in (1, 2):
        left = center_of(people[number - 1].landmarks) < SIDE
        track = list(follow_face(iter(frames), detect_every=1, choose=PersonChooser(people, number)))
        centers = [center_of(frame.landmarks) for frame in track]
        assert [center < SIDE for center in centers[:4]] == [left, left, not left, not left]
        assert {frame.rivals for frame in track} == {0}
        if left:
            assert np.isnan(centers[4]), "where she is gone, nobody is tracked in her place"


def test_the_sheet_shows_each_portrait_at_its_number(two: tuple[np.ndarray, np.ndarray]) -> None:
    people = people_in([together(*two)])
    sheet = people_sheet(people, columns=1)
    assert sheet.shape == (2 * PORTRAIT_SIDE, PORTRAIT_SIDE, 3)
    for number, person in enumerate(people):
        shown = sheet[number * PORTRAIT_SIDE : (number + 1) * PORTRAIT_SIDE]
        np.testing.assert_array_equal(shown[40:], person.portrait[40:])
        assert (shown[:40] != person.portrait[:40]).any(), "the number"
    with pytest.raises(ValueError, match="at least one person"):
        people_sheet([])


def test_shots_of_a_photo_are_those_of_the_chosen_face(files: Path, two: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(ValueError, match=r"several faces: 1.*--face N.*th-jax faces"):
        load_shots(files / "both.png", size=64)
    people = people_of(files / "both.png")
    for number, person in enumerate(people, 1):
        report = inspect_shots(files / "both.png", size=64, face=number)
        (source,) = report.sources
        assert (source.verdict, source.detail) == (
            Verdict.USED, f"face {number} of 2, {float(face_size(person.landmarks)):.0f} px",
        )  # fmt: skip
        alone = two[0] if center_of(person.landmarks) < SIDE else two[1]
        expected = people_in([report.shots.frames[0].repeat(4, 0).repeat(4, 1)])[0].descriptor
        assert np.linalg.norm(expected - people_in([alone])[0].descriptor) < 0.6


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("both.png", {"face": 3}, r"both\.png shows 2 faces, but face 3 was chosen: th-jax faces"),
        ("both.mp4", {"face": 9}, r"both\.mp4 shows 2 faces, but face 9"),
        ("", {"face": 1}, "not with the folder"),
        ("both.png", {"face": 1, "landmarks": "points.json"}, "not with hand-marked landmarks"),
    ],
)
def test_a_face_that_is_not_there(files: Path, name: str, options: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load_shots(files / name, size=32, **options)  # type: ignore[arg-type]


def test_shots_of_a_video_are_those_of_the_chosen_person(files: Path) -> None:
    people = people_of(files / "both.mp4")
    assert len(people) == 2
    assert min(person.images for person in people) > 1
    shots = read_shots(files / "both.mp4", size=128, shots=2, face=2).shots
    for frame in shots.frames[shots.mask > 0]:
        found = people_in([frame])[0].descriptor
        distances = [float(np.linalg.norm(found - one.descriptor)) for one in people]
        assert distances[1] < min(0.6, distances[0])


def test_a_driver_is_the_chosen_person(files: Path) -> None:
    with track_driver(files / "both.mp4") as driving:
        assert driving.rivals > 0
    for number in (1, 2):
        with track_driver(files / "both.mp4", face=number) as driving:
            assert (driving.segment >= 0).all()
            assert driving.rivals == 0
            assert driving.squares is not None
            left = driving.squares[:, 0] + driving.squares[:, 2] / 2 < SIDE
            assert left[:6].tolist() == [left[0]] * 6
            assert left[6:].tolist() == [not left[0]] * 6
    with (
        pytest.raises(ValueError, match=r"both\.mp4 shows 2 faces, but face 3"),
        track_driver(files / "both.mp4", face=3),
    ):
        pass


def test_the_command_writes_a_sheet_and_names_the_people(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert th_jax(["faces", str(files / "both.png"), "--out", str(tmp_path / "sheet.png")]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == [
        "face 1: in 1 of the examined images", "face 2: in 1 of the examined images",
    ]  # fmt: skip
    assert read_image(tmp_path / "sheet.png").shape == (PORTRAIT_SIDE, 2 * PORTRAIT_SIDE, 3)
    assert read_sidecar(tmp_path / "sheet.png")[0].kind == Kind.REAL_CROP


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["faces", "{files}", "--out", "{out}/a.png"], 1, "is a folder"),
        (["faces", "{files}/both.png", "--out", "{out}/a.gif"], 1, "must end in"),
        (["faces", "{files}/both.png", "--out", "{files}/both.png"], 1, "would be overwritten"),
        (["faces", "{out}/blank.png", "--out", "{out}/a.png"], 1, "no face was found"),
        (["finetune", "--meta", "heads64", "--people-file", "p", "--face", "2", "--out", "o"], 2, "a people file has columns"),
        (["finetune", "--shots", "a", "--landmarks", "b", "--face", "2", "--meta", "m", "--out", "o"], 2, "omit --face"),
        (["finetune", "--face", "0"], 2, "must be a number from 1 to 999"),
        (["animate", "--avatar", "a", "--driver", "camera:0", "--face", "2"], 1, "omit --face"),
    ],
)  # fmt: skip
def test_mistakes_are_sentences(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    write_image(tmp_path / "blank.png", np.full((90, 90, 3), 99, np.uint8), provenance=RECORD)
    filled = [argument.format(files=files, out=tmp_path) for argument in arguments]
    assert th_jax(filled) == code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "a.png").exists()


def test_a_request_has_the_number_and_another_number_is_another_avatar(files: Path, tmp_path: Path) -> None:
    assert one_person(files / "both.png", face=2).face == 2
    (tmp_path / "a.png").write_bytes(b"x")
    table = tmp_path / "people.csv"
    table.write_text("name,shots,face,consent\nada,a.png,2,none\nbob,a.png,,none\n")
    assert [person.face for person in read_people_file(table)] == [2, None]
    table.write_text("name,shots,face,consent\nada,a.png,two,none\n")
    with pytest.raises(ValueError, match=r"line 2: face must be a number from 1 to 999, but is 'two'"):
        read_people_file(table)
    saving = Saving(tmp_path, None, False, {}, None)
    prints = [
        input_fingerprint(PersonRequest("ada", files / "both.png", face=face), saving=saving, max_shots=None)
        for face in (None, 1, 2)
    ]
    assert "face" not in prints[0], "avatars of before stay finished"
    assert [p.get("face") for p in prints[1:]] == [1, 2]
