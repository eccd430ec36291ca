"""The options of the command that drives an avatar, `python -m th_jax.rendering.animate`."""

import argparse
from pathlib import Path

from th_jax.media.signing_options import add_signing_options
from th_jax.rendering.render import CHUNK
from th_jax.rendering.smoothing import OneEuro

_PURPOSE = "Drives an avatar: a film of somebody's face, or a file of landmarks, becomes a film of the avatar."


def options_parser() -> argparse.ArgumentParser:
    """All of them, with a sentence of help each."""
    parser = argparse.ArgumentParser(prog="python -m th_jax.rendering.animate", description=_PURPOSE)
    parser.add_argument("--avatar", type=Path, required=True, help="an avatar's file")
    parser.add_argument("--meta", help="meta weights of a small avatar: file, run or name; the bundled ones by default")
    parser.add_argument("--driver", required=True, help="a video, landmarks.npz, or camera:0")
    parser.add_argument("--out", type=Path, help="ends in .mp4, .gif, .png or .jpg")
    parser.add_argument("--layout", help='panels from left to right: "driver,landmarks,avatar"; the avatar by default')
    parser.add_argument("--smoothing", type=float, help="Hz: lower is steadier, 0 is off; 2 for videos, off for npz")
    parser.add_argument("--smoothing_beta", type=float, default=OneEuro().beta, help="higher follows motion faster")
    parser.add_argument("--retargeting", choices=("none", "shape"), default="none", help="to the avatar's face shape")
    parser.add_argument(
        "--follow",
        choices=("face", "segment"),
        default="face",
        help="crop that moves with the face, or fixed a segment",
    )
    parser.add_argument("--strict", action="store_true", help="frames beyond what the weights learned are an error")
    parser.add_argument("--gaze", choices=("auto", "on", "off"), default="auto", help="look for the driver's pupils")
    parser.add_argument("--fps", type=float, help="frames a second of landmarks.npz")
    parser.add_argument("--seconds", type=float, help="of the driver to use, from its start")
    parser.add_argument("--at", type=float, default=0.0, help="seconds into the driver, for a still")
    parser.add_argument("--mute", action="store_true", help="leave the driver's sound out")
    parser.add_argument("--require_audio", action="store_true", help="refuse a driver whose sound cannot be kept")
    parser.add_argument("--consents", type=Path, help="a consent record, or a folder of them: was it revoked?")
    parser.add_argument(
        "--unmarked_output_for_research", action="store_true",
        help="leave watermark and manifest out: the file's name and the avatar's log will say so",
    )  # fmt: skip
    parser.add_argument("--chunk", type=int, default=CHUNK, help="frames that are generated together")
    add_signing_options(parser)
    return parser
