"""A person's files are opened once each: for their digests, the check of consent, their pixels and their manifests."""

import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from th_jax.avatars import person_files
from th_jax.avatars.output import Saving, input_fingerprint
from th_jax.avatars.person_files import read_shots
from th_jax.avatars.requests import PersonRequest
from th_jax.consent import Basis, ConsentError, make_consent
from th_jax.data import shot_selection
from th_jax.data.shots import load_shots
from th_jax.media import MediaError, MediaFault, open_video, read_image
from th_jax.media.audio import missing_sound
from th_jax.provenance import Kind, Provenance, ingredients, write_image, write_video
from th_jax.storage.files import file_sha256

PORTRAIT = Path(__file__).parent.parent.parent / "th_jax" / "assets" / "portrait" / "astronaut.jpg"
OPENED: Counter[str] = Counter()


@pytest.fixture(scope="module", autouse=True)
def counter() -> None:
    """An audit hook, which Python calls for every file that it opens in this process; it cannot be removed."""

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str):
            OPENED[Path(arguments[0]).name] += 1

    sys.addaudithook(count)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What isolated processes do is done in this one, where opened files are counted."""

    def run(function: Any, *arguments: Any, within: Any = None, **options: Any) -> Any:
        return function(*arguments, **options)

    for module in (person_files, ingredients):
        monkeypatch.setattr(module, "run_limited", run)
    monkeypatch.setattr("th_jax.media.audio.run_limited", run)
    OPENED.clear()
    yield
    OPENED.clear()


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """A photo with a manifest, one without, and one without a face."""
    (folder := tmp_path / "ada").mkdir()
    write_image(folder / "signed.png", read_image(PORTRAIT), provenance=Provenance(kind=Kind.COMPOSITE))
    shutil.copy(PORTRAIT, folder / "plain.jpg")
    write_image(folder / "wall.png", np.full((80, 80, 3), 90, np.uint8), provenance=Provenance(kind=Kind.REAL_CROP))
    return folder


def test_each_photo_is_opened_once(album: Path, here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    record = make_consent(album, subject="Ada", basis=Basis.SELF)
    request, saving = PersonRequest("ada", album), Saving(album)
    fingerprint = input_fingerprint(request, saving=saving, max_shots=None)
    wanted = load_shots(album, size=32)
    OPENED.clear()
    read = read_shots(album, size=32, consent=record)
    assert input_fingerprint(request, saving=saving, max_shots=None, known=read.digests) == fingerprint
    assert {name: count for name, count in OPENED.items() if name.endswith((".png", ".jpg"))} == {
        "signed.png": 1, "plain.jpg": 1, "wall.png": 1,
    }  # fmt: skip
    for ours, theirs in zip(read.shots, wanted, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert read_shots(album, size=32, pupils=True).shots.landmarks.shape == (8, 70, 2)
    assert [one.file for one in read.ingredients] == [file_sha256(album / "signed.png")]
    assert (read.images.looked_at, [file for file, _ in read.images.left_out]) == (3, ["wall.png"])
    monkeypatch.setattr(shot_selection, "CROP_BYTES", 0)
    assert (load_shots(album, size=32).frames == wanted.frames).all(), "crops are made again if they are many"


def test_an_uncovered_photo_is_not_decoded(album: Path, here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    record = make_consent(album / "plain.jpg", subject="Ada", basis=Basis.SELF)
    decoded = []

    def look(photo: str, **options: Any) -> Any:
        decoded.append(photo)
        return "no face", "", None, None

    monkeypatch.setattr(person_files, "look_at_photo", look)
    with pytest.raises(ConsentError, match=r"2 of 3 files in .*ada are not covered .*signed\.png"):
        read_shots(album, size=32, consent=record)
    assert decoded == [str(album / "plain.jpg")]
    monkeypatch.undo()
    record = make_consent(album, subject="Ada", basis=Basis.SELF)
    (album / "empty.png").touch()
    with pytest.raises(ConsentError, match=r"empty\.png is empty"):
        read_shots(album, size=32, consent=record)


def test_a_crashed_process_costs_one_photo(album: Path, here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(photo: str, **options: Any) -> Any:
        if photo.endswith("plain.jpg"):
            raise MediaError(MediaFault.OVER_LIMITS, "its process was killed")
        return shot_selection.look_at_photo(photo, **options)

    monkeypatch.setattr(person_files, "look_at_photo", look)
    read = read_shots(album, size=32)
    assert read.shots.mask.tolist() == [1]
    assert dict(read.images.left_out)["plain.jpg"] == "its process was killed"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    frames = [np.roll(read_image(PORTRAIT), i, axis=1) for i in range(3)]
    return write_video(tmp_path / "ada.mp4", frames, fps=25, provenance=Provenance(kind=Kind.REAL_CROP))


def test_a_video_is_decoded_twice_and_opened_once_for_everything_else(clip: Path, here: None) -> None:
    record = make_consent(clip, subject="Ada", basis=Basis.SELF)
    request, saving = PersonRequest("ada", clip), Saving(clip.parent)
    fingerprint = input_fingerprint(request, saving=saving, max_shots=None)
    OPENED.clear()
    read = read_shots(clip, size=32, consent=record)
    assert input_fingerprint(request, saving=saving, max_shots=None, known=read.digests) == fingerprint
    decoders = 2
    assert OPENED["ada.mp4"] == 1 + decoders
    with pytest.raises(ConsentError, match="1 of 1 files"):
        read_shots(clip, size=32, consent=make_consent(PORTRAIT, subject="Ada", basis=Basis.SELF))


def test_a_first_pass_needs_no_second_decoder(clip: Path, here: None) -> None:
    with open_video(clip) as video:
        first = [frame for _, frame in video.frames()]
        assert OPENED["ada.mp4"] == 1
        again = [frame for _, frame in video.frames()]
    assert OPENED["ada.mp4"] == 2
    np.testing.assert_array_equal(first, again)
    OPENED.clear()
    assert missing_sound(clip) == "is missing"
    assert OPENED["ada.mp4"] == 1
