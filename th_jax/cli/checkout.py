"""Imports modules that exist only in a checkout of the project: data_prep/, configs/ and train.py."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

_BESIDE_PACKAGE = Path(__file__).parents[2]


def from_checkout(module: str) -> ModuleType:
    """Import a module of the checkout that contains the package, the current folder, or else the running script.

    A console script has none of these folders on its path.

    Raises:
        ImportError: outside of a checkout.
    """
    for root in (_BESIDE_PACKAGE, Path.cwd(), Path(sys.argv[0]).absolute().parent):
        if (root / "train.py").is_file() and (root / "data_prep").is_dir():
            if str(root) not in sys.path:
                sys.path.insert(0, str(root))
            return importlib.import_module(module)
    raise ImportError("this command needs a checkout of the project: run it in its folder")
