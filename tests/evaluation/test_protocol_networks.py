"""Networks given by path in the protocol: scores of a finished run, names, counts, storage, and one-sentence errors."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import evaluate
from network_files import write_lpips, write_network, write_settings
from tiny_protocol import SIZE, arguments, by_cell, quick_finetune, use_fake_faces, write_tiny

from tests.golden.make_lpips_golden import CHANNELS
from th_jax.evaluation import metrics
from th_jax.evaluation.judges import network_file
from th_jax.evaluation.protocol import measure
from th_jax.evaluation.protocol import run as running
from th_jax.media import read_image
from th_jax.perceptual import vgg

pytestmark = pytest.mark.usefixtures("quickly_compiled")

PEOPLE, TARGETS = 4, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("networks")
    write_tiny(folder)
    return folder


@pytest.fixture(scope="module")
def networks(folder: Path) -> list[str]:
    """Options that name one network of each kind."""
    write_network(folder / "arc.onnx", kind="flat", size=112)
    write_network(folder / "means.onnx", size=SIZE)
    write_settings(folder / "means.onnx", size=SIZE, mean=0, deviation=255)
    mixing = np.random.default_rng(0).normal(size=(3, 2048))
    inception = write_network(folder / "inception.onnx", size=299, mixing=mixing)
    path, lpips = write_lpips(folder / "lpips.safetensors")
    return [
        "--identity-network", f"arc={folder / 'arc.onnx'}", "--features", f"means={folder / 'means.onnx'}",
        "--inception", str(folder / "inception.onnx"), "--inception-sha256", inception,
        "--lpips", str(path), "--lpips-sha256", lpips,
    ]  # fmt: skip


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    use_fake_faces(monkeypatch)
    monkeypatch.setattr(running, "finetune_many", quick_finetune)
    monkeypatch.setattr(vgg, "CHANNELS", CHANNELS)


@pytest.fixture(scope="module")
def done(folder: Path, networks: list[str]) -> Path:
    """A run without networks by path, to which they are added afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        use_fake_faces(patch)
        patch.setattr(running, "finetune_many", quick_finetune)
        assert evaluate(arguments(folder, "done")) == 0
        before = by_cell(folder / "done")
        assert set(before["FT", 3]["distances"]) == {"Fréchet(vgg16)", "KID(vgg16)"}
        patch.setattr(running, "finetune_many", lambda *people, **settings: iter(()))
        patch.setattr(vgg, "CHANNELS", CHANNELS)
        assert evaluate(arguments(folder, "done", *networks)) == 0
    after = by_cell(folder / "done")
    assert {name: after["FT", 3]["measures"][name] for name in before["FT", 3]["measures"]} == before["FT", 3][
        "measures"
    ]
    return folder / "done"


def images(out: Path, method: str) -> np.ndarray:
    return np.stack([read_image(path) for path in sorted((out / "study" / method).glob("*/*.png"))])


def test_distances_name_features_and_frame_counts(done: Path) -> None:
    cells = by_cell(done)
    assert cells["real", 0]["distances"] == {}
    for (_, count), cell in cells.items():
        if count:
            names = {"Fréchet(vgg16)", "KID(vgg16)", "Fréchet(means)", "KID(means)", "FID", "KID"}
            assert set(cell["distances"]) == names
            assert {one["frames"] for one in cell["distances"].values()} == {PEOPLE * TARGETS}
    made, real = (images(done, method).mean((1, 2)) / 255 for method in ("FT-3", "real"))
    found = cells["FT", 3]["distances"]["Fréchet(means)"]
    assert found == {
        "value": pytest.approx(metrics.frechet_distance(made, real), rel=1e-4),
        "frames": 16, "real_frames": 16, "dimensions": 3, "biased": True,
    }  # fmt: skip
    kernel = cells["FT", 3]["distances"]["KID(means)"]
    assert kernel["value"] == pytest.approx(metrics.polynomial_mmd(made, real), rel=1e-4)
    assert not kernel["biased"]
    assert cells["FF", 2]["distances"]["FID"]["dimensions"] == 2048


def test_table_and_page_name_them_too(done: Path) -> None:
    table, page = (done / "table.md").read_text(), (done / "report.html").read_text()
    for head in (
        "Fréchet(vgg16), N = 16 < 24 dimensions: biased", "Fréchet(means), N = 16, 3 dimensions", "FID, N = 16 < 2048",
        "KID(vgg16), N = 16, 24 dimensions", "identity L2 (arc)", "identity cosine (arc)", "LPIPS",
    ):  # fmt: skip
        assert head in table, head
        assert head.replace("<", "&lt;") in page, head
    assert "They have no interval" in page
    about = json.loads((done / "results.json").read_text())["networks"]
    assert set(about) == {"vgg16", "arc", "means", "inception", "lpips"}
    assert all(len(one["sha256"]) == 64 for one in about.values())
    assert f"arc {about['arc']['sha256'][:16]}" in table
    assert (about["arc"]["input"]["size"], about["arc"]["dimensions"]) == (112, 4)


