"""Stores outputs of a tiny preparation and of two rendered people, as numbers that agree between CPUs.

python -m tests.data_prep.golden_outputs

Comments, names and refactorings do not change them. If they change, prepared videos and rendered people of before must not be
mixed with new ones, which is what the versions are for.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from data_prep.build.prepare_video import PREPARATION_VERSION, Settings, prepare_video
from data_prep.build.quality import Thresholds
from data_prep.build.sources import SourceVideo
from data_prep.heads.people import Style
from data_prep.heads.records import RENDER_VERSION, HeadSettings, head_record
from th_jax.data.schema import VideoRecord
from th_jax.media.encode import deterministic_x264

FILE = Path(__file__).with_suffix(".json")
PORTRAIT = Path(__file__).parents[2] / "th_jax" / "assets" / "portrait" / "astronaut.jpg"
FPS, SIDE = 10, 192
SETTINGS = Settings(size=96, frames=3, gap=0.3, pupils=True, licence="CC0-1.0", thresholds=Thresholds(frames=2))

TOLERANCES = {"times": 1e-3, "crops": 2.0, "landmarks": 0.006, "colors": 2.5, "bytes": 0.03}
"""Greatest differences; of `bytes` relative ones."""


def summarize(record: VideoRecord) -> dict[str, Any]:
    """The content of a record in some hundred numbers."""
    frames = [cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB) for jpeg in record.frames]
    small = [cv2.resize(frame, (4, 4), interpolation=cv2.INTER_AREA) for frame in frames]
    return {
        "side": len(frames[0]),
        "clips": record.clips.tolist(),
        "times": np.nan_to_num(record.times, nan=-1).round(4).tolist(),
        "crops": record.crops.round(2).tolist(),
        "unknown": np.isnan(record.landmarks[..., 0]).sum(-1).tolist(),
        "landmarks": np.nan_to_num(record.landmarks[:, ::6], nan=-1).round(4).tolist(),
        "colors": np.array(small, int).tolist(),
        "bytes": [len(jpeg) for jpeg in record.frames],
        "source": record.source_sha256 if record.true_landmarks is not None else "",
    }


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Names of the numbers that differ by more than CPUs do."""
    different = []
    for name in {**found, **expected}:
        a, b = (np.asarray(summary.get(name)) for summary in (found, expected))
        if name in TOLERANCES and a.shape == b.shape:
            scale = b if name == "bytes" else 1.0
            same = bool((np.abs(a - b) <= TOLERANCES[name] * scale).all())
        else:
            same = np.array_equal(a, b)
        if not same:
            different.append(name)
    return different


def prepared() -> dict[str, VideoRecord]:
    """Records of two photos and of a short clip, made from a bundled portrait without the renderer."""
    portrait = cv2.cvtColor(cv2.imread(str(PORTRAIT)), cv2.COLOR_BGR2RGB)
    views = [_view(portrait, shift, 1.0 + 0.02 * shift) for shift in range(10)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, view in (("0.png", views[0]), ("1.png", views[9])):
            cv2.imwrite(str(folder / name), cv2.cvtColor(view, cv2.COLOR_RGB2BGR))
        _write_clip(folder / "clip.mp4", views)
        sources = {
            "photos": SourceVideo("ada", "ada", ("0.png", "1.png"), photos=True),
            "clip": SourceVideo("ada/clip.mp4", "ada", ("clip.mp4",)),
        }
        made = {name: prepare_video(folder, video, SETTINGS) for name, video in sources.items()}
    assert all(result.record is not None for result in made.values()), made
    return {name: result.record for name, result in made.items() if result.record is not None}


def rendered() -> dict[str, VideoRecord]:
    """A record of each style."""
    settings = HeadSettings(frames=1, size=64, render_size=192)
    return {style.value: head_record(40, settings._replace(style=style)).record for style in Style}


def _view(portrait: np.ndarray, shift: int, zoom: float) -> np.ndarray:
    scale = zoom * SIDE / max(portrait.shape)
    matrix = np.array([[scale, 0, -2.0 * shift], [0, scale, -1.0 * shift]])
    return cv2.warpAffine(portrait, matrix, (SIDE, SIDE), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)


def _write_clip(path: Path, frames: list[np.ndarray]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "12"} | deterministic_x264())
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode(None))


def main() -> None:
    """Store the outputs of now."""
    outputs = {"preparation": (PREPARATION_VERSION, prepared()), "heads": (RENDER_VERSION, rendered())}
    golden = {
        kind: {"version": version, "outputs": {name: summarize(record) for name, record in records.items()}}
        for kind, (version, records) in outputs.items()
    }
    FILE.write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
