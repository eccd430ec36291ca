"""Loads a user's feature network from a file and validates it: images in, one row of features per image out.

ONNX is run by OpenCV, which is already a dependency; TFLite by LiteRT, if installed (`pip install ai-edge-litert`).
Images are processed one by one, so that results do not depend on the batch.
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

from th_jax.evaluation.judges.network_input import NetworkFileError, NetworkInput, read_input

MAX_FILE_BYTES = 2**30

_LITERT = "ai_edge_litert.interpreter"
_LITERT_HINT = "pip install ai-edge-litert==2.3.0, or give the network as ONNX"

Run = Callable[[np.ndarray], np.ndarray]
"""Function from one image in the network's input format to its output."""


class FeatureNetwork:
    """A validated network, with the name under which its scores are reported."""

    def __init__(self, name: str, run: Run, *, digest: str, wants: NetworkInput) -> None:
        """Validate the network on one gray image.

        Raises:
            NetworkFileError: if the network rejects such an image, or does not return one row of features.
        """
        self.name, self.digest, self.wants = name, digest, wants
        self._run = run
        grey = np.full((1, wants.size, wants.size, 3), 128, np.uint8)
        self.width = self.features(grey).shape[1]
        """Number of features."""

    def features(self, images: UInt8[np.ndarray, "N H W 3"]) -> Float[np.ndarray, "N D"]:
        """Compute a row of features for each RGB image, not normalized; images of other sizes are resized (bilinear).

        Raises:
            NetworkFileError: if the network rejects an image, or returns anything other than finite numbers [1, D].
        """
        return np.stack([self._row(image) for image in images])

    @property
    def about(self) -> dict[str, Any]:
        """Describe what the features depend on, as JSON values."""
        return {"sha256": self.digest, "dimensions": self.width, "input": self.wants.about()}

    def _row(self, image: np.ndarray) -> np.ndarray:
        wanted = self.wants.prepared(image)
        try:
            answer = np.asarray(self._run(wanted), np.float32)
        except (cv2.error, ValueError, RuntimeError) as error:
            shape = ", ".join(map(str, wanted.shape))
            raise NetworkFileError(
                f"the network {self.name} does not accept an image [{shape}]: specify its size and layout in the "
                f"JSON file next to it ({_first_line(error)})"
            ) from error
        if answer.ndim < 2 or answer.shape[0] != 1 or answer.size != answer.shape[1]:
            raise NetworkFileError(
                f"the network {self.name} returns {list(answer.shape)} for one image, but expected features [1, "
                "D]: export it with its pooling layer, or name another output in the JSON file next to it"
            )
        row = answer.reshape(-1)
        if not np.isfinite(row).all():
            raise NetworkFileError(
                f"the network {self.name} returns features that are not finite: check the range of its input"
            )
        return row


def load_network(
    name: str, path: Path, *, default: NetworkInput | None = None, sha256: str | None = None
) -> FeatureNetwork:
    """Load a network from FILE.onnx or FILE.tflite, with the input format in FILE.onnx.json.

    `default` is the input format without a JSON file; if it is None, that file is required. `sha256` is the expected
    digest in hexadecimal; None accepts any.

    Raises:
        NetworkFileError: if the file is missing, too large, of another type, damaged, has another checksum, or its
            network does not return one row of features per image.
        ImportError: if a TFLite file is given and LiteRT is not installed.
    """
    path = Path(path)
    if path.suffix not in (".onnx", ".tflite"):
        raise NetworkFileError(f"a network must be given as FILE.onnx or FILE.tflite, got {path}")
    content = read_checked(path, sha256=sha256)
    wants = read_input(path, default=default)
    run = _opencv(path, content, wants) if path.suffix == ".onnx" else _litert(path, content)
    return FeatureNetwork(name, run, digest=hashlib.sha256(content).hexdigest(), wants=wants)


def read_checked(path: Path, *, sha256: str | None) -> bytes:
    """Read a file of at most `MAX_FILE_BYTES`, and verify its checksum if one is given.

    Raises:
        NetworkFileError: if the file is missing, not a regular file, too large, or has another checksum.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise NetworkFileError(f"{path} is not a regular file: give a network file")
        if status.st_size > MAX_FILE_BYTES:
            raise NetworkFileError(
                f"{path} has {status.st_size} bytes, over the limit of {MAX_FILE_BYTES} for a network"
            )
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, NetworkFileError):
            raise
        raise NetworkFileError(f"cannot read the network {path}: {error}") from error
    digest = hashlib.sha256(content).hexdigest()
    if sha256 is not None and digest != sha256.lower():
        raise NetworkFileError(f"{path} has the SHA-256 {digest}, but expected {sha256}: it is a different file")
    return content


def _opencv(path: Path, content: bytes, wants: NetworkInput) -> Run:
    try:
        with _silence():
            network = cv2.dnn.readNetFromONNX(np.frombuffer(content, np.uint8))
            names = list(network.getUnconnectedOutLayersNames())
    except cv2.error as error:
        raise NetworkFileError(f"{path} is not an ONNX file that OpenCV can read ({_first_line(error)})") from error
    if wants.output and wants.output not in names:
        raise NetworkFileError(f"{path} has no output {wants.output!r}; it has {', '.join(names)}")

    def run(image: np.ndarray) -> np.ndarray:
        with _silence():
            network.setInput(image)
            return np.asarray(network.forward(wants.output) if wants.output else network.forward())

    return run


def _litert(path: Path, content: bytes) -> Run:
    try:
        runtime = importlib.import_module(_LITERT)
    except ImportError as error:
        raise ImportError(f"{path} is a TFLite file, which requires LiteRT: {_LITERT_HINT}") from error
    try:
        network = runtime.Interpreter(model_content=content)
        network.allocate_tensors()
        (given, *_), (answer, *_) = network.get_input_details(), network.get_output_details()
    except (ValueError, RuntimeError) as error:
        raise NetworkFileError(f"{path} is not a TFLite file that LiteRT can read ({_first_line(error)})") from error

    def run(image: np.ndarray) -> np.ndarray:
        # Files for phones have a fixed batch size, sometimes two: the image fills the batch, and the first row is the
        # result.
        network.set_tensor(given["index"], np.repeat(image, int(given["shape"][0]), axis=0))
        network.invoke()
        return np.asarray(network.get_tensor(answer["index"]))[:1]

    return run


@contextmanager
def _silence() -> Iterator[None]:
    """Silence OpenCV, which prints errors in addition to raising them."""
    before = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(before)


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
