"""`th-jax export`: an avatar's generator for other runtimes."""

import argparse
from pathlib import Path

from th_jax.cli.options import DONE, new_parser
from th_jax.landmarks.scheme import IBUG_POINTS


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    made = new_parser(
        "export", "Writes an avatar's generator as StableHLO or ONNX, for runtimes without Python.",
        example="th-jax export --avatar avatars/ada.safetensors --out ada.stablehlo",
    )  # fmt: skip
    made.add_argument("--avatar", type=Path, required=True, help="an avatar's file")
    made.add_argument("--meta", help="meta weights of a compact avatar: file, run or name; the bundled ones by default")
    made.add_argument("--out", type=Path, required=True, help="ends in .stablehlo or .onnx")
    made.add_argument("--takes", choices=("points", "images"), help="the input; ONNX takes images alone")
    made.add_argument("--points", type=int, choices=(68, 70), default=IBUG_POINTS, help="landmarks of a frame")
    made.add_argument("--batch", type=int, help="fixed number of frames of an ONNX model's batch; any by default")
    made.add_argument(
        "--int8", action="store_true",
        help="ONNX with convolutions of 8-bit integers: faster on CPUs with VNNI; mean SSIM to float frames at least 0.995",
    )  # fmt: skip
    return made


def run(options: argparse.Namespace) -> int:
    """Load the avatar and write the program."""
    from th_jax.avatars.file import load_avatar
    from th_jax.driving.export import export_avatar

    loaded = load_avatar(options.avatar, meta=options.meta)
    out, quantized = export_avatar(
        loaded, options.out, takes=options.takes, points=options.points, batch=options.batch, int8=options.int8
    )
    print(f"{out}: {out.stat().st_size / 2**20:.1f} MiB, frames of {loaded.networks.image_size} px in [-1, 1]")
    if quantized is not None:
        print(
            f"{quantized.integers} convolutions in int8, {quantized.floats} in float32; "
            f"SSIM {quantized.ssim:.4f} to the float model"
        )
    return DONE
