"""Settings from a file and from `--set KEY=VALUE`: a Python file with `get_config()`, or a JSON object."""

import argparse
import ast
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from th_jax.cli.options import print_hint
from th_jax.models.checks import check_setting_names
from th_jax.storage.setting_names import current_name, current_names
from th_jax.storage.strict_json import read_json

Settings = dict[str, Any]

_MOST_SHOWN = 80
"""Letters of a wrong value in a message."""


def add_setting_options(parser: argparse.ArgumentParser, *, file: str, change: str) -> None:
    """Add the options --config FILE and --set KEY=VALUE.

    Args:
        parser: parser of a command.
        file: example of a file with settings.
        change: examples of changes.
    """
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"settings: a file such as {file}, or JSON")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="changes",
        help=f"change a setting, such as {change}; may be given several times",
    )  # fmt: skip


def with_set_options(arguments: Sequence[str]) -> list[str]:
    """Replace `--config.KEY=VALUE` and `--config.KEY VALUE` by `--set KEY=VALUE`."""
    written: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        if argument.startswith("--config."):
            change = argument.removeprefix("--config.")
            written += ["--set", change if "=" in change else f"{change}={next(remaining, '')}"]
        else:
            written.append(argument)
    return written


def read_settings_file(path: Path) -> Settings:
    """Read settings from a file: the return value of `get_config()` of a Python file, or a JSON object.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if the file is not valid Python or JSON, or does not contain settings by name.
    """
    if not path.is_file():
        raise FileNotFoundError(f"the config file {path} does not exist")
    if path.suffix == ".json":
        settings = read_json(path)
    else:
        settings = _from_python(path)
    if not isinstance(settings, dict):
        raise ValueError(f"the config {path} must contain settings by name, but contains {type(settings).__name__}")
    return settings


def _from_python(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"the config {path} is neither Python nor JSON")
    module = importlib.util.module_from_spec(spec)
    root = str(path.absolute().parent.parent)  # configs import others: `from configs import finetune`
    sys.path.insert(0, root)
    try:
        spec.loader.exec_module(module)
        config = module.get_config()
    except SyntaxError as error:
        encoding = "; save it as UTF-8" if "utf-8" in str(error).lower() else ""
        raise ValueError(f"the config {path} cannot be used: {error}{encoding}") from error
    except Exception as error:  # a config is a program
        raise ValueError(f"the config {path} cannot be used: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(root)
    return config.to_dict() if hasattr(config, "to_dict") else config


def changed(settings: Settings, changes: Sequence[str]) -> Settings:
    """Return a copy with some settings changed; old names are replaced by the current ones, with a printed hint.

    Args:
        settings: settings by name, with nested sections.
        changes: items of the form "section.name=value"; values are Python literals, text without quotes.

    Raises:
        ValueError: if a setting does not exist, or its value has another type.
    """
    result = current_names(settings, on_message=print_hint)
    for change in changes:
        name, equals, written = change.partition("=")
        if not equals:
            raise ValueError(f"a setting is changed by KEY=VALUE, not by {change!r}")
        *sections, last = current_name(name, on_message=print_hint).split(".")
        section: Any = result
        for part in sections:
            section = section.get(part) if isinstance(section, dict) else None
        if not isinstance(section, dict):
            raise ValueError(f"the config has no setting {name}: {'.'.join(sections)} is not a section")
        check_setting_names(".".join(["the config", *sections]), section, [last])
        section[last] = _value(name, written, section[last])
    return result


def _value(name: str, written: str, before: Any) -> Any:
    if isinstance(before, bool) and written.lower() in ("true", "false"):
        return written.lower() == "true"
    try:
        value = ast.literal_eval(written)
    except (ValueError, SyntaxError, MemoryError, RecursionError):  # the last two for thousands of nested operators
        value = written
    if isinstance(before, str):
        return written if not isinstance(value, str) else value
    if isinstance(before, float) and type(value) is int and abs(value) <= sys.float_info.max:
        return float(value)
    if isinstance(before, list | tuple) and isinstance(value, list | tuple):
        return type(before)(value)
    if before is not None and type(value) is not type(before):
        shown = written if len(written) <= _MOST_SHOWN else f"{written[:_MOST_SHOWN]}..."
        raise ValueError(f"the setting {name} is {type(before).__name__}, such as {before!r}, but {shown!r} was given")
    return value
