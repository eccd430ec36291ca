"""`th-jax prepare`: makes data sets from videos, photos and a renderer, with data_prep/ of a checkout."""

import sys

from th_jax.cli.checkout import from_checkout
from th_jax.cli.options import DONE, USAGE, with_hyphens

TASKS = {
    "build": ("data_prep.build_shards", "videos or photos to sharded records"),
    "inspect": ("data_prep.inspect_shards", "a page or a contact sheet of a data set"),
    "forget": ("data_prep.forget", "remove people from a data set, or all their traces"),
    "render-heads": ("data_prep.render_heads", "render people from seeds"),
    "convert-weights": ("data_prep.convert_weights", "published perceptual networks to safetensors"),
    "beam": ("data_prep.beam_pipeline", "`build` as an Apache Beam pipeline"),
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
