"""The page of a user study: fair draws, unchanged images, and no hint at the fake in the raters' folder."""

import hashlib
import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from commands import study as main
from test_user_study_frames import CELLS, SIZE, write_frames, write_index

from th_jax.evaluation.user_study.answer_key import StudyKey, read_key
from th_jax.evaluation.user_study.build import build_study
from th_jax.evaluation.user_study.equal_grain import grain_digest, with_grain
from th_jax.evaluation.user_study.frames import CHECK, read_study_frames
from th_jax.evaluation.user_study.triplets import draw_triplets, scatter_tiles
from th_jax.media import read_image
from th_jax.provenance import Kind, Provenance, read_sidecar, write_image
from th_jax.provenance.record import open_sidecar
from th_jax.provenance.watermark.detect import detect


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frames")
    write_frames(folder, people=6, videos=3)
    return folder


@pytest.fixture(scope="module")
def study(frames: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StudyKey]:
    out = tmp_path_factory.mktemp("out") / "study"
    return out, build_study(frames, out, triplets=9, checks=3, seed=1)


def test_draws_are_uniform(frames: Path) -> None:
    index = read_study_frames(frames)
    drawn = draw_triplets(index, triplets=30, checks=4, seed=0)
    assert drawn == draw_triplets(index, triplets=30, checks=4, seed=0)
    assert drawn != draw_triplets(index, triplets=30, checks=4, seed=1)
    assert Counter((t.method, t.shots) for t in drawn) == {**dict.fromkeys(CELLS, 10), (CHECK, 0): 4}
    sides = defaultdict(Counter)
    for triplet in drawn:
        sides[triplet.method, triplet.shots][triplet.fake] += 1
    assert all(max(c[s] for s in (1, 2, 3)) - min(c[s] for s in (1, 2, 3)) <= 1 for c in sides.values()), sides
    people = Counter(t.person for t in drawn)
    assert max(people.values()) - min(people.values()) <= 1
    fakes = [t.paths[t.fake - 1] for t in drawn if t.method != CHECK]
    assert len(set(fakes)) == len(fakes), "no generated frame twice"
    assert [t.method == CHECK for t in drawn] != sorted(t.method == CHECK for t in drawn), (
        "checks are not the last ones"
    )


def test_real_frames_are_of_the_person_and_of_other_videos(frames: Path) -> None:
    index = read_study_frames(frames)
    redraws = {f.path: f.redraws for cell in index.cells for made in cell.people.values() for f in made}
    videos = {frame.path: frame.video for real in index.real.values() for frame in real}
    for triplet in draw_triplets(index, triplets=40, checks=5, seed=3):
        shown = list(triplet.paths)
        fake = shown.pop(triplet.fake - 1)
        source = redraws.get(fake, fake)
        assert len({*shown, source}) == 3, "neither the redrawn frame nor one frame twice"
        assert {path.split("/")[1] for path in (*shown, source)} == {triplet.person}
        assert all(path.startswith("real/") for path in shown)
        assert triplet.videos == len({videos[path] for path in (*shown, source)}) == 3


def test_one_video_is_enough_and_is_counted(tmp_path: Path) -> None:
    write_frames(tmp_path, people=1, videos=1)
    index = read_study_frames(tmp_path)
    redraws = {f.path: f.redraws for cell in index.cells for made in cell.people.values() for f in made}
    drawn = draw_triplets(index, triplets=9, checks=1, seed=0)
    assert {triplet.videos for triplet in drawn} == {1}
    for triplet in drawn:
        assert redraws.get(triplet.paths[triplet.fake - 1]) not in triplet.paths, (
            "almost equal images give the fake away"
        )


def test_impossible_numbers(frames: Path) -> None:
    index = read_study_frames(frames)
    with pytest.raises(ValueError, match=r"2 triplets are too few: .* 3 pairs"):
        draw_triplets(index, triplets=2, checks=0, seed=0)
    with pytest.raises(ValueError, match="'FF' with T = 1 has 18 frames, but 19 triplets"):
        draw_triplets(index, triplets=55, checks=0, seed=0)
    with pytest.raises(ValueError, match="checks and seed must be 0 or more"):
        draw_triplets(index, triplets=3, checks=-1, seed=0)


