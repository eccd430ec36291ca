"""Imports what is only in a checkout of the project: data_prep/ and train.py."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

_BESIDE_PACKAGE = Path(__file__).parents[2]


def from_checkout(module: str) -> ModuleType:
    """Import a module of the checkout that the package belongs to, or else of the one in the current folder.

    A console script has neither folder on its path.

    Raises:
        ImportError: outside of a checkout.
    """
    for root in (_BESIDE_PACKAGE, Path.cwd()):
        if (root / "train.py").is_file() and (root / "data_prep").is_dir():
            if str(root) not in sys.path:
                sys.path.insert(0, str(root))
            return importlib.import_module(module)
    raise ImportError("this needs a checkout of the project: run it there")
