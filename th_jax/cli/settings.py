"""Settings from a file and from `--set KEY=VALUE`: a Python file with `get_config()`, or a JSON object."""

import ast
import copy
import difflib
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from th_jax.text import utf8

Settings = dict[str, Any]

_MOST_BYTES = 2**20


def read_settings_file(path: Path) -> Settings:
    """The settings in a file: what `get_config()` of a Python file returns, or a JSON object.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be used, saying why.
    """
    if not path.is_file():
        raise FileNotFoundError(f"the config cannot be used: there is no file {path}")
    if path.suffix == ".json":
        try:
            with path.open("rb") as file:
                settings = json.loads(utf8(file.read(_MOST_BYTES), name="the file"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the config {path} is not JSON: {error}") from error
    else:
        settings = _from_python(path)
    if not isinstance(settings, dict):
        raise ValueError(f"the config {path} must hold settings by name, but holds {type(settings).__name__}")
    return settings


def _from_python(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"the config cannot be used: {path} is neither Python nor JSON")
    module = importlib.util.module_from_spec(spec)
    root = str(path.absolute().parent.parent)  # a config builds on others: `from configs import finetune`
    sys.path.insert(0, root)
    try:
        spec.loader.exec_module(module)
        config = module.get_config()
    except SyntaxError as error:
        encoding = "; save it as UTF-8" if "utf-8" in str(error).lower() else ""
        raise ValueError(f"the config cannot be used: {error}{encoding}") from error
    except (AttributeError, LookupError, TypeError, ImportError) as error:
        raise ValueError(f"the config cannot be used: {error}") from error
    finally:
        sys.path.remove(root)
    return config.to_dict() if hasattr(config, "to_dict") else config


def changed(settings: Settings, changes: Sequence[str]) -> Settings:
    """A copy with some settings changed.

    Args:
        settings: by name, sections within.
        changes: each "section.name=value"; a value is written as in Python, text without quotes.

    Raises:
        ValueError: for a setting that does not exist, or a value of another type.
    """
    result = copy.deepcopy(settings)
    for change in changes:
        name, equals, written = change.partition("=")
        if not equals:
            raise ValueError(f"a setting is changed by KEY=VALUE, not by {change!r}")
        *sections, last = name.split(".")
        section: Any = result
        for part in sections:
            section = section.get(part) if isinstance(section, dict) else None
        if not isinstance(section, dict) or last not in section:
            known = list(section) if isinstance(section, dict) else []
            like = difflib.get_close_matches(last, known, n=1)
            hint = f". Did you mean {like[0]!r}?" if like else ""
            raise ValueError(f"the config has no setting {name}; configs/finetune.py lists them{hint}")
        section[last] = _value(name, written, section[last])
    return result


def _value(name: str, written: str, before: Any) -> Any:
    try:
        value = ast.literal_eval(written)
    except (ValueError, SyntaxError):
        value = written
    if isinstance(before, str):
        return written if not isinstance(value, str) else value
    if isinstance(before, float) and type(value) is int:
        return float(value)
    if before is not None and type(value) is not type(before):
        raise ValueError(
            f"the setting {name} is {type(before).__name__}, such as {before!r}, but {written!r} was given"
        )
    return value
