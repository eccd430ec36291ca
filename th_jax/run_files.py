"""The small files of a run's folder: config.json and metrics.jsonl, on a local disk or at an address (gs://...)."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from th_jax.addresses import filesystem_of, is_remote
from th_jax.whole_file import whole_file

METRICS_FILE = "metrics.jsonl"
CONFIG_FILE = "config.json"
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def write_config(workdir: str | Path, config: Mapping[str, Any], *, overwrite: bool = False) -> list[str]:
    """Write the resolved config as WORKDIR/config.json, unless another one is there.

    Args:
        workdir: the run's folder, a path or an address; made if it is not there.
        config: JSON values.
        overwrite: replace another config.

    Returns:
        The keys that differ from the config that was there, such as "networks.base_width"; then, without `overwrite`,
        nothing was written: the caller decides.

    Raises:
        ValueError: if the config is not JSON, or the one that is there cannot be read.
    """
    try:
        text = json.dumps(dict(config), indent=2, sort_keys=True, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(f"a config must be JSON values: {error}") from error
    differing: list[str] = []
    try:
        differing = _differing(read_config(workdir), json.loads(text))
    except FileNotFoundError:
        overwrite = True
    except ValueError:
        if not overwrite:
            raise
    if overwrite:
        write_whole(f"{os.fspath(workdir)}/{CONFIG_FILE}", text.encode())
    return differing


def read_config(workdir: str | Path) -> dict[str, Any]:
    """The resolved config of a run.

    Raises:
        FileNotFoundError: if the folder holds none.
        ValueError: if it cannot be read.
    """
    path = f"{os.fspath(workdir)}/{CONFIG_FILE}"
    content = read_whole(path)
    if content is None:
        raise FileNotFoundError(f"{workdir} is no run's folder: there is no {CONFIG_FILE}")
    try:
        config = json.loads(content)
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): mend it or remove it") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} is damaged: it is no JSON object")
    return config


def metrics_line(step: int, seconds: float, numbers: Mapping[str, float]) -> str:
    """One line of metrics.jsonl; numbers that are not finite become "nan", "inf" and "-inf", since JSON has none."""
    plain = {name: value if math.isfinite(value) else str(value) for name, value in numbers.items()}
    return json.dumps({"step": step, "time": round(seconds, 3)} | plain, allow_nan=False) + "\n"


def lines_until(content: bytes, step: int) -> bytes:
    """The whole lines of a metrics.jsonl up to a step; what was cut short or damaged is left out."""
    kept = [line for line in content.splitlines() if (metrics := _parsed(line)) and metrics["step"] <= step]
    return b"".join(line + b"\n" for line in kept)


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; "nan", "inf" and "-inf" are numbers again, and a last line cut short is left out.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if another line is damaged, with its number.
    """
    content = read_whole(str(path))
    if content is None:
        raise FileNotFoundError(f"there are no metrics at {path}")
    lines = content.splitlines()
    parsed = [_parsed(line) for line in lines]
    for number, metrics in enumerate(parsed[:-1], 1):
        if metrics is None:
            raise ValueError(f"line {number} of {path} is damaged")
    return [metrics for metrics in parsed if metrics is not None]


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        metrics = {name: _NOT_FINITE.get(value, value) for name, value in json.loads(line).items()}
        return metrics if metrics["step"] >= 0 else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _differing(before: Any, now: Any, above: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted({*before, *now})
        missing = object()
        pairs = ((f"{above}.{key}".lstrip("."), before.get(key, missing), now.get(key, missing)) for key in keys)
        return [name for key, a, b in pairs for name in _differing(a, b, key)]
    return [] if before == now else [above]


def read_whole(path: str) -> bytes | None:
    """The content of a file; None if it is not there."""
    if not is_remote(path):
        return Path(path).read_bytes() if Path(path).is_file() else None
    filesystem, inner = filesystem_of(path)
    return filesystem.cat_file(inner) if filesystem.exists(inner) else None


def write_whole(path: str, content: bytes) -> None:
    """Write the whole file or nothing of it; its folder is made."""
    if is_remote(path):
        filesystem, inner = filesystem_of(path)
        filesystem.pipe_file(inner, content)  # an object appears when it is whole
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        file.write(content)
