"""The options that name a signing key, for every command that writes signed pictures, and the key tried before its work."""

import argparse
from pathlib import Path

from th_jax.media.manifest import check_signing
from th_jax.media.provenance import Kind, Provenance
from th_jax.media.signing import CERTIFICATE_VARIABLE, KEY_VARIABLE, Signer, load_signer

KEY_HELP = f"private key as PEM that signs what is written; else that of {KEY_VARIABLE}, else a local one"
CERTIFICATE_HELP = f"its certificates as PEM, if they are not in its file; else those of {CERTIFICATE_VARIABLE}"


def add_signing_options(parser: argparse.ArgumentParser) -> None:
    """Give a command the options `--signing_key FILE` and `--signing_certificate FILE`."""
    parser.add_argument("--signing_key", type=Path, metavar="FILE", help=KEY_HELP)
    parser.add_argument("--signing_certificate", type=Path, metavar="FILE", help=CERTIFICATE_HELP)


def tried_signer(key: str | Path | None, certificate: str | Path | None) -> Signer:
    """The signer that `load_signer` chooses, after it has signed one pixel: a key that cannot sign is refused now, not later.

    Args:
        key: what `--signing_key` names, or None.
        certificate: what `--signing_certificate` names, or None.

    Raises:
        SigningError, ImportError: as `load_signer`.
    """
    signer = load_signer(key=key, certificate=certificate)
    check_signing(Provenance(kind=Kind.GENERATED), signer)
    return signer