@pytest.mark.parametrize("size", [16, 19])
def test_every_tile_of_an_obvious_fake_moves(size: int) -> None:
    side = size // 4
    frame = np.zeros((size, size, 3), np.uint8)
    for tile in range(16):
        y, x = divmod(tile, 4)
        frame[y * side : (y + 1) * side, x * side : (x + 1) * side] = tile + 1
    for seed in range(20):
        scattered = scatter_tiles(frame, seed=seed)
        whole = slice(0, 4 * side)
        assert not (scattered[whole, whole] == frame[whole, whole]).any()
        assert (np.sort(scattered.ravel()) == np.sort(frame.ravel())).all()


def test_images_are_those_that_were_drawn(frames: Path, study: tuple[Path, StudyKey]) -> None:
    out, key = study
    assert read_key(out) == key
    for name, triplet in key.triplets.items():
        strip = read_image(out / "page/pictures" / f"{name}.png")
        assert strip.shape == (SIZE, 3 * SIZE, 3)
        for side, path in enumerate(triplet.paths):
            shown, drawn = strip[:, side * SIZE : (side + 1) * SIZE], read_image(frames / path)
            obvious = triplet.method == CHECK and side + 1 == triplet.fake
            assert (shown == drawn).all() != obvious, (triplet, side)


def test_all_three_images_have_as_much_grain(tmp_path: Path) -> None:
    size, frames = 64, tmp_path / "frames"
    index = write_frames(frames, people=1, real=3, generated=1, size=size)
    ramp = np.tile(np.linspace(40, 200, size), (size, 1))
    # The third method stands for another system, whose images have no mark yet.
    *made, theirs = (cell["people"]["p0"][0]["path"] for cell in index["generated"])
    for number, path in enumerate([*made, theirs, *(frame["path"] for frame in index["real"]["p0"])]):
        image = np.repeat((ramp + number)[..., None], 3, axis=2).astype(np.uint8)
        kind = Kind.GENERATED if path in made else Kind.FIGURE
        write_image(frames / path, image, provenance=Provenance(kind=kind, weights={"tiny": "0" * 64}))
    key = build_study(frames, tmp_path / "study", triplets=3, checks=1, seed=0)
    messages = set()
    for name, triplet in key.triplets.items():
        strip = read_image(tmp_path / "study/page/pictures" / f"{name}.png")
        for side, path in enumerate(triplet.paths):
            shown, stored = strip[:, side * size : (side + 1) * size], read_image(frames / path)
            found = detect(shown).marks
            assert len(found) == 1, (triplet, side)
            messages.add((path, found[0].message))
            if triplet.method == CHECK and side + 1 == triplet.fake:
                continue
            error = np.mean((shown.astype(float) - stored) ** 2)
            assert (error == 0) == (path in made)
            assert not error or 37.0 <= 10 * np.log10(255**2 / error) < 37.5
    real = dict(message for message in messages if message[0].startswith("real/"))
    assert len(set(real.values())) == len(real) == 3, "equal grain of two images would tell the third"


def test_grain_is_of_the_study_and_of_the_image() -> None:
    assert len({grain_digest(study, path=path) for study in "ab" for path in "cd"}) == 4
    image = np.zeros((63, 63, 3), np.uint8)
    assert with_grain(image, digest="0" * 64) is image
    with pytest.raises(ValueError, match="4 hexadecimal digits"):
        with_grain(np.zeros((64, 64, 3), np.uint8), digest="0")


