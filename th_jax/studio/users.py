"""Users of a studio: the file with the digests of their tokens, and the check of a name and a token."""

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from th_jax.storage.files import check_place, whole_file
from th_jax.storage.strict_json import read_json

USER = "studio"
"""User name that belongs to the password of a studio with a single user."""

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")  # of a folder too, also where file names ignore case

_DIGEST = re.compile(r"[0-9a-f]{64}")

_MAX_BYTES = 2**20


def digest_of(secret: str) -> str:
    """Return the SHA-256 digest of a token, in hexadecimal.

    A token is random and long, so that neither salt nor a slow function is needed; a password is only kept in memory.
    """
    return hashlib.sha256(secret.encode()).hexdigest()


class Accounts:
    """Names of users, and the digests of their tokens or passwords."""

    def __init__(self, digests: Mapping[str, str]) -> None:
        """Keep the digests of each user."""
        self._digests = dict(digests)
        self.names = frozenset(digests)
        """Names of the users."""

    def admits(self, user: str, secret: str) -> bool:
        """Return whether a token or password is the user's; takes the same time for all wrong ones, and unknown names."""
        known = self._digests.get(user, digest_of(secrets.token_hex()))
        return hmac.compare_digest(digest_of(secret), known)


def read_users(path: Path) -> Accounts:
    """Read a file of users, as `add_user` writes it.

    Args:
        path: JSON file of names and digests.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is no file of users, or there are none.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: make it with --users {path} --add-user NAME")
    read = read_json(path, max_bytes=_MAX_BYTES)
    if not isinstance(read, dict) or not read:
        raise ValueError(f"{path} must have at least one user, as --add-user writes them")
    for name, digest in read.items():
        if not _NAME.fullmatch(name) or not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise ValueError(f"{path}: {name[:100]!a} is no user with the digest of a token: add users with --add-user")
    return Accounts(read)


def add_user(path: Path, name: str) -> str:
    """Add a user to a file, or give them a new token, and return the token, which is not stored.

    Args:
        path: file of users, which is made if it does not exist.
        name: name of the user.

    Raises:
        ValueError: if the name is not a valid one, or the file is damaged.
        OSError: if the file cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name[:100]!a} is not a valid user name: use 1 to 32 lower-case letters, digits, _ and -, with a letter first"
        )
    check_place(path)
    known = {}
    if path.exists():
        read_users(path)  # which checks it
        known = read_json(path, max_bytes=_MAX_BYTES)
    token = secrets.token_urlsafe(32)
    with whole_file(path, mode=0o600) as file:
        file.write(json.dumps(known | {name: digest_of(token)}, indent=2).encode() + b"\n")
    return token
