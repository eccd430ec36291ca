"""Command-line options for the signing key, shared by all commands that write signed images, and an early key check."""

import argparse
from pathlib import Path

from th_jax.provenance.c2pa_write import check_signing
from th_jax.provenance.record import Kind, Provenance
from th_jax.provenance.signing import CERTIFICATE_VARIABLE, KEY_VARIABLE, Signer, load_signer

_KEY_HELP = (
    f"private key in PEM format that signs the output; default: the key named by {KEY_VARIABLE}, or else a local key"
)
_CERTIFICATE_HELP = (
    "certificates of the key in PEM format, if they are not in its file; default: those named by "
    f"{CERTIFICATE_VARIABLE}"
)


def add_signing_options(parser: argparse.ArgumentParser) -> None:
    """Add the options `--signing-key FILE` and `--signing-certificate FILE` to a parser."""
    parser.add_argument("--signing-key", type=Path, metavar="FILE", help=_KEY_HELP)
    parser.add_argument("--signing-certificate", type=Path, metavar="FILE", help=_CERTIFICATE_HELP)


def tried_signer(key: str | Path | None, certificate: str | Path | None) -> Signer:
    """Load the signer as `load_signer` and sign a single pixel, so that an unusable key is rejected before any work.

    Raises:
        SigningError, ImportError: as `load_signer`.
    """
    signer = load_signer(key=key, certificate=certificate)
    check_signing(Provenance(kind=Kind.GENERATED), signer)
    return signer
