"""Input format of a network, from a small JSON file beside it: size, range, channel order, layout."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from th_jax.storage.strict_json import read_json

LARGEST_SIDE = 2048
MAX_JSON_BYTES = 2**16

Channels = Literal["rgb", "bgr"]
Layout = Literal["nchw", "nhwc"]
_NUMBERS = "mean", "deviation"


class NetworkFileError(ValueError):
    """A network file cannot be used; the message says which and why."""


class NetworkInput(NamedTuple):
    """Input format for one image: resized to a square, (values - mean) / deviation of 0..255, then channels and layout."""

    size: int
    """Side of the square, in pixels."""
    mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
    """Values for red, green and blue, whatever `channels` is; likewise `deviation`."""
    deviation: tuple[float, float, float] = (127.5, 127.5, 127.5)
    channels: Channels = "rgb"
    layout: Layout = "nchw"
    output: str = ""
    """Name of the output with the features, if there are several."""

    def prepared(self, image: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "1 _ _ _"]:
        """Convert an RGB image to the network's input, in float32."""
        values = image.astype(np.float32)
        if image.shape[:2] != (self.size, self.size):
            values = np.asarray(cv2.resize(values, (self.size, self.size), interpolation=cv2.INTER_LINEAR))
        scaled = (values - np.asarray(self.mean, np.float32)) / np.asarray(self.deviation, np.float32)
        ordered = scaled if self.channels == "rgb" else scaled[..., ::-1]
        return np.ascontiguousarray(ordered.transpose(2, 0, 1) if self.layout == "nchw" else ordered)[None]

    def about(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return self._asdict() | {"mean": list(self.mean), "deviation": list(self.deviation)}


def json_path(path: Path) -> Path:
    """Return the path of the file that describes a network's input: FILE.onnx.json."""
    return path.with_name(f"{path.name}.json")


def read_input(path: Path, *, default: NetworkInput | None) -> NetworkInput:
    """Read the JSON file beside a network, with defaults for missing fields; TFLite networks have the layout nhwc.

    {"size": 112, "mean": 127.5, "deviation": [128, 128, 128], "channels": "rgb", "layout": "nchw", "output":
    "features"}

    `default` gives the values of missing fields. If it is None, the JSON file is required and must give at least the
    size.

    Raises:
        NetworkFileError: if the JSON file is required but missing, malformed, or has invalid values.
    """
    beside = json_path(path)
    if not beside.is_file():
        if default is None:
            raise NetworkFileError(
                f'{beside} is missing: it must describe the network\'s input, such as {{"size": 224, "mean": 127.5, '
                '"deviation": 127.5, "channels": "rgb", "layout": "nchw"}'
            )
        said: dict[str, Any] = {}
    else:
        said = _read_object(beside)
    if path.suffix == ".tflite":
        said = {"layout": "nhwc"} | said
    known = {} if default is None else default._asdict()
    return _checked(beside, known | said)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        said = read_json(path, max_bytes=MAX_JSON_BYTES, error=NetworkFileError)
    except OSError as error:
        raise NetworkFileError(f"{path} cannot be read ({error})") from error
    if not isinstance(said, dict):
        raise NetworkFileError(f"{path} must contain a JSON object with the settings of a network's input")
    return said


def _checked(path: Path, said: Mapping[str, Any]) -> NetworkInput:
    if unknown := sorted(said.keys() - set(NetworkInput._fields)):
        raise NetworkFileError(
            f"{path} has the unknown settings {', '.join(map(repr, unknown))}; expected "
            f"{', '.join(NetworkInput._fields)}"
        )
    size = said.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= LARGEST_SIDE:
        raise NetworkFileError(f"{path}: size must be an image side of 1 to {LARGEST_SIDE} pixels, got {size!r}")
    wants = NetworkInput(size)
    for name, choices in (("channels", get_args(Channels)), ("layout", get_args(Layout))):
        if said.get(name, choices[0]) not in choices:
            raise NetworkFileError(f"{path}: {name} must be {' or '.join(choices)}, got {said[name]!r}")
    if not isinstance(said.get("output", ""), str):
        raise NetworkFileError(f"{path}: output must be a name, got {said['output']!r}")
    numbers: dict[str, Any] = {name: _of_channels(path, name, said[name]) for name in _NUMBERS if name in said}
    if min(map(abs, numbers.get("deviation", wants.deviation))) == 0:
        raise NetworkFileError(f"{path}: deviation is a divisor and must not be 0")
    words: dict[str, Any] = {name: said[name] for name in ("channels", "layout", "output") if name in said}
    return wants._replace(**numbers, **words)


def _of_channels(path: Path, name: str, value: Any) -> tuple[float, float, float]:
    """Parse one number for all channels, or one each for red, green and blue."""
    values = list(value) if isinstance(value, list | tuple) else [value] * 3
    plain = all(isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in values)
    if len(values) != 3 or not plain:
        raise NetworkFileError(f"{path}: {name} must be one number or three, for red, green and blue, got {value!r}")
    red, green, blue = map(float, values)
    return red, green, blue
