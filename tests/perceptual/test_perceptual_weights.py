"""Weight files: valid, truncated, modified, of another network, or missing, each with its error."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from th_jax.perceptual.frozen import Origin, WeightsError, load_perceptual, load_weights, save_weights, weights_folder

ORIGIN = Origin("somewhere.h5", "00", "a licence")


@pytest.fixture
def tiny(small_vgg16) -> dict[str, dict[str, np.ndarray]]:
    """The layers that the files of these tests hold."""
    return small_vgg16


@pytest.fixture
def saved(tiny, tmp_path: Path) -> Path:
    path = tmp_path / "weights" / "vgg16.safetensors"
    save_weights(path, tiny, network="vgg16", origin=ORIGIN)
    return path


def test_round_trip_is_exact(tiny, saved: Path) -> None:
    loaded = load_weights(saved, network="vgg16")
    assert list(loaded) == list(tiny)
    for name, layer in tiny.items():
        np.testing.assert_array_equal(loaded[name]["kernel"], layer["kernel"])
        np.testing.assert_array_equal(loaded[name]["bias"], layer["bias"])
    assert [p.name for p in saved.parent.iterdir()] == ["vgg16.safetensors"]


def test_a_folder_wins_over_the_bundled_file(tiny, saved: Path) -> None:
    loaded = load_perceptual(["vgg16"], folder=saved.parent)
    assert loaded["vgg16"]["block1_conv1"]["kernel"].shape == (3, 3, 3, 2)


def test_missing_weights_give_instructions(tmp_path: Path) -> None:
    command = "create them with `th-jax prepare convert-weights vgg19 FILE` from Keras' vgg19_weights"
    with pytest.raises(WeightsError, match=rf"weights of vgg19 are missing at .*{command}"):
        load_perceptual(["vgg19"], folder=tmp_path)
    with pytest.raises(WeightsError, match=r"from Oxford's VGG_FACE\.caffemodel or vgg_face\.mat"):
        load_perceptual(["vggface"], folder=tmp_path)


def test_a_user_without_a_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda user: {}[user])
    monkeypatch.setenv("TH_JAX_WEIGHTS", str(tmp_path))
    assert weights_folder() == tmp_path
    monkeypatch.delenv("TH_JAX_WEIGHTS")
    assert weights_folder() is None
    assert set(load_perceptual(["vgg16"])) == {"vgg16"}, "what is bundled needs no folder"
    with pytest.raises(WeightsError, match=r"no home folder: set TH_JAX_WEIGHTS .*vgg19"):
        load_perceptual(["vgg19"])


def test_truncated_file(saved: Path) -> None:
    content = saved.read_bytes()
    for length in (0, 4, 100, len(content) - 1):
        saved.write_bytes(content[:length])
        with pytest.raises(WeightsError, match="truncated"):
            load_weights(saved, network="vgg16")


def test_any_altered_tensor_byte_is_found(saved: Path) -> None:
    content = saved.read_bytes()
    (header,) = struct.unpack("<Q", content[:8])
    for place in np.random.default_rng(1).integers(8 + header, len(content), 20):
        altered = bytearray(content)
        altered[place] ^= 0x10
        saved.write_bytes(bytes(altered))
        with pytest.raises(WeightsError, match="do not match their checksum"):
            load_weights(saved, network="vgg16")


def test_any_altered_header_byte_is_found(saved: Path) -> None:
    """A changed header either loads the same tensors or is rejected."""
    content = saved.read_bytes()
    whole = {name: layer["kernel"] for name, layer in load_weights(saved, network="vgg16").items()}
    (header,) = struct.unpack("<Q", content[:8])
    for place in np.random.default_rng(2).integers(0, 8 + header, 100):
        altered = bytearray(content)
        altered[place] ^= 0x01
        saved.write_bytes(bytes(altered))
        try:
            loaded = load_weights(saved, network="vgg16")
        except WeightsError:
            continue
        for name, kernel in whole.items():  # only a word about the origin changed
            np.testing.assert_array_equal(loaded[name]["kernel"], kernel)


def test_weights_of_another_network(saved: Path) -> None:
    with pytest.raises(WeightsError, match="weights of vgg16, but expected vgg19"):
        load_weights(saved, network="vgg19")


def test_a_foreign_safetensors_file(saved: Path) -> None:
    content = saved.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"]["format"] = "pt"
    text = json.dumps(header).encode()
    saved.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    with pytest.raises(WeightsError, match="converter"):
        load_weights(saved, network="vgg16")


def test_a_network_that_does_not_exist() -> None:
    with pytest.raises(WeightsError, match="unknown perceptual network 'resnet'"):
        load_perceptual(["resnet"])


def test_saving_rejects_wrong_layers(tiny, tmp_path: Path) -> None:
    tiny["block3_conv2"]["kernel"] = tiny["block3_conv2"]["kernel"][:, :, :-1]
    with pytest.raises(WeightsError, match=r"block3_conv2 of vgg16 .* \[3, 3, 4, 4\]"):
        save_weights(tmp_path / "x.safetensors", tiny, network="vgg16", origin=ORIGIN)


def test_saving_rejects_what_half_precision_cannot_hold(tiny, tmp_path: Path) -> None:
    tiny["block1_conv1"]["bias"] = np.full(2, 1e6, np.float32)
    with (
        np.errstate(over="ignore"),
        pytest.raises(WeightsError, match="block1_conv1 of vgg16 is not finite"),
    ):
        save_weights(tmp_path / "x.safetensors", tiny, network="vgg16", origin=ORIGIN, dtype=np.float16)
    assert not list(tmp_path.iterdir())