def test_the_raters_folder_does_not_reveal_the_fake(frames: Path, study: tuple[Path, StudyKey]) -> None:
    out, key = study
    page = out / "page"
    names = sorted(key.triplets)
    images = sorted(path.name for path in (page / "pictures").iterdir())
    assert images == sorted(name + end for name in names for end in (".png", ".png.provenance.json"))
    assert sorted(path.name for path in page.iterdir()) == [
        "index.html",
        "pictures",
        "study.css",
        "study.js",
        "triplets.js",
    ]
    data = json.loads((page / "triplets.js").read_text().removeprefix("const STUDY = ").removesuffix(";\n"))
    assert data.pop("triplets") == names, "sorted by random names"
    assert set(data) == {"study", "size", "question", "consent", "consentText"}
    records = {json.dumps(read_sidecar(page / "pictures" / f"{name}.png")[0].to_dict()) for name in names}
    assert len(records) == 1, "one record for all"
    assert json.loads(records.pop())["kind"] == "composite"
    marks = {open_sidecar(page / "pictures" / f"{name}.png").marks for name in names}
    assert marks == {("c2pa",)}, "also of weights without a name"
    for path in (page / "pictures").glob("*.png"):
        chunks = path.read_bytes()
        assert b"tEXt" not in chunks
        assert b"tIME" not in chunks
        assert b"eXIf" not in chunks
    # Names of people, methods, frames and digests of frames are nowhere in what raters get.
    secrets = {part for t in key.triplets.values() for path in t.paths for part in (path, t.person)}
    secrets |= {
        hashlib.sha256((frames / path).read_bytes()).hexdigest() for t in key.triplets.values() for path in t.paths
    }
    texts = "".join(path.read_text() for path in page.rglob("*") if path.suffix in (".html", ".js", ".css", ".json"))
    assert not [secret for secret in secrets if f'"{secret}"' in texts or f"/{secret}" in texts]
    assert '"fake"' not in texts
    assert str(frames) not in texts


def test_equal_seeds_show_the_same_under_other_names(
    frames: Path, study: tuple[Path, StudyKey], tmp_path: Path
) -> None:
    key = build_study(frames, tmp_path / "again", triplets=9, checks=3, seed=1)
    assert list(key.triplets.values()) == list(study[1].triplets.values())
    assert not set(key.triplets) & set(study[1].triplets)
    assert key.study != study[1].study


def test_consent_and_question_are_the_callers(frames: Path, tmp_path: Path) -> None:
    text = tmp_path / "consent.txt"
    text.write_text("First </script> part.\n\nSecond part.")
    asked = ["--question", "Which?", "--consent", str(text), "--triplets", "3", "--checks", "0"]
    assert main(["build", "--frames", str(frames), "--out", str(tmp_path / "s"), *asked]) == 0
    data = json.loads((tmp_path / "s/page/triplets.js").read_text().removeprefix("const STUDY = ").removesuffix(";\n"))
    assert data["consentText"] == ["First </script> part.", "Second part."]
    assert data["question"] == "Which?"
    assert data["consent"] == hashlib.sha256(text.read_bytes()).hexdigest() == read_key(tmp_path / "s").consent


def test_rejected_builds_leave_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = write_frames(tmp_path / "frames")
    write_index(tmp_path / "frames", index | {"size": 32})
    out = tmp_path / "study"
    with pytest.raises(ValueError, match=r"\.png is 16x16 pixels, but the index says 32x32"):
        build_study(tmp_path / "frames", out, triplets=3)
    with pytest.raises(ValueError, match="1 to 10000 characters"):
        build_study(tmp_path / "frames", out, consent=" ")
    assert [path.name for path in tmp_path.iterdir()] == ["frames"]
    out.mkdir()
    with pytest.raises(FileExistsError, match="already exists"):
        build_study(tmp_path / "frames", out)
    assert main(["build", "--frames", str(tmp_path), "--out", str(tmp_path / "new")]) == 1
    assert capsys.readouterr().err.startswith("th-jax study: ")


def test_damaged_keys(study: tuple[Path, StudyKey], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"not a user study: key\.json"):
        read_key(tmp_path)
    record = json.loads((study[0] / "key.json").read_text())
    broken = [
        record | {"schema": 2},
        record | {"triplets": []},
        {},
        [],
        record | {"triplets": [record["triplets"][0]] * 2},
    ]
    broken.append(record | {"triplets": [record["triplets"][0] | {"fake": 4}]})
    for content in broken:
        (tmp_path / "key.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"key\.json is damaged"):
            read_key(tmp_path)