def test_measures_of_frames(done: Path) -> None:
    cells = by_cell(done)
    real, tuned, mean = (cells[cell]["measures"] for cell in (("real", 0), ("FT", 3), ("mean_frame", 3)))
    assert real["identity/l2(arc)"]["value"] == pytest.approx(0, abs=1e-6)
    assert real["identity/centred_cosine(arc)"]["value"] == pytest.approx(1)
    assert 0 < mean["identity/l2(arc)"]["value"] < tuned["identity/l2(arc)"]["value"] < 2
    assert real["lpips"]["value"] == pytest.approx(0, abs=1e-9)
    assert 0 < mean["lpips"]["value"] < tuned["lpips"]["value"]
    made, wanted = (images(done, method) / 255 for method in ("FT-3", "real"))
    assert tuned["psnr"]["value"] == pytest.approx(metrics.psnr(made, wanted).mean())
    assert real["psnr"]["value"] == pytest.approx(measure.MAX_PSNR)
    flicker = [metrics.temporal_flicker(made[i : i + 4], reference=wanted[i : i + 4]).mean() for i in range(0, 16, 4)]
    assert tuned["flicker"]["value"] == pytest.approx(np.mean(flicker))
    assert (tuned["flicker"]["frames"], tuned["flicker"]["failures"]) == (12, 0)
    assert "ms_ssim" not in tuned, "16 px are too few"


def test_multi_scale_similarity_where_frames_are_large_enough() -> None:
    rng = np.random.default_rng(0)
    made, real = rng.integers(0, 256, (2, 1, 176, 176, 3), dtype=np.uint8)
    table = measure._pixel_table(made, real)
    np.testing.assert_array_equal(table["ms_ssim"], metrics.ms_ssim(made / 255, real / 255))
    assert set(table) == {"psnr", "ms_ssim"}, "a single frame does not flicker"


def test_charges_of_named_networks() -> None:
    assert measure.charge_of("identity/l2(arc)") == math.sqrt(2)
    assert measure.charge_of("identity/l2") == measure.CHARGES["identity/l2"]
    assert measure.charge_of("lpips") is None
    assert measure.title_of("identity/l2(a.b-c)") == "identity L2 (a.b-c)"
    assert measure.higher_is_better("identity/centred_cosine(arc)")
    assert not measure.higher_is_better("identity/l2(arc)")


def test_no_network_runs_twice(done: Path, folder: Path, networks: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    original = network_file.FeatureNetwork.features

    def counted(network: Any, frames: np.ndarray) -> np.ndarray:
        asked.append(len(frames))
        return original(network, frames)

    monkeypatch.setattr(network_file.FeatureNetwork, "features", counted)
    before = (done / "results.json").read_bytes()
    assert evaluate(arguments(folder, "done", *networks)) == 0
    assert asked == [1, 1, 1], "each is tried on one grey image"
    damaged = sorted((done / "networks").glob("means-*/FT-3/*.npz"))[0]
    damaged.write_bytes(damaged.read_bytes()[:50])
    assert evaluate(arguments(folder, "done", *networks)) == 0
    assert asked == [1] * 6 + [TARGETS]
    assert (done / "results.json").read_bytes() == before


def test_people_driven_by_others(folder: Path, networks: list[str]) -> None:
    assert evaluate(arguments(folder, "cross", *networks, protocol="cross")) == 0
    cells = by_cell(folder / "cross")
    own, driver = (
        cells[cell]["measures"]["identity/l2(arc)"]["value"] for cell in (("nearest_copy", 3), ("driver", 0))
    )
    assert own < driver
    assert "lpips" not in cells["FT", 3]["measures"], "there is no frame that it could be like"
    assert cells["FT", 3]["distances"]["Fréchet(vgg16)"]["value"] > 0
    assert cells["driver", 0]["distances"] == {}


def test_mistakes_are_one_sentence(
    folder: Path, networks: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arc, digest = str(folder / "arc.onnx"), "0" * 64
    for given, sentence in (
        (["--identity-network", "arc"], "a network must be given as NAME=FILE"),
        (["--identity-network", f"a(b={arc}"], "a network must be given as NAME=FILE"),
        (["--identity-network", f"dlib={arc}"], "network name 'dlib' is already used"),
        (["--features", f"vgg16={arc}"], "network name 'vgg16' is already used"),
        (["--identity-network", f"x={arc}", "--features", f"x={arc}"], "network name 'x' is already used"),
        (["--identity-network", f"x={tmp_path}/none.onnx"], "none.onnx"),
        (["--features", f"x={arc}"], "arc.onnx.json is missing"),
        (["--inception", arc], "--inception and --inception-sha256 must be given together"),
        (["--lpips-sha256", digest], "--lpips and --lpips-sha256 must be given together"),
        (["--inception", arc, "--inception-sha256", digest], "it is a different file"),
        (["--lpips", arc, "--lpips-sha256", digest], "it is a different file"),
        (["--no-faces", "--identity-network", f"x={arc}"], "omit --no-faces"),
    ):
        assert evaluate(arguments(folder, "bad", *given)) == 1
        said = capsys.readouterr().err
        assert said.startswith("th-jax evaluate: ")
        assert sentence in said
        assert said.count("\n") == 1
    assert not (folder / "bad").exists(), "nothing is begun"


def test_a_missing_image(done: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = sorted((done / "study" / "FF-2").glob("*/*.png"))[0]
    content = path.read_bytes()
    path.unlink()
    try:
        assert evaluate(arguments(folder, "done")) == 1
        said = capsys.readouterr().err
        assert path.name in said
        assert said.count("\n") == 1
    finally:
        path.write_bytes(content)
