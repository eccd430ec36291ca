"""A decoder that fails in the second pass, in video or audio, gives one sentence and no output."""

import dataclasses
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest
from commands import animate as main
from driver_clips import swaying, write_clip

from tests.hostile import bad_ends
from th_jax.avatars.file import load_avatar, save_avatar
from th_jax.driving import animate as script
from th_jax.driving import driver as drivers
from th_jax.driving import panels as layout
from th_jax.driving.driver import Driving
from th_jax.driving.output import record_of_driving
from th_jax.driving.panels import driver_crops
from th_jax.driving.same_person import Choice
from th_jax.faces import Square, crop_frame
from th_jax.media import MediaError, open_video
from th_jax.media import audio as sound
from th_jax.models.networks import Networks
from th_jax.provenance import Ingredient, Kind, Provenance, Role
from th_jax.training.finetune import avatar_from_embedding

NETWORKS = Networks(image_size=16, base_width=4)
FRAMES = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("apart")
    embedding = jax.random.normal(jax.random.key(1), (NETWORKS.plan.embedding,))
    avatar = avatar_from_embedding(NETWORKS, NETWORKS.init(jax.random.key(0)), embedding)
    save_avatar(folder / "ada.safetensors", avatar, networks=NETWORKS, provenance=Provenance(kind=Kind.GENERATED))
    write_clip(folder / "driver.mp4", swaying(FRAMES), tone=True)
    return folder


@pytest.fixture
def followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first pass has been made: a face in every frame."""

    def run(_: Any, path: str, out: str, **options: Any) -> tuple[Any, ...]:
        face = np.random.default_rng(0).uniform(80, 180, (68, 2)).astype(np.float32)
        Path(out).write_bytes(np.tile(face, (FRAMES, 1, 1)).tobytes())
        return np.arange(FRAMES) / 25, np.zeros(FRAMES, np.int64), [(0, 256, 256)], (25, 1), True, 0

    monkeypatch.setattr(drivers, "run_limited", run)


def driving(folder: Path, squares: list[tuple[float, float, float]]) -> Driving:
    count = len(squares)
    points, places = np.zeros((count, 68, 2), np.float32), np.array(squares)
    segment = np.where(np.isnan(places[:, 2]), -1, 0)
    return Driving(points, np.arange(count) / 25, segment, Fraction(25), places, folder / "driver.mp4", False, 0)


def test_crops_are_those_of_this_process(folder: Path) -> None:
    """The first square before the first face, the last one without a face; frames are dropped and repeated."""
    unknown = (np.nan, np.nan, np.nan)
    squares = [unknown, (10.3, 19.8, 100.2), (1, 2, 3), (60, 40, 90), unknown]
    shown = np.array([0, 1, 1, 3, 4])
    came = list(driver_crops(driving(folder, squares), shown, size=24))
    with open_video(folder / "driver.mp4") as video:
        frames = [frame for _, frame in video.frames()]
    first, last = Square(10, 20, 100), Square(60, 40, 90)
    used = [first, first, first, last, last]
    wanted = [crop_frame(frames[index], square, size=24) for index, square in zip(shown, used, strict=True)]
    np.testing.assert_array_equal(came, wanted)


@pytest.mark.parametrize("function", [bad_ends.lies, bad_ends.stops])
def test_images_are_checked(folder: Path, monkeypatch: pytest.MonkeyPatch, function: Callable[..., Any]) -> None:
    monkeypatch.setattr(layout, "crop_video", function)
    crops = driver_crops(driving(folder, [(0, 0, 99)] * 2), np.arange(2), size=24)
    assert next(crops).shape == (24, 24, 3)
    with pytest.raises(MediaError, match=r"driver\.mp4: .*no image 1 of 2"):
        next(crops)


def test_archives_of_an_avatar_are_tested_before_signing(folder: Path) -> None:
    loaded = load_avatar(folder / "ada.safetensors")
    brought = Ingredient(role=Role.SHOT, file="a" * 64, archive=b"no manifests")
    record = dataclasses.replace(loaded.provenance, ingredients=(brought,))
    loaded = dataclasses.replace(loaded, description={**loaded.description, "provenance": record.to_dict()})
    record = record_of_driving(
        loaded, folder / "driver.mp4", layout=("avatar",), marking=None, retargeting=Choice("none")
    )
    assert record.ingredients == (dataclasses.replace(brought, archive=None),)


def animate_badly(folder: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The command's error, which must be one line; no file may be left."""
    chosen = {"--avatar": folder / "ada.safetensors", "--driver": folder / "driver.mp4", "--out": out / "a.mp4"}
    command = [str(part) for pair in chosen.items() for part in pair]
    assert main([*command, "--layout", "driver,avatar", "--chunk", "2"]) == 1
    printed = capsys.readouterr().err.strip()
    assert len(printed.splitlines()) == 1
    assert list(out.iterdir()) == []
    return printed


BAD_ENDS = [
    (bad_ends.is_killed, {}, "its process was killed, probably because memory ran out"),
    (bad_ends.hangs, {"seconds": 0.5}, "it takes longer than 0.5 s, the limit"),
    (bad_ends.eats_memory, {"memory": 2**30}, "it needs more than 1024 MiB of memory, the limit"),
]


@pytest.mark.parametrize(
    ("module", "decoder", "limits"), [(layout, "crop_video", "DRIVER_LIMITS"), (sound, "decode_sound", "SOUND_LIMITS")],
    ids=["pictures", "sound"],
)  # fmt: skip
@pytest.mark.parametrize(("function", "within", "sentence"), BAD_ENDS)
@pytest.mark.usefixtures("followed")
def test_failing_decoders(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    function: Callable[..., Any], within: dict[str, Any], sentence: str, module: ModuleType, decoder: str, limits: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(module, decoder, function)
    monkeypatch.setattr(module, limits, getattr(module, limits)._replace(**within))
    printed = animate_badly(folder, tmp_path, capsys)
    assert printed.endswith(f"driver.mp4: {sentence}")


def test_a_chunk_without_frames_is_rejected_before_the_driver_is_followed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def followed(*_: Any, **__: Any) -> None:
        raise AssertionError("the driver was followed")

    monkeypatch.setattr(script, "track_driver", followed)
    command = ["--avatar", str(folder / "ada.safetensors"), "--driver", str(folder / "driver.mp4")]
    assert main([*command, "--out", str(tmp_path / "a.mp4"), "--chunk", "0"]) == 1
    assert "chunk must be at least 1 frame, got 0" in capsys.readouterr().err


@pytest.mark.usefixtures("followed")
def test_out_of_memory_is_one_sentence(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(reason: str) -> None:
        def rendered(*_: Any, **__: Any) -> Any:
            raise jax.errors.JaxRuntimeError(reason)
            yield

        monkeypatch.setattr(script, "render_stream", rendered)

    fails("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes")
    assert animate_badly(folder, tmp_path, capsys).endswith("out of memory; lower --chunk, which is 2")
    fails("INTERNAL: no such device")
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        animate_badly(folder, tmp_path, capsys)
