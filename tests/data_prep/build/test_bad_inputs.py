"""Whatever lies in a folder: loading shots raises nothing but its own errors, preparation nothing but reasons.

Hanging decoders, crashes and memory are tested with the sandbox; processes that die, with the workers.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.build.prepare_video import Prepared, Settings, prepare_video
from data_prep.build.quality import Reason, Thresholds
from data_prep.build.sources import SourceVideo
from tests.data_prep import bad_files as bad
from tests.data_prep.bad_files import NO_FACE, USED, BadFile, heads, make_video, on_gray
from th_jax.data.schema import validate
from th_jax.data.shots import load_shots
from th_jax.media import DEFAULT_LIMITS, Limits, MediaError, MediaFault, open_video

SMALL = Settings(size=64, frames=6, gap=0.3, licence="CC0-1.0", thresholds=Thresholds(frames=3))
UNDECODABLE, UNSUPPORTED, OVER = MediaFault.UNDECODABLE, MediaFault.UNSUPPORTED, MediaFault.OVER_LIMITS

VIDEOS = [
    BadFile("zero bytes.mp4", Path.touch, MediaFault.EMPTY, Reason.UNDECODABLE),
    BadFile("renamed text.mp4", bad.text, UNDECODABLE, Reason.UNDECODABLE),
    BadFile("noise.mkv", bad.noise, UNDECODABLE, Reason.UNDECODABLE),
    BadFile("renamed image.mp4", lambda p: Image.new("RGB", (9, 9)).save(p, "JPEG"), UNDECODABLE, Reason.UNDECODABLE),
    BadFile("cut off.mp4", bad.cut(0.5, lambda p: make_video(p, heads())), UNDECODABLE, Reason.UNDECODABLE),
    BadFile(
        "cut off behind its index.mp4",
        bad.cut(0.7, lambda p: make_video(p, heads(), container_options={"movflags": "faststart"})),
        USED,
        None,
        also=Reason.UNDECODABLE,
    ),
    BadFile("damaged.mp4", bad.damaged, USED, None, also=Reason.UNDECODABLE),
    BadFile("sound alone.mp4", bad.sound, UNSUPPORTED, Reason.UNSUPPORTED),
    BadFile(
        "foreign codec.avi",
        lambda p: make_video(p, heads(), codec="huffyuv", pix_fmt="yuv422p", options={}),
        UNSUPPORTED,
        Reason.UNSUPPORTED,
    ),
    BadFile("playlist.mp4", lambda p: p.write_text("#EXTM3U\n#EXTINF:9,\nhttp://example.org/a.ts\n"), UNDECODABLE,
            Reason.UNDECODABLE),
    BadFile("list of files.mp4", lambda p: p.write_text("ffconcat version 1.0\nfile '/etc/hostname'\n"), UNDECODABLE,
            Reason.UNDECODABLE),
    BadFile("lying header.avi", bad.lying_avi, UNDECODABLE, Reason.UNDECODABLE),
    BadFile("lying header.gif", bad.gif_header, UNDECODABLE, Reason.UNDECODABLE),
    BadFile("nine hours.mp4", lambda p: make_video(p, heads()[:2], ticks=[0, 3_240_000]), OVER, Reason.OVER_LIMITS),
    BadFile("nine gigabytes.mp4", bad.sparse, OVER, Reason.OVER_LIMITS),
    BadFile("many frames.mp4", lambda p: make_video(p, heads()), OVER, Reason.OVER_LIMITS,
            limits=DEFAULT_LIMITS._replace(frames=10)),
    BadFile(
        "8k.mp4",
        lambda p: make_video(p, np.full((1, 4320, 7680, 3), 99, np.uint8), options={"preset": "ultrafast"}),
        NO_FACE,
        Reason.NO_FACE,
    ),
    BadFile("one pixel.gif", lambda p: Image.new("RGB", (1, 1)).save(p), NO_FACE, Reason.TOO_SHORT),
    BadFile(
        "two lines.avi",
        lambda p: make_video(p, np.full((3, 2, 4096, 3), 9, np.uint8), codec="mjpeg", pix_fmt="yuvj420p", options={}),
        NO_FACE,
        Reason.NO_FACE,
    ),
    BadFile("one frame.mp4", lambda p: make_video(p, heads()[:1]), USED, Reason.TOO_SHORT),
    BadFile("still.mp4", lambda p: make_video(p, np.repeat(heads()[:1], 12, 0)), USED, Reason.TOO_SHORT,
            also=Reason.DUPLICATE_FRAME),
    BadFile("uneven times.mp4", lambda p: make_video(p, heads(), ticks=[n * 10 + 3 * (n % 3) for n in range(16)]), USED, None),
    BadFile("rotated.mp4", lambda p: make_video(p, np.rot90(heads(), -1, (1, 2)), rotation=90), USED, None),
    BadFile("moving.gif", bad.moving_gif, USED, None),
    BadFile("two sizes.mpg", bad.two_sizes, USED, None),
    BadFile("Жанна 😀 ñ.mp4", lambda p: make_video(p, heads()), USED, None),
    BadFile("no face.mp4", lambda p: make_video(p, np.full((8, 96, 96, 3), 150, np.uint8)), NO_FACE, Reason.NO_FACE),
    BadFile("profile.mp4", lambda p: make_video(p, bad.profiles()), NO_FACE, Reason.NO_FACE),
    BadFile("two faces.mp4", lambda p: make_video(p, np.concatenate([heads()] * 2, axis=2)), USED, Reason.SEVERAL_FACES),
    BadFile("speck of a face.mp4", lambda p: make_video(p, on_gray(heads()[::2], 24)), NO_FACE, Reason.NO_FACE),
    BadFile("tiny face.mp4", lambda p: make_video(p, on_gray(heads()[::2], 64)), USED, Reason.TOO_SMALL),
    BadFile("dark.mp4", lambda p: make_video(p, heads()[::2] // 6), USED, Reason.TOO_DARK),
    BadFile("blurred.mp4", lambda p: make_video(p, bad.blurred(heads()[::2])), USED, Reason.TOO_BLURRED),
    BadFile("loop of links.mp4", bad.loop, MediaFault.UNREADABLE, Reason.UNDECODABLE),
    BadFile("broken link.mp4", lambda p: p.symlink_to("nowhere"), MediaFault.MISSING, Reason.UNDECODABLE),
    BadFile("pipe.mp4", os.mkfifo, UNSUPPORTED, Reason.UNSUPPORTED),
    BadFile("folder.mp4", Path.mkdir, "contains no images", Reason.UNSUPPORTED),
]  # fmt: skip

PHOTOS = [
    BadFile("zero bytes.png", Path.touch, MediaFault.EMPTY, Reason.UNDECODABLE),
    BadFile("renamed text.png", bad.text, UNDECODABLE, Reason.UNDECODABLE),
    BadFile("drawing.png", lambda p: p.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>"), UNDECODABLE,
            Reason.UNDECODABLE),
    BadFile("renamed gif.png", bad.moving_gif, UNDECODABLE, Reason.UNDECODABLE),
    BadFile("cut off.jpg", bad.cut(0.5, bad.make_image()), UNDECODABLE, Reason.UNDECODABLE),
    BadFile("lying header.png", lambda p: bad.png(p, 100_000, 100_000), OVER, Reason.OVER_LIMITS),
    BadFile("lying header.bmp", bad.bmp_header, OVER, Reason.OVER_LIMITS),
    BadFile("no size.png", lambda p: bad.png(p, 0, 0), UNDECODABLE, Reason.UNDECODABLE),
    BadFile("no pixels.png", lambda p: bad.png(p, 64, 64), UNDECODABLE, Reason.UNDECODABLE),
    BadFile("much text.png", bad.text_bomb, UNDECODABLE, Reason.UNDECODABLE),
    BadFile("floats.tiff", lambda p: Image.fromarray(np.ones((64, 64), np.float32)).save(p), UNSUPPORTED,
            Reason.UNSUPPORTED),
    BadFile("one line.png", lambda p: Image.new("RGB", (60_000, 1)).save(p), NO_FACE, Reason.NO_FACE),
    BadFile("two faces.png", lambda p: Image.fromarray(np.concatenate([bad.head()] * 2, 1)).save(p), "several faces",
            Reason.SEVERAL_FACES),
    BadFile("cmyk.jpg", bad.make_image(mode="CMYK"), USED, None),
    BadFile("16 bit.png", bad.sixteen_bits, USED, None),
    BadFile("gray.png", bad.make_image(mode="L"), USED, None),
    BadFile("palette.png", bad.make_image(mode="P"), USED, None),
    BadFile("alpha.png", bad.alpha, USED, None),
    BadFile("turned.jpg", bad.turned, USED, None),
    BadFile("pages.tiff", bad.pages, USED, None),
    BadFile("with a tail.jpg", bad.with_a_tail, USED, None),
    BadFile("loop of links.png", bad.loop, MediaFault.UNREADABLE, Reason.UNDECODABLE),
    BadFile("pipe.png", os.mkfifo, UNSUPPORTED, Reason.UNSUPPORTED),
]  # fmt: skip

EVERYTHING = [*((case, False) for case in VIDEOS), *((case, True) for case in PHOTOS)]


def prepared(folder: Path, name: str, *, photos: bool, limits: Limits = DEFAULT_LIMITS) -> Prepared:
    video = SourceVideo(f"ada/{name}", "ada", (f"ada/{name}",), photos=photos)
    settings = SMALL._replace(limits=limits, thresholds=Thresholds(frames=1 if photos else 3))
    return prepare_video(folder, video, settings)


@pytest.mark.parametrize(("case", "photos"), EVERYTHING, ids=[case.name for case, _ in EVERYTHING])
def test_bad_input(tmp_path, case, photos):
    path = tmp_path / "ada" / case.name
    path.parent.mkdir()
    case.make(path)

    if case.shots == USED:
        shots = load_shots(path, size=64, limits=case.limits)
        assert shots.frames.shape[1:] == (64, 64, 3)
        assert np.isfinite(shots.landmarks).all()
        eyes, chin = shots.landmarks[0, 36:48, 1].mean(), shots.landmarks[0, 8, 1]
        assert chin - eyes > 0.2, "the head stands upright"
        assert abs(shots.landmarks[0, 36:42, 1].mean() - shots.landmarks[0, 42:48, 1].mean()) < 0.1
    elif isinstance(case.shots, MediaFault):
        with pytest.raises(MediaError) as refused:
            load_shots(path, size=64, limits=case.limits)
        assert refused.value.fault is case.shots
        assert str(path) in str(refused.value)
    else:
        with pytest.raises(ValueError, match=case.shots):
            load_shots(path, size=64, limits=case.limits)

    record, drops = prepared(tmp_path, case.name, photos=photos, limits=case.limits)
    reasons = {drop.reason for drop in drops}
    assert all(str(tmp_path) not in drop.line() for drop in drops)
    if isinstance(case.shots, MediaFault):
        levels = [(drop.level, drop.reason) for drop in drops]
        assert levels == [("clip", case.reason), ("video", case.reason)]
        assert drops[0].detail.startswith("it "), "the file's name is not repeated"
    if case.also:
        assert case.also in reasons
    if case.reason is None:
        assert record is not None
        validate(record)
    else:
        assert record is None
        assert case.reason in reasons
        assert (drops[-1].level, drops[-1].reason) == ("video", case.reason)


@pytest.mark.parametrize("name", ["locked.mp4", "locked.png"])
def test_no_permission(tmp_path, monkeypatch, name):
    """Root may read everything, so the refusal is played."""
    path = tmp_path / "ada" / name
    path.parent.mkdir()
    make_video(path, heads()) if name.endswith("mp4") else Image.fromarray(bad.head()).save(path)
    before = Path.open

    def refusing(opened, *arguments, **options):
        if opened == path:
            raise PermissionError(13, "Permission denied", str(opened))
        return before(opened, *arguments, **options)

    monkeypatch.setattr(Path, "open", refusing)
    with pytest.raises(MediaError, match="permission denied") as refused:
        load_shots(path, size=64)
    assert refused.value.fault is MediaFault.UNREADABLE
    record, drops = prepared(tmp_path, name, photos=name.endswith("png"))
    assert record is None
    assert [drop.reason for drop in drops] == [Reason.UNDECODABLE] * 2


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """A few bytes changed, a stretch lost or repeated, mostly near the start, where headers are."""
    spoilt = bytearray(content)
    for _ in range(int(rng.integers(1, 6))):
        place = int(len(spoilt) * rng.random() ** 3)
        kind = rng.integers(3)
        if kind == 0:
            spoilt[place : place + 4] = rng.bytes(4)
        elif kind == 1:
            del spoilt[place : place + int(rng.integers(1, 64))]
        else:
            spoilt[place:place] = spoilt[place : place + int(rng.integers(1, 64))]
    return bytes(spoilt)


def survive(tmp_path: Path, mutations: int) -> int:
    """Open and decode mutated videos; how many were refused."""
    rng, refused = np.random.default_rng(0), 0
    sources = {
        "a.mp4": {},
        "b.mkv": {},
        "c.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p", "options": {}},
        "d.mpg": {"container_format": "mpegts"},
        "e.gif": None,
    }
    limits = DEFAULT_LIMITS._replace(pixels=2**22, frames=1000, seconds=600.0)
    for name, options in sources.items():
        path = tmp_path / name
        bad.moving_gif(path) if options is None else make_video(path, heads()[:8], **options)
        content = path.read_bytes()
        for _ in range(mutations):
            path.write_bytes(mutated(content, rng))
            try:
                with open_video(path, limits=limits) as video:
                    for _, frame in video.frames_at([0.0, 0.2, 0.5]):
                        assert frame.dtype == np.uint8
                        assert frame.shape == (*reversed(video.size), 3)
            except MediaError:
                refused += 1
    return refused


def test_mutated_videos(tmp_path):
    assert 5 < survive(tmp_path, 12) < 60


@pytest.mark.slow
def test_many_mutated_videos(tmp_path):
    assert 500 < survive(tmp_path, 1000) < 4800
