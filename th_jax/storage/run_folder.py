"""Small files of a run's folder: config.json and metrics.jsonl, on a local disk or in remote storage (gs://...)."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from th_jax.storage.files import filesystem_of, is_remote, whole_file
from th_jax.storage.setting_names import current_names
from th_jax.storage.strict_json import parse_json

METRICS_FILE = "metrics.jsonl"
CONFIG_FILE = "config.json"
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def write_config(workdir: str | Path, config: Mapping[str, Any], *, overwrite: bool = False) -> list[str]:
    """Write the resolved config as WORKDIR/config.json, unless a different one exists.

    Args:
        workdir: the run's folder, a path or an address; created if it does not exist.
        config: JSON values.
        overwrite: whether to replace a different config.

    Returns:
        The keys that differ from the existing config, such as "networks.base_width". If there are any, nothing is written
        unless `overwrite` is set; the caller decides.

    Raises:
        ValueError: if the config is not JSON, or the existing one cannot be read and `overwrite` is not set.
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
    """Read the resolved config of a run, with the current names of its settings.

    Raises:
        FileNotFoundError: if the folder has no config.
        ValueError: if the config is damaged.
    """
    path = f"{os.fspath(workdir)}/{CONFIG_FILE}"
    content = read_whole(path)
    if content is None:
        raise FileNotFoundError(f"{workdir} is not a run folder: {CONFIG_FILE} is missing")
    config = parse_json(content, name=f"{path} is damaged: it")
    if not isinstance(config, dict):
        raise ValueError(f"{path} is damaged: expected a JSON object")
    return current_names(config)


def metrics_line(step: int, seconds: float, numbers: Mapping[str, float]) -> str:
    """Format one line of metrics.jsonl; non-finite numbers become "nan", "inf" and "-inf", which JSON cannot represent."""
    plain = {name: value if math.isfinite(value) else str(value) for name, value in numbers.items()}
    return json.dumps({"step": step, "time": round(seconds, 3)} | plain, allow_nan=False) + "\n"


def lines_until(content: bytes, step: int) -> bytes:
    """Return the complete lines of a metrics.jsonl up to a step, omitting truncated or damaged ones."""
    kept = [line for line in content.splitlines() if (metrics := _parsed(line)) and metrics["step"] <= step]
    return b"".join(line + b"\n" for line in kept)


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Read the lines of a metrics.jsonl, converting "nan", "inf" and "-inf" to numbers; a truncated last line is omitted.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if another line is damaged; the message has its number.
    """
    content = read_whole(str(path))
    if content is None:
        raise FileNotFoundError(f"there are no metrics at {path}")
    lines = content.splitlines()
    parsed = [_parsed(line) for line in lines]
    for number, metrics in enumerate(parsed[:-1], 1):
        if metrics is None:
            raise ValueError(f"{path}, line {number}: invalid record")
    return [metrics for metrics in parsed if metrics is not None]


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        metrics = {name: _NOT_FINITE.get(value, value) for name, value in parse_json(line).items()}
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
    """Return the content of a file; None if it does not exist."""
    if not is_remote(path):
        return Path(path).read_bytes() if Path(path).is_file() else None
    filesystem, inner = filesystem_of(path)
    return filesystem.cat_file(inner) if filesystem.exists(inner) else None


def write_whole(path: str, content: bytes) -> None:
    """Write a file atomically, creating its folder."""
    if is_remote(path):
        filesystem, inner = filesystem_of(path)
        filesystem.pipe_file(inner, content)  # objects appear only when complete
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        file.write(content)
