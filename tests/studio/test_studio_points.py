"""Points placed by hand: their text, the proposal of the others, and the avatar of a photo in which no face is found."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from th_jax.data.landmark_file import read_landmark_file
from th_jax.landmarks.model3d import load_model
from th_jax.studio.folder import StudioFolder
from th_jax.studio.making import ConsentForm, finetune_command, prepare_person
from th_jax.studio.points import KEYS, next_key, parse_points, points_text, proposed

PHOTO = np.full((200, 160, 3), 90, np.uint8)


def placed_on(points: np.ndarray, count: int) -> dict[int, tuple[float, float]]:
    return {number: (float(points[number, 0]), float(points[number, 1])) for number in list(KEYS.values())[:count]}


def read(function: Any, path: str) -> Any:
    return PHOTO


def face() -> np.ndarray:
    """The model's average face, turned by 10 degrees in the image, in pixels."""
    points = np.asarray(load_model().mean, np.float64)[:68, :2] * (1, -1)
    points = (points - points.mean(0)) * 60 / np.ptp(points[:, 0])
    angle = np.radians(10)
    return np.asarray(points @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) + (80, 110))


def test_text_and_points_are_the_same() -> None:
    placed = {36: (50.5, 60.0), 0: (1.0, 2.25)}
    assert parse_points(points_text(placed)) == placed
    assert parse_points(" 36 : 50.5 60 \n\n0: 1,2.25\n") == placed
    assert parse_points("") == {}
    assert next_key({}) == next(iter(KEYS))
    assert KEYS[next_key({36: (0.0, 0.0)})] == 45
    assert KEYS[next_key(dict.fromkeys(KEYS.values(), (0.0, 0.0)))] == 36


@pytest.mark.parametrize(
    "line", ["36", "36: 1", "68: 1, 2", "-1: 1, 2", "36: nan, 1", "36: 1, 2, 3", "36: 1e9, 1", "x"]
)
def test_other_lines_are_errors(line: str) -> None:
    with pytest.raises(ValueError, match="a point is NUMBER: X, Y with a number from 0 to 67, but is"):
        parse_points(f"0: 1, 2\n{line}")


def test_a_few_points_place_the_face(tmp_path: Path) -> None:
    truth = face()
    points, picture = proposed(tmp_path / "a.jpg", placed_on(truth, 5), run=read)
    np.testing.assert_allclose(points[[36, 45, 30, 48, 54]], truth[[36, 45, 30, 48, 54]])
    assert np.abs(points - truth).max() < 1.0, "in pixels: the average face, moved, turned and scaled"
    x, y = points[30].round().astype(int)
    assert picture[y, x].tolist() == [0, 255, 0]
    assert (PHOTO == 90).all(), "the photo itself is unchanged"
    with pytest.raises(ValueError, match="point 30 at 161, 5 is outside the photo, which has 160 x 200 pixels"):
        proposed(tmp_path / "a.jpg", {30: (161.0, 5.0)}, run=read)


def test_the_points_are_a_landmark_file_of_the_command_line(tmp_path: Path) -> None:
    folder = StudioFolder(tmp_path / "studio")
    draft = folder.drafts / "0"
    draft.mkdir()
    (draft / "001_a.jpg").write_bytes(b"photo")
    form = ConsentForm("Ada", "synthetic")
    person = prepare_person(folder, "ada", draft, form, points=face())
    assert (person.shots, person.landmarks) == (folder.shots / "ada" / "001_a.jpg", folder.landmarks("ada"))
    assert person.landmarks is not None
    np.testing.assert_allclose(read_landmark_file(person.landmarks, height=200, width=160), face(), atol=0.01)
    assert f"--shots {person.shots} --name ada --landmarks {person.landmarks}" in finetune_command(
        folder, person, meta="heads64"
    )
    (draft / "002_b.jpg").write_bytes(b"photo")
    with pytest.raises(ValueError, match="placed on a single photo"):
        prepare_person(folder, "eve", draft, form, points=face())
    assert not folder.consent("eve").exists()
    folder.close()
