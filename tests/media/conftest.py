"""Videos generated for tests: the color of a frame encodes its index; optional defects."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import pytest
from numbered_video import SIZE, add_sound, numbered_frame


@pytest.fixture
def make_video(tmp_path: Path) -> Callable[..., Path]:
    def make(
        name: str = "clip.mp4",
        *,
        frames: int = 30,
        ticks: Sequence[int] | None = None,
        rotation: int = 0,
        sound: str | None = None,
        codec: str = "libx264",
        pix_fmt: str = "yuv420p",
        options: dict[str, str] | None = None,
        container_options: dict[str, str] | None = None,
        title: str | None = None,
    ) -> Path:
        """`ticks` are the frames' times in hundredths of a second."""
        path = tmp_path / name
        with av.open(str(path), "w", options=container_options or {}) as container:
            if title is not None:
                container.metadata["title"] = title
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = *SIZE, pix_fmt
            stream.options = {"g": "10", "crf": "10"} if options is None else options
            if rotation:
                stream.set_display_rotation(rotation)
            if ticks is not None:
                stream.codec_context.time_base = Fraction(1, 100)
            sounds = add_sound(container, frames / 25, sound) if sound else []
            for index in range(frames):
                frame = av.VideoFrame.from_ndarray(numbered_frame(index), format="rgb24").reformat(format=pix_fmt)
                frame.pts, frame.time_base = index, Fraction(1, 25)
                if ticks is not None:
                    frame.pts, frame.time_base = ticks[index], Fraction(1, 100)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
            for packet in sounds:
                container.mux(packet)
        return path

    return make


@pytest.fixture
def make_sound(tmp_path: Path) -> Callable[[], Path]:
    def make() -> Path:
        path = tmp_path / "sound.m4a"
        with av.open(str(path), "w", format="mp4") as container:
            for packet in add_sound(container, 1.0, "aac"):
                container.mux(packet)
        return path

    return make
