"""Short driving videos made from a real portrait (tests/data/LICENSE.md), with a tone and with a gap in the face."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from th_jax.media import read_image
from th_jax.provenance import Kind, Provenance, write_video

PORTRAIT = Path(__file__).parent.parent.parent / "th_jax" / "assets" / "portrait" / "astronaut.jpg"
RECORD = Provenance(kind=Kind.REAL_CROP)


def swaying(count: int, *, amplitude: float = 6.0) -> list[np.ndarray]:
    """A swaying head, 256 px."""
    portrait, frames = read_image(PORTRAIT), []
    for phase in np.linspace(0, 2 * np.pi, count):
        turn = cv2.getRotationMatrix2D((128, 128), 5 * np.sin(phase), 1.0)
        turn[:, 2] += amplitude * np.sin(phase), amplitude * np.cos(phase)
        frames.append(cv2.warpAffine(portrait, turn, (256, 256), borderMode=cv2.BORDER_REPLICATE))
    return frames


def blank(count: int) -> list[np.ndarray]:
    return [np.full((256, 256, 3), 90, np.uint8)] * count


def write_clip(path: Path, frames: list[np.ndarray], *, fps: int | Fraction = 25, tone: bool = False) -> Path:
    """A video, optionally with 16 kHz audio of the same length."""
    source = None
    if tone:
        source = path.with_suffix(".tone.mkv")
        _write_tone(source, len(frames) / float(fps))
    return write_video(path, frames, fps=fps, provenance=RECORD, crf=12, audio_from=source)


def write_uneven(
    path: Path, frames: list[np.ndarray], times: list[float], *, clicks: list[float], seconds: float, rate: int = 16000
) -> Path:
    """A video with frames at the given times in seconds, as phones and screen recorders write, with clicks of 5 ms."""
    wave = np.zeros(round(seconds * rate), np.int16)
    for begin in clicks:
        wave[round(begin * rate) : round((begin + 0.005) * rate)] = 16000
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=30)
        picture.height, picture.width = frames[0].shape[:2]
        picture.pix_fmt, picture.options = "yuv420p", {"crf": "12", "preset": "ultrafast", "bf": "0"}
        picture.codec_context.time_base = Fraction(1, 90000)
        sound = container.add_stream("pcm_s16le", rate=rate, layout="mono")
        for frame, time in zip(frames, times, strict=True):
            shown = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p")
            shown.pts, shown.time_base = round(time * 90000), Fraction(1, 90000)
            container.mux(picture.encode(shown))
        container.mux(picture.encode(None))
        heard = av.AudioFrame.from_ndarray(wave[None], format="s16", layout="mono")
        heard.sample_rate, heard.pts, heard.time_base = rate, 0, Fraction(1, rate)
        container.mux(sound.encode(heard))
        container.mux(sound.encode(None))
    return path


def _write_tone(path: Path, seconds: float) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        tone = (8000 * np.sin(np.arange(int(16000 * seconds)) * 0.2)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, 0, Fraction(1, 16000)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
