"""Judge networks given on the command line: for identity, for distances between sets, and LPIPS."""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

from th_jax.evaluation.judges.identity import load_identity_network
from th_jax.evaluation.judges.lpips import LpipsWeights, load_lpips
from th_jax.evaluation.judges.named import named_files
from th_jax.evaluation.judges.network_file import FeatureNetwork
from th_jax.evaluation.judges.sets import INCEPTION, VGG16, SetNetwork, inception_network, set_network, vgg16_network

DLIB = "dlib"
LPIPS = "lpips"


class Judges(NamedTuple):
    """Judge networks, each with its own digest."""

    identity: tuple[FeatureNetwork, ...] = ()
    sets: tuple[SetNetwork, ...] = ()
    lpips: LpipsWeights | None = None
    lpips_sha256: str = ""

    def about(self) -> dict[str, Any]:
        """Describe what their scores depend on, by name, as JSON values."""
        about = {network.name: network.about for network in self.identity}
        about |= {network.name: network.about for network in self.sets}
        return about if self.lpips is None else about | {LPIPS: self.lpips_about}

    @property
    def lpips_about(self) -> dict[str, Any]:
        """Describe LPIPS: one value per frame."""
        return {"sha256": self.lpips_sha256, "dimensions": 1}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that select judge networks to a parser."""
    group = parser.add_argument_group("networks given by path (docs/evaluation.md describes their files)")
    group.add_argument(
        "--identity-network", action="append", default=[], metavar="NAME=FILE", help="a face network, .onnx or .tflite"
    )
    group.add_argument(
        "--features",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="features for Fréchet distance and KID, in addition to those of VGG16",
    )
    group.add_argument("--inception", type=Path, metavar="FILE", help="the network of FID, as ONNX")
    group.add_argument("--inception-sha256", metavar="HEX", help="checksum of that file")
    group.add_argument("--lpips", type=Path, metavar="FILE", help="LPIPS weights for VGG16, as safetensors")
    group.add_argument("--lpips-sha256", metavar="HEX", help="checksum of that file")


def judges_of(options: argparse.Namespace) -> Judges:
    """Load the networks given by the options, and try each before anything is computed.

    Raises:
        ValueError, ImportError: if a file is not a suitable network, or a name is reserved.
    """
    if options.no_faces and options.identity_network:
        raise ValueError("--identity-network aligns faces by their landmarks: omit --no-faces")
    for name in ("inception", "lpips"):
        if (getattr(options, name) is None) != (getattr(options, f"{name}_sha256") is None):
            raise ValueError(
                f"--{name} and --{name}-sha256 must be given together: the checksum identifies the trusted file"
            )
    taken = {DLIB, VGG16, INCEPTION, LPIPS}
    faces = named_files(options.identity_network, taken=taken)
    features = named_files(options.features, taken=taken | faces.keys())
    sets = [vgg16_network(), *(set_network(*item) for item in features.items())]
    if options.inception is not None:
        sets.append(inception_network(options.inception, sha256=options.inception_sha256))
    lpips = None if options.lpips is None else load_lpips(options.lpips, sha256=options.lpips_sha256)
    return Judges(
        tuple(load_identity_network(*item) for item in faces.items()), tuple(sets), lpips,
        "" if lpips is None else options.lpips_sha256.lower(),
    )  # fmt: skip
