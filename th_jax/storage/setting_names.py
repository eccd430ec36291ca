"""Renamed settings and bundled weights: their old names, in files, stored runs and options, work for one release."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

RENAMED = {
    "stop_after_skips": "max_consecutive_nonfinite_steps",
    "step.slices": "step.grad_accumulation_steps",
    "rounds.width": "rounds.vmap_width",
}
"""New name by old name, with sections."""

RENAMED_WEIGHTS = {"heads_128": "heads"}
"""New name by old name of bundled weights."""


def current_name(name: str, *, on_message: Callable[[str], Any] | None = None) -> str:
    """Return the current name of a setting.

    Args:
        name: old or current name, with its sections.
        on_message: called with a hint that names the new setting, if the name is an old one.
    """
    if name in RENAMED and on_message is not None:
        on_message(f"the setting {name} is called {RENAMED[name]} now; the old name ends with the next release")
    return RENAMED.get(name, name)


def current_names(settings: Mapping[str, Any], *, on_message: Callable[[str], Any] | None = None) -> dict[str, Any]:
    """Return a copy of settings in which old names are replaced.

    An old name overrides the new one: configs that change a copy of ours have both.

    Args:
        settings: settings by name, with nested sections.
        on_message: called with a hint for each old name.
    """
    result = copy.deepcopy(dict(settings))
    for old in RENAMED:
        section, last = _section(result, old)
        if section is not None and last in section:
            new = current_name(old, on_message=on_message)
            section[new.rpartition(".")[2]] = section.pop(last)
    return result


def previous_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of settings with the names of the last release, for digests that were stored then."""
    result = copy.deepcopy(dict(settings))
    for old, new in RENAMED.items():
        section, last = _section(result, new)
        if section is not None and last in section:
            section[old.rpartition(".")[2]] = section.pop(last)
    return result


def _section(settings: dict[str, Any], name: str) -> tuple[dict[str, Any] | None, str]:
    *sections, last = name.split(".")
    section: Any = settings
    for part in sections:
        section = section.get(part)
        if not isinstance(section, dict):
            return None, last
    return section, last
