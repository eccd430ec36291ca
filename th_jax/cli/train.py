"""`th-jax train`: train.py of a checkout, the algorithm of meta-learning."""

import sys

from th_jax.cli.checkout import from_checkout
from th_jax.cli.compile_cache import use_compile_cache


def delegate(arguments: list[str]) -> int:
    """Run train.py with its own flags.

    Raises:
        ImportError: outside of a checkout.
    """
    from absl import app, flags

    train = from_checkout("train")
    use_compile_cache()
    flags.mark_flags_as_required(["config"])
    try:
        app.run(train.main, argv=["train.py", *arguments], flags_parser=train.parse)
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
            return 1
        return ended.code or 0
    return 0
