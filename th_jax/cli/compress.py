"""`th-jax compress`: stores an avatar in a tenth of its size."""

import argparse
from pathlib import Path

from th_jax.cli.options import DONE, new_parser


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    made = new_parser(
        "compress", "Stores only what fine-tuning changed in an avatar, in 8 or 16 bits a number.",
        example="th-jax compress avatars/ada.safetensors --meta heads --out small/ada.safetensors",
    )  # fmt: skip
    made.add_argument("avatar", type=Path, help="avatar file")
    made.add_argument("--meta", required=True, help="meta weights that it was made from: file, run or name")
    made.add_argument(
        "--bits", choices=("int8", "float16"), default="int8", help="precision of a number; default: int8"
    )
    made.add_argument("--out", type=Path, required=True, help="output file, ending in .safetensors")
    return made


def run(options: argparse.Namespace) -> int:
    """Write the compact avatar and print the loss."""
    from th_jax.avatars.compact import save_compact
    from th_jax.avatars.file import AvatarError, load_avatar
    from th_jax.storage.files import check_place
    from th_jax.weights import load_meta

    if options.out.exists() and options.avatar.exists() and options.out.samefile(options.avatar):
        raise AvatarError(f"{options.out} is the avatar itself, in full precision: name another file with --out")
    check_place(options.out)
    meta = load_meta(options.meta, only_generate=True)
    done = save_compact(options.out, load_avatar(options.avatar, meta=meta), meta=meta, bits=options.bits)
    before, after = (path.stat().st_size / 2**20 for path in (options.avatar, options.out))
    print(f"{options.out}: {after:.2f} MiB instead of {before:.2f} MiB, {options.bits}")
    print(f"mean absolute difference of {done.frames} frames: {done.loss:.3f} of 255")
    return DONE
