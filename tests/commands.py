"""The commands of `th-jax` as functions of their options, in this process."""

from collections.abc import Callable, Sequence

from th_jax.cli.main import main as th_jax


def command(*names: str) -> Callable[[Sequence[str]], int]:
    """`th-jax NAMES...`, to be called with options; returns the exit code."""

    def run(options: Sequence[str] = ()) -> int:
        return th_jax([*names, *options])

    return run


animate = command("animate")
compress = command("compress")
consent = command("consent")
curves = command("curves")
evaluate = command("evaluate")
export = command("export")
release = command("release")
study = command("study")
verify = command("verify")
build = command("prepare", "build")
beam = command("prepare", "beam")
convert_weights = command("prepare", "convert-weights")
forget = command("prepare", "forget")
inspect = command("prepare", "inspect")
render_heads = command("prepare", "render-heads")
