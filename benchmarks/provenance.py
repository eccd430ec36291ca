"""What a signed manifest costs, and what it covers: `python -m benchmarks.provenance [--seconds 10,60,600] [--flip_bits]`.

Videos of a rendered head, 256 px and 25 frames/s, are written with a manifest and without one. Printed are the bytes that the
manifest adds, the seconds that signing takes, and the most memory that a process which only signs holds, before and after (on
Linux).

`--flip_bits` takes a small file of each kind instead, flips one bit of every byte of it, one after the other, and asks the
verification for its verdict on each. "altered" and "unreadable" notice it, "marked" does not, and "not found" means that the
manifest is no longer seen as one. What the byte is stands beside the verdict.
"""

import argparse
import itertools
import re
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.heads.identity import draw_identity
from data_prep.heads.motion import talk
from data_prep.heads.render import render_head
from th_jax.provenance import Kind, Provenance, load_signer, unmarked_path, write_gif, write_image, write_video
from th_jax.provenance.c2pa_write import embed_manifest
from th_jax.provenance.verify import Verdict, verify_file

FPS = 25
RECORD = Provenance(kind=Kind.GENERATED, avatar="a" * 64, weights={"heads": "b" * 64}, watermark="aaaa")
"""Names a watermark, so that none is put in: it is the manifest that is measured."""


def head(count: int, *, size: int) -> np.ndarray:
    """So many frames of somebody's talk, `[count, size, size, 3]`."""
    identity, motion = draw_identity(600_000), talk(600_000, seconds=4.0, fps=float(FPS))
    return np.stack([render_head(identity, motion.state(30 + t), size=size).frame for t in range(count)])


def video(frames: np.ndarray, seconds: float) -> Iterator[np.ndarray]:
    """The frames to and fro, with the noise of a camera, for so long."""
    there_and_back = np.concatenate([frames, frames[::-1]])
    noisy = there_and_back + np.random.default_rng(0).normal(scale=3.0, size=there_and_back.shape)
    whole = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
    return itertools.islice(itertools.cycle(whole), round(seconds * FPS))


def sign_once(source: Path, target: Path) -> tuple[float, float, float]:
    """Seconds, and the most memory of this process before and after, in MB."""
    signer, before = load_signer(), _most_memory()
    start = time.perf_counter()
    embed_manifest(source, target, provenance=RECORD, signer=signer)
    return time.perf_counter() - start, before, _most_memory()


def _most_memory() -> float:
    # Not getrusage's: that begins with what the parent held when it made this process.
    (line,) = re.findall(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.M)
    return int(line) / 1024


def measure(seconds: float, frames: np.ndarray, folder: Path, *, padding: int = 0) -> str:
    """A line of the table; with so many MB of media data of zeros at its end, as hours of video have."""
    plain = write_video(
        unmarked_path(folder / "video.mp4"),
        video(frames, seconds),
        fps=FPS,
        provenance=RECORD,
        unmarked_for_research=True,
    )
    if padding:
        with plain.open("ab") as file:
            file.write(struct.pack(">I4sQ", 1, b"mdat", 16 + padding * 10**6))
            file.truncate(file.tell() + padding * 10**6)
    signed = folder / "signed.mp4"
    command = [sys.executable, "-m", "benchmarks.provenance", "--sign", str(plain), str(signed)]
    # A process of its own: the most memory of one that made the video is the video's.
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    taken, before, after = map(float, told.split())
    before_bytes, after_bytes = plain.stat().st_size, signed.stat().st_size
    signed.unlink()
    added = f"{after_bytes - before_bytes:,}"
    return f"{seconds:>8g}{before_bytes / 1e6:>10.1f}{added:>12}{taken:>12.2f}{before:>14.0f}{after:>14.0f}"


def small_files(folder: Path) -> list[Path]:
    """One of each kind, as small as they get, without the records beside them."""
    frames = list(head(3, size=32))
    writers: dict[str, Callable[[Path], Path]] = {
        "PNG": lambda path: write_image(path.with_suffix(".png"), frames[0], provenance=RECORD),
        "JPEG": lambda path: write_image(path.with_suffix(".jpg"), frames[0], provenance=RECORD, quality=80),
        "GIF": lambda path: write_gif(path.with_suffix(".gif"), frames, fps=FPS, provenance=RECORD),
        "MP4": lambda path: write_video(path.with_suffix(".mp4"), frames, fps=FPS, provenance=RECORD),
    }
    made = [write(folder / name) for name, write in writers.items()]
    for path in made:
        path.with_name(path.name + ".provenance.json").unlink()
    return made


def without_limits(function: Callable[..., Any], *arguments: Any, within: Any, **options: Any) -> Any:
    """Looks in this process: a new one for each of thousands of bytes would take hours."""
    return function(*arguments, **options)


def flip_bits(path: Path, *, stride: int = 1) -> Counter[tuple[Verdict, str]]:
    """How often each verdict is given on the file with one bit of one byte flipped, by what that byte is."""
    original, rng = path.read_bytes(), np.random.default_rng(0)
    verdicts: Counter[tuple[Verdict, str]] = Counter()
    altered = path.with_name(f"altered{path.suffix}")
    for place in range(0, len(original), stride):
        content = bytearray(original)
        content[place] ^= 1 << int(rng.integers(8))
        altered.write_bytes(content)
        verdicts[verify_file(altered, run=without_limits).verdict, part_of(original, place)] += 1
    altered.unlink()
    return verdicts


def part_of(content: bytes, place: int) -> str:
    """What a byte of a signed file is: MP4's file type, the manifest, zeros that fill up its signature, or images."""
    if content[4:8] == b"ftyp" and place < int.from_bytes(content[:4], "big"):
        return "file type"
    start = content.index(b"jumb") - 4
    end = start + int.from_bytes(content[start : start + 4], "big")
    end += end // 255  # a GIF's blocks have a length for each 255 bytes
    if not start - 64 <= place < end + 8:
        return "images"
    around = content[max(0, place - 8) : place + 9]
    return "zeros that fill up the signature" if not any(around) else "the manifest and its boxes"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.provenance")
    parser.add_argument("--seconds", default="10,60,600", help="of video, separated by commas")
    parser.add_argument(
        "--flip_bits", action="store_true", help="flip a bit of every byte of a small file of each kind"
    )
    parser.add_argument(
        "--padded", type=int, help="MB of media data after a video of the first length, in a line of its own"
    )
    parser.add_argument("--stride", type=int, default=1, help="flip in every so many bytes only")
    parser.add_argument("--sign", type=Path, nargs=2, metavar=("SOURCE", "TARGET"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.sign:
        print(*sign_once(*options.sign))
        return
    with tempfile.TemporaryDirectory() as folder:
        if options.flip_bits:
            for path in small_files(Path(folder)):
                print(f"{path.stem}, {path.stat().st_size:,} bytes", flush=True)
                for (verdict, part), count in sorted(flip_bits(path, stride=options.stride).items()):
                    print(f"{count:>8} {verdict:12}{part}", flush=True)
            return
        names = ("video s", "MB", "bytes added", "seconds", "MB before", "MB at most")
        print("".join(f"{n:>{w}}" for n, w in zip(names, (8, 10, 12, 12, 14, 14), strict=True)))
        frames = head(FPS, size=256)
        lengths = [float(seconds) for seconds in options.seconds.split(",")]
        for seconds in lengths:
            print(measure(seconds, frames, Path(folder)), flush=True)
        if options.padded:
            print(measure(lengths[0], frames, Path(folder), padding=options.padded), flush=True)


if __name__ == "__main__":
    main()
