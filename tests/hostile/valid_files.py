"""Makes one small whole file of every kind that is read, for tests that then damage it."""

import dataclasses
import functools
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from th_jax.avatars.file import write_tensors
from th_jax.consent import ConsentRecord
from th_jax.consent.record import Basis, write_consent
from th_jax.data.schema import VideoRecord, serialise, shard_name
from th_jax.data.tfrecord import INDEX_SUFFIX, pack, write_index
from th_jax.data.video_list import VIDEO_LIST_FILE, VideoEntry, VideoList, row_key, save_video_list
from th_jax.models.networks import Networks
from th_jax.perceptual import vgg
from th_jax.perceptual.frozen import Origin, save_weights
from th_jax.provenance import Kind, Provenance, sidecar_path, write_image
from th_jax.storage.tensors import leaves_by_name, write_described
from th_jax.version import __version__
from th_jax.weights import FORMAT as META_FORMAT
from th_jax.weights import MetaModel, load_meta

NETWORKS = Networks(image_size=16, base_width=4)
ABOUT = {"name": "tiny", "steps": 7, "data": "noise", "licence": "CC0-1.0"}
PROVENANCE = Provenance(kind=Kind.GENERATED, created="2026-11-23T12:00:00+00:00", avatar="a" * 64, inputs=("b" * 64,))
TINY_CHANNELS = (2, 3, 4, 5, 6)
"""Of VGG16, for the length of a test (`vgg.CHANNELS`)."""


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def image(folder: Path, name: str = "a.png") -> Path:
    smooth = cv2.resize(noise(0, 4, 4, 3), (20, 20), interpolation=cv2.INTER_CUBIC)
    (folder / name).write_bytes(cv2.imencode(Path(name).suffix, smooth)[1].tobytes())
    return folder / name


def heic(folder: Path) -> Path:
    """Made by tests/golden/make_heic.py."""
    return Path(shutil.copy(Path(__file__).parents[1] / "data" / "portrait.heic", folder / "a.heic"))


def video(folder: Path) -> Path:
    path = folder / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.options = {"g": "2", "preset": "ultrafast"}
        for number in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise(number, 32, 32, 3), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def video_with_sound(folder: Path) -> Path:
    path = folder / "a.mp4"
    with av.open(str(path), "w") as container:
        image, sound = container.add_stream("mjpeg", rate=25), container.add_stream("aac", rate=16000, layout="mono")
        image.width, image.height, image.pix_fmt = 32, 32, "yuvj420p"
        frame = av.AudioFrame.from_ndarray(noise(9, 1, 5000).astype(np.float32) / 255, format="fltp", layout="mono")
        frame.sample_rate = 16000
        for number in range(8):
            container.mux(image.encode(av.VideoFrame.from_ndarray(noise(number, 32, 32, 3), format="rgb24")))
        for encoder, last in ((image, None), (sound, frame), (sound, None)):
            container.mux(encoder.encode(last))
    return path


@functools.cache
def weights() -> dict[str, np.ndarray]:
    """Numbers by the names and of the shapes of the networks' own, which nothing needs to be compiled for."""
    rng = np.random.default_rng(0)
    shapes = leaves_by_name(NETWORKS.shapes())
    return {name: rng.normal(size=leaf.shape).astype(np.float32) for name, leaf in shapes.items()}


@functools.cache
def meta() -> MetaModel:
    with tempfile.TemporaryDirectory() as folder:
        return load_meta(meta_weights(Path(folder)))


def meta_weights(folder: Path) -> Path:
    path = folder / "tiny.safetensors"
    write_described(path, weights(), json.dumps(meta_description()), file_format=META_FORMAT)
    return path


def meta_description() -> dict[str, Any]:
    return ABOUT | {"version": __version__, "networks": dataclasses.asdict(NETWORKS), "perceptual": []}


def avatar(folder: Path) -> Path:
    """A feed-forward one."""
    rng = np.random.default_rng(0)
    tensors = {
        "adain": rng.normal(size=NETWORKS.plan.adain_size).astype(np.float32),
        "landmarks": rng.uniform(0.2, 0.8, (1, 68, 2)).astype(np.float32),
    }
    path = folder / "a.safetensors"
    write_tensors(path, tensors, avatar_description())
    return path


def avatar_description() -> dict[str, Any]:
    return {
        "version": __version__,
        "networks": dataclasses.asdict(NETWORKS),
        "kind": "feed_forward",
        "meta": {"name": "tiny", "digest": meta().digest},
        "provenance": PROVENANCE.to_dict(),
    }


def perceptual_weights(folder: Path) -> Path:
    """Of `TINY_CHANNELS`."""
    rng = np.random.default_rng(0)
    layers = {
        name: {
            "kernel": rng.normal(size=shape).astype(np.float32),
            "bias": rng.normal(size=shape[-1:]).astype(np.float32),
        }
        for name, shape in vgg.layer_shapes("vgg16").items()
    }
    path = folder / "vgg16.safetensors"
    save_weights(path, layers, network="vgg16", origin=Origin("somewhere.h5", "00", "a license"))
    return path


