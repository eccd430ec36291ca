"""Downloads one file over HTTPS into the user's cache, whole and with a known SHA-256; no other module uses the network.

An address contains the digest, so that every command that takes weights takes it too: https://HOST/FILE#sha256=HEX.
"""

import hashlib
import http.client
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

from th_jax.storage.files import file_sha256, whole_file

TIMEOUT = 60.0
"""Maximum wait for the server's next bytes, in seconds."""

_BLOCK = 2**20


class DownloadError(ValueError):
    """A file cannot be downloaded, or is not the expected one; the message states the address and the reason."""


class Address(NamedTuple):
    """An address and the digest of what must be there."""

    url: str
    sha256: str
    """In hexadecimal, lower case."""


def is_web_address(path: str) -> bool:
    """Return whether a path is an address of the web rather than a file, whatever its scheme and digest."""
    return re.match(r"(https?|ftp):/", path, re.IGNORECASE) is not None


def parse_address(text: str) -> Address:
    """Split https://HOST/FILE#sha256=HEX into the address and the digest.

    Raises:
        DownloadError: if it is not HTTPS or has no digest.
    """
    url, _, fragment = text.partition("#")
    if re.match(r"https://[^/\s@]+/\S+$", url, re.IGNORECASE) is None:
        raise DownloadError(f"{url[:200]} is not an address to download from: expected https://HOST/FILE#sha256=HEX")
    found = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
    if found is None:
        raise DownloadError(
            f"{url[:200]} is downloaded only with its digest: append #sha256=HEX, the SHA-256 that its publisher states"
        )
    return Address(url, found[1].lower())


def downloaded(address: Address, folder: Path, *, suffix: str, most: int) -> Path:
    """Return the file of an address from a folder, where it is downloaded first if it is not there yet.

    Redirects are followed to HTTPS addresses only. The file appears under its digest when it is complete and verified; a file
    that is there already is verified again, and nothing is requested from the network.

    Args:
        address: address and digest.
        folder: folder of downloaded files; created with access for the user only.
        suffix: end of the file's name.
        most: maximum size in bytes.

    Raises:
        DownloadError: if the server cannot be reached, or the file is too large or not the expected one.
        OSError: if the file cannot be written; no partial file remains.
    """
    path = folder / f"{address.sha256}{suffix}"
    if path.is_file() and file_sha256(path) == address.sha256:
        return path
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        answer = urllib.request.build_opener(_HttpsRedirects).open(address.url, timeout=TIMEOUT)
    except (OSError, http.client.HTTPException, ValueError) as error:  # URLError is an OSError
        raise DownloadError(f"cannot download {address.url}: {getattr(error, 'reason', None) or error}") from error
    with answer, whole_file(path, mode=0o600) as file:
        declared = str(answer.headers.get("Content-Length") or "")
        if declared.isdecimal() and int(declared) > most:
            raise DownloadError(f"{address.url} has {declared} bytes, over the limit of {most}")
        found, size = hashlib.sha256(), 0
        while block := _read(answer, address.url):
            size += len(block)
            if size > most:
                raise DownloadError(f"{address.url} has more than {most} bytes, the limit")
            found.update(block)
            file.write(block)
        if found.hexdigest() != address.sha256:
            raise DownloadError(
                f"{address.url} has the SHA-256 {found.hexdigest()}, not the expected {address.sha256}: nothing was kept; "
                "check the address and the digest with the publisher"
            )
    return path


def _read(answer: Any, url: str) -> bytes:
    """Read the next block; a connection that breaks is an error of the address, and not of the disk."""
    try:
        return bytes(answer.read(_BLOCK))
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(f"the download of {url} broke off: {error}") from error


class _HttpsRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to HTTPS addresses only."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not newurl.lower().startswith("https://"):
            raise urllib.error.URLError(f"it redirects to {newurl[:200]!a}, which is not HTTPS")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
