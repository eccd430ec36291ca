"""`th-jax train`: train.py of a checkout, the algorithm of meta-learning."""

import importlib
import sys


def delegate(arguments: list[str]) -> int:
    """Run train.py with its own flags.

    Raises:
        ImportError: outside of a checkout.
    """
    from absl import app, flags

    try:
        train = importlib.import_module("train")
    except ModuleNotFoundError as error:
        if error.name != "train":
            raise
        raise ImportError("training needs a checkout of the project, whose train.py it is: run it there") from error
    flags.mark_flags_as_required(["config"])
    try:
        app.run(train.main, argv=["train.py", *arguments], flags_parser=train.parse)
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
            return 1
        return ended.code or 0
    return 0
