"""`th-jax prepare`: makes data sets from videos, photos and a renderer, with data_prep/ of a checkout."""

import sys

from th_jax.cli.checkout import from_checkout
from th_jax.cli.options import DONE, USAGE, with_hyphens

TASKS = {
    "build": ("data_prep.build.shards", "build a data set from videos or photos"),
    "inspect": ("data_prep.inspect.data_set", "show a data set as a page or contact sheet"),
    "forget": ("data_prep.forget.command", "remove people from a data set, or all files that derive from them"),
    "render-heads": ("data_prep.heads.command", "render people from seeds"),
    "convert-weights": ("data_prep.convert.command", "convert published perceptual networks to safetensors"),
    "beam": ("data_prep.build.beam", "run `build` as an Apache Beam pipeline"),
}


def delegate(arguments: list[str]) -> int:
    """Run a task.

    Raises:
        ImportError: outside of a checkout.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, TASKS))
        print("usage: th-jax prepare TASK [options]\n\ntasks:")
        print(*(f"  {name:<{width}}  {summary}" for name, (_, summary) in TASKS.items()), sep="\n")
        return DONE
    task, *rest = arguments
    if task not in TASKS:
        print(f"th-jax prepare: unknown task {task!r}; there are {', '.join(TASKS)}", file=sys.stderr)
        return USAGE
    module = from_checkout(TASKS[task][0])
    if task != "beam":  # the options of its runners contain underscores
        rest, _ = with_hyphens(rest)
    return int(module.main(rest))