def consent(folder: Path) -> Path:
    record = ConsentRecord(
        subject="Ada", basis=Basis.SELF, created="2026-11-23T12:00:00+00:00", expires="2027-11-23T12:00:00Z",
        shots=("a" * 64, "b" * 64), nonce="0" * 32,
    )  # fmt: skip
    write_consent(folder / "ada.consent.json", record, overwrite=True)
    return folder / "ada.consent.json"


def sidecar(folder: Path) -> Path:
    """Beside the image that it is about."""
    path = folder / "a.png"
    write_image(path, noise(0, 4, 4, 3), provenance=PROVENANCE)
    return sidecar_path(path)


def record(number: int = 0, *, frames: int = 3) -> VideoRecord:
    rng = np.random.default_rng(number)
    jpegs = [cv2.imencode(".jpg", cv2.resize(noise(n, 3, 3, 3), (16, 16)))[1].tobytes() for n in range(frames)]
    return VideoRecord(
        frames=tuple(jpegs),
        landmarks=rng.random((frames, 68, 2), np.float32),
        true_landmarks=None,
        times=np.arange(frames, dtype=np.float32) * 1.5,
        clips=np.zeros(frames, np.int64),
        crops=np.tile(np.array([-3, 4, 16], np.float32), (frames, 1)),
        minimum_gap=1.0,
        identity=f"person{number}",
        video_id=f"video{number}",
        source_sha256=hashlib.sha256(bytes([number])).hexdigest(),
        licence="CC0-1.0",
    )


def data_set(folder: Path) -> Path:
    """Two videos in one shard, with index and list; the shard's path."""
    records = [record(0), record(1)]
    shard = folder / shard_name("test", "train", 0, 1)
    shard.write_bytes(b"".join(pack(serialise(one)) for one in records))
    write_index(shard)
    entries = tuple(
        VideoEntry(row_key(r.video_id), r.video_id, r.identity, len(r.frames), 0, n) for n, r in enumerate(records)
    )
    save_video_list(VideoList("test", 68, 16, False, {"train": 1}, {"train": entries}), folder)
    return shard


def shard_index(folder: Path) -> Path:
    return Path(f"{data_set(folder)}{INDEX_SUFFIX}")


def shard_alone(folder: Path) -> Path:
    shard = data_set(folder)
    Path(f"{shard}{INDEX_SUFFIX}").unlink()
    return shard


def video_list(folder: Path) -> Path:
    data_set(folder)
    return folder / VIDEO_LIST_FILE


def face() -> np.ndarray:
    """68 points of a plain face about (120, 110), 130 px wide."""
    around = np.linspace(np.pi, 0, 17)
    jaw = np.stack([120 + 65 * np.cos(around), 100 + 80 * np.sin(around)], -1)
    brows = [(x, 75) for x in (65, 75, 85, 95, 105, 135, 145, 155, 165, 175)]
    nose = [(120, y) for y in (95, 105, 115, 125)] + [(x, 132) for x in (105, 112, 120, 128, 135)]
    eye = np.array([(-12, 0), (-6, -5), (6, -5), (12, 0), (6, 5), (-6, 5)])
    lips = np.linspace(np.pi, 3 * np.pi, 21)[:-1]
    mouth = np.stack([120 + 25 * np.cos(lips), 152 + 10 * np.sin(lips)], -1)
    return np.concatenate([jaw, brows, nose, eye + np.array([92, 95]), eye + np.array([148, 95]), mouth])


def landmarks_by_hand(suffix: str) -> Callable[[Path], Path]:
    lines = "\n".join(f"{x:.6g} {y:.6g}" for x, y in face())
    content = {
        ".txt": lines,
        ".json": json.dumps(face().tolist()),
        ".pts": f"version: 1\nn_points: 68\n{{\n{lines}\n}}\n",
    }[suffix]

    def make(folder: Path) -> Path:
        (folder / f"face{suffix}").write_text(content)
        return folder / f"face{suffix}"

    return make


def driving_landmarks(folder: Path) -> Path:
    points = np.random.default_rng(0).random((3, 68, 2), np.float32)
    np.savez_compressed(folder / "a.npz", landmarks=points, fps=np.float64(25))
    return folder / "a.npz"


def people(folder: Path) -> Path:
    (folder / "ada").mkdir(exist_ok=True)
    (folder / "people.csv").write_text("name,shots,consent\nada,ada,none\nbob,bob.jpg,bob.consent.json\n")
    return folder / "people.csv"


def films(folder: Path) -> Path:
    (folder / "films.csv").write_text("avatar,driver,out,face\nada.safetensors,speech.mp4,ada.mp4,2\n")
    return folder / "films.csv"


def settings(folder: Path) -> Path:
    (folder / "fast.json").write_text(json.dumps({"preset": "paper", "epochs": 7}))
    return folder / "fast.json"
