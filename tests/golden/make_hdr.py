"""Writes tests/golden/hdr.npz: videos as phones record them, HLG and PQ, and what FFmpeg's zscale makes of them in SDR.

    apt-get install ffmpeg    # built with libzimg and libx265, which PyAV's wheels are not
    PYTHONPATH=.:tests python tests/golden/make_hdr.py

The videos are made of the base clip by the same filter. `agamma=0` asks for BT.2100's own formula of HLG, not a faster one.
"""

import subprocess
import tempfile
from pathlib import Path

import cv2
import numpy as np
from base_clip import base_images, write_test_video

SIZE = (160, 120)
LINEAR = "zscale=t=linear:npl=203:agamma=0,format=gbrpf32le"


def run(*arguments: str) -> bytes:
    return subprocess.run(["ffmpeg", "-v", "error", "-y", *arguments], check=True, capture_output=True).stdout


def hdr_video(source: Path, path: Path, transfer: str) -> np.ndarray:
    colors = f"colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc:log-level=error"
    to_hdr = f"{LINEAR},zscale=p=bt2020:t={transfer}:m=bt2020nc:r=limited:npl=203:agamma=0,format=yuv420p10le"
    coding = ["-c:v", "libx265", "-crf", "16", "-x265-params", colors, "-tag:v", "hvc1"]
    declared = ["-color_primaries", "bt2020", "-color_trc", transfer, "-colorspace", "bt2020nc"]
    run("-i", str(source), "-vf", to_hdr, *coding, *declared, str(path))
    to_sdr = f"{LINEAR},zscale=p=bt709:t=bt709:m=gbr:r=full:npl=203:agamma=0,format=gbrp"
    raw = run("-i", str(path), "-vf", to_sdr, "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    return np.frombuffer(raw, np.uint8).reshape(*SIZE[::-1], 3)


if __name__ == "__main__":
    arrays = {}
    with tempfile.TemporaryDirectory() as folder:
        sdr = cv2.resize(base_images()["closed"], SIZE, interpolation=cv2.INTER_AREA)
        source = write_test_video(Path(folder) / "sdr.mp4", [sdr])
        for name, transfer in (("hlg", "arib-std-b67"), ("pq", "smpte2084")):
            video = Path(folder) / f"{name}.mov"
            arrays[f"{name}_sdr"] = hdr_video(source, video, transfer)
            arrays[f"{name}_film"] = np.frombuffer(video.read_bytes(), np.uint8)
    np.savez_compressed(Path(__file__).with_name("hdr.npz"), **arrays)
