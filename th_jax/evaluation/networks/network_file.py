"""A network in a file of the user's own, checked before anything depends on it: pictures in, a row of features each out.

ONNX is read by OpenCV, which is there anyway; TFLite by LiteRT, if that is installed (`pip install ai-edge-litert`). Every
picture goes through alone, so no number depends on how many come together.
"""

import hashlib
import importlib
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from th_jax.evaluation.networks.network_input import NetworkFileError, NetworkInput, read_input

MAX_FILE_BYTES = 2**30

_LITERT = "ai_edge_litert.interpreter"
_LITERT_HINT = "pip install ai-edge-litert==2.3.0, or give the network as ONNX"

Run = Callable[[np.ndarray], np.ndarray]
"""One picture as the network wants it, to what it answers."""


class FeatureNetwork:
    """A checked network under the name that its numbers carry."""

    def __init__(self, name: str, run: Run, *, digest: str, wants: NetworkInput) -> None:
        """Try it on one grey picture.

        Args:
            name: of its numbers.
            run: what answers.
            digest: SHA-256 of the file, hexadecimal.
            wants: how pictures are given to it.

        Raises:
            NetworkFileError: if it does not take such pictures, or gives no row of features.
        """
        self.name, self.digest, self.wants = name, digest, wants
        self._run = run
        grey = np.full((1, wants.size, wants.size, 3), 128, np.uint8)
        self.width = self.features(grey).shape[1]
        """Numbers in a row of features."""

    def features(self, pictures: UInt8[np.ndarray, "N H W 3"]) -> Float[np.ndarray, "N D"]:
        """A row for each RGB picture, as the network gives it: not normalised. Other sizes are resized (bilinear).

        Raises:
            NetworkFileError: if the network refuses the picture, or answers with anything but finite numbers [1, D].
        """
        return np.stack([self._row(picture) for picture in pictures])

    @property
    def about(self) -> dict[str, Any]:
        """What its numbers depend on, as JSON values."""
        return {"sha256": self.digest, "dimensions": self.width, "input": self.wants.about()}

    def _row(self, picture: np.ndarray) -> np.ndarray:
        wanted = self.wants.prepared(picture)
        try:
            answer = np.asarray(self._run(wanted), np.float32)
        except (cv2.error, ValueError, RuntimeError) as error:
            shape = ", ".join(map(str, wanted.shape))
            raise NetworkFileError(
                f"the network {self.name} refuses a picture [{shape}]: say its size and layout in the JSON file beside it "
                f"({_first_line(error)})"
            ) from error
        if answer.ndim < 2 or answer.shape[0] != 1 or answer.size != answer.shape[1]:
            raise NetworkFileError(
                f"the network {self.name} gives {list(answer.shape)} for one picture, but a row of features [1, D] is needed: "
                "export it with its pooling, or name another output in the JSON file beside it"
            )
        row = answer.reshape(-1)
        if not np.isfinite(row).all():
            raise NetworkFileError(
                f"the network {self.name} gives features that are not finite: check its input's range"
            )
        return row


def load_network(
    name: str, path: Path, *, default: NetworkInput | None = None, sha256: str | None = None
) -> FeatureNetwork:
    """Read a network from FILE.onnx or FILE.tflite, with what FILE.onnx.json says of its input.

    Args:
        name: of its numbers.
        path: the file.
        default: of the input, where no JSON file says more; None if that file must be there.
        sha256: that the file must have, hexadecimal; None takes any.

    Raises:
        NetworkFileError: if the file is missing, too large, none of the two kinds, damaged, not the one of the checksum, or
            its network does not give one row of features for a picture.
        ImportError: for a TFLite file without LiteRT.
    """
    path = Path(path)
    if path.suffix not in (".onnx", ".tflite"):
        raise NetworkFileError(f"a network is given as FILE.onnx or FILE.tflite, not as {path}")
    content = read_checked(path, sha256=sha256)
    wants = read_input(path, default=default)
    run = _opencv(path, content, wants) if path.suffix == ".onnx" else _litert(path, content)
    return FeatureNetwork(name, run, digest=hashlib.sha256(content).hexdigest(), wants=wants)


def read_checked(path: Path, *, sha256: str | None) -> bytes:
    """The bytes of a file of at most `MAX_FILE_BYTES`, which must have the checksum if one is given.

    Raises:
        NetworkFileError: if it is missing, no file, too large, or another one.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise NetworkFileError(f"{path} is no file: name the file of a network")
        if status.st_size > MAX_FILE_BYTES:
            raise NetworkFileError(
                f"{path} has {status.st_size} bytes, over the limit of {MAX_FILE_BYTES} for a network"
            )
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, NetworkFileError):
            raise
        raise NetworkFileError(f"the network {path} cannot be read: {error}") from error
    digest = hashlib.sha256(content).hexdigest()
    if sha256 is not None and digest != sha256.lower():
        raise NetworkFileError(f"{path} has the SHA-256 {digest}, but {sha256} was asked for: it is another file")
    return content


def _opencv(path: Path, content: bytes, wants: NetworkInput) -> Run:
    try:
        with _silence():
            network = cv2.dnn.readNetFromONNX(np.frombuffer(content, np.uint8))
            names = list(network.getUnconnectedOutLayersNames())
    except cv2.error as error:
        raise NetworkFileError(f"{path} is no ONNX file that OpenCV can read ({_first_line(error)})") from error
    if wants.output and wants.output not in names:
        raise NetworkFileError(f"{path} has no output {wants.output!r}; it has {', '.join(names)}")

    def run(picture: np.ndarray) -> np.ndarray:
        with _silence():
            network.setInput(picture)
            return np.asarray(network.forward(wants.output) if wants.output else network.forward())

    return run


def _litert(path: Path, content: bytes) -> Run:
    try:
        runtime = importlib.import_module(_LITERT)
    except ImportError as error:
        raise ImportError(f"{path} is a TFLite file, which needs LiteRT: {_LITERT_HINT}") from error
    try:
        network = runtime.Interpreter(model_content=content)
        network.allocate_tensors()
        (given, *_), (answer, *_) = network.get_input_details(), network.get_output_details()
    except (ValueError, RuntimeError) as error:
        raise NetworkFileError(f"{path} is no TFLite file that LiteRT can read ({_first_line(error)})") from error

    def run(picture: np.ndarray) -> np.ndarray:
        # Files for telephones have a fixed batch, some of two: the picture fills it, and its first row is the answer.
        network.set_tensor(given["index"], np.repeat(picture, int(given["shape"][0]), axis=0))
        network.invoke()
        return np.asarray(network.get_tensor(answer["index"]))[:1]

    return run


@contextmanager
def _silence() -> Iterator[None]:
    """OpenCV prints its errors as well as raising them."""
    before = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(before)


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
