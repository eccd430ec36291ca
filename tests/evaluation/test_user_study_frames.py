"""study_frames.json: valid files are read; paths outside the folder and incomplete lists are rejected."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from th_jax.evaluation.user_study.frames import read_study_frames

SIZE = 16
CELLS = (("FF", 1), ("FT", 1), ("FT", 8))


def write_frames(
    folder: Path, *, people: int = 4, real: int = 5, generated: int = 3, size: int = SIZE, videos: int = 5
) -> dict[str, Any]:
    """A folder of noise that `read_study_frames` takes, with frames of `CELLS`; returns its index."""
    rng = np.random.default_rng(0)

    def image(path: str) -> str:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / path), rng.integers(0, 256, (size, size, 3), np.uint8))
        return path

    names = [f"p{person}" for person in range(people)]
    frames = {
        name: [{"path": image(f"real/{name}/{i}.png"), "video": f"{name}-{i % videos}"} for i in range(real)]
        for name in names
    }
    cells = [
        {
            "method": method,
            "shots": shots,
            "people": {
                name: [
                    {"path": image(f"{method}-{shots}/{name}/{i}.png"), "redraws": f"real/{name}/{i % real}.png"}
                    for i in range(generated)
                ]
                for name in names
            },
        }
        for method, shots in CELLS
    ]
    index = {"schema": 1, "name": "noise", "size": size, "real": frames, "generated": cells}
    write_index(folder, index)
    return index


def write_index(folder: Path, index: Any) -> None:
    (folder / "study_frames.json").write_text(json.dumps(index))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames whose index each test writes anew."""
    folder = tmp_path_factory.mktemp("frames")
    write_frames(folder)
    (folder / "study_frames.json").rename(folder / "whole.json")
    return folder


@pytest.fixture
def index(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "whole.json").read_text())


def test_an_index_is_read(folder: Path, index: dict[str, Any]) -> None:
    write_index(folder, index | {"weights": {"meta": "0" * 64}})
    frames = read_study_frames(folder)
    assert (frames.name, frames.size, frames.weights) == ("noise", SIZE, {"meta": "0" * 64})
    assert [(cell.method, cell.shots) for cell in frames.cells] == list(CELLS)
    assert frames.real["p2"][3] == ("real/p2/3.png", "p2-3")
    assert frames.cells[2].people["p0"][1] == ("FT-8/p0/1.png", "real/p0/1.png")


def edited(*keys: Any, to: Any) -> Callable[[dict[str, Any]], Any]:
    """Sets the entry at these keys; `...` instead of a value deletes it."""

    def edit(index: dict[str, Any]) -> Any:
        place: Any = index
        for key in keys[:-1]:
            place = place[key]
        if to is ...:
            del place[keys[-1]]
        else:
            place[keys[-1]] = to
        return index

    return edit


REAL = ("real", "p0", 0, "path")
MADE = ("generated", 0, "people", "p0")
WRONG = [
    (lambda index: [], "the index must be a JSON object with generated, name, real, schema, size, but is list"),
    (edited("schema", to=2), "expected schema 1, got 2"),
    (edited("name", to=...), "the index has missing or unknown fields: 'name'"),
    (edited("more", to=1), "the index has missing or unknown fields: 'more'"),
    (edited("size", to=15), "size must be an integer of 16 to 4096 pixels, got 15"),
    (edited("size", to=True), "size must be an integer"),
    (edited("name", to="a\nb"), "name must be a string of 1 to 500 printable characters"),
    (edited("weights", to={"meta": "x"}), "weights must be an object of SHA-256 digests"),
    (edited("real", to={}), "real must be an object with one or more people"),
    (edited("real", "p0", to="x"), "real frames of 'p0' must be a list"),
    (
        edited("real", "p0", 0, to={"path": "x.png"}),
        "an entry of the real frames of 'p0' has missing or unknown fields: 'video'",
    ),
    (edited("real", "p0", slice(2, None), to=...), r"a triplet needs 3 real frames of 'p0' .*, but 2 are listed"),
    (edited("real", "p0", 0, "path", to="real/p0/1.png"), "the real frames of 'p0' list an image twice"),
    (edited(*REAL, to="/etc/x.png"), "the path '/etc/x.png' is outside the folder"),
    (edited(*REAL, to="real/../../x.png"), r"the path 'real/../../x.png' is outside the folder"),
    (edited(*REAL, to="..\\x.png"), "is outside the folder"),
    (edited(*REAL, to="C:x.png"), "is outside the folder"),
    (edited(*REAL, to="study_frames.json"), r"'study_frames.json' must end in \.png"),
    (edited(*REAL, to=7), "real frames of 'p0': path must be str"),
    (edited("generated", to=[]), "generated must be a list with one or more entries"),
    (edited("generated", 0, "shots", to=0), "shots of method 'FF' must be a positive integer, got 0"),
    (edited("generated", 0, "method", to="check"), "method name 'check' is reserved"),
    (edited("generated", 0, "method", to="FT"), "method 'FT' with T = 1 is listed twice"),
    (edited(*MADE, to=[]), "frames of 'p0' by 'FF' with T = 1 must be a list with one or more entries"),
    (edited("generated", 0, "people", "p9", to=[]), "'FF' with T = 1 has 'p9', for whom no real frames are listed"),
    (edited(*MADE, 0, "redraws", to="real/p1/0.png"), "redraws 'real/p1/0.png', which is not a real frame"),
    (edited(*MADE, 0, "path", to="real/p0/0.png"), "is listed both as real and as generated by 'FF' with T = 1"),
    (edited(*MADE, 0, "path", to="FT-8/p0/0.png"), "generated lists an image twice"),
]


@pytest.mark.parametrize(("edit", "message"), WRONG, ids=[message[:45] for _, message in WRONG])
def test_wrong_indexes_are_rejected(
    folder: Path, index: dict[str, Any], edit: Callable[[dict[str, Any]], Any], message: str
) -> None:
    write_index(folder, edit(index))
    with pytest.raises(ValueError, match=message):
        read_study_frames(folder)


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    write_frames(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no frames for a user study: study_frames\.json"):
        read_study_frames(tmp_path / "real")
    (tmp_path / "real/p0/0.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"'real/p0/0\.png', which does not exist"):
        read_study_frames(tmp_path)
    for content in ("", "{", "\xff", "[" * 100_000):
        (tmp_path / "study_frames.json").write_text(content, encoding="latin-1")
        with pytest.raises(ValueError, match=r"study_frames\.json is (not valid JSON|damaged)"):
            read_study_frames(tmp_path)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    inside = tmp_path / "frames"
    write_frames(inside)
    outside = (inside / "real/p0/0.png").rename(tmp_path / "secret.png")
    os.symlink(outside, inside / "real/p0/0.png")
    with pytest.raises(ValueError, match="outside the folder through a link"):
        read_study_frames(inside)
