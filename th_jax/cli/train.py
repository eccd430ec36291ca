"""Meta-learns E, P, G, D and the video table (paper, section 3.2): the options of train.py, which needs a checkout.

The same command continues a run where it was stopped. docs/training.md has the settings.
"""

import argparse
from pathlib import Path

from th_jax.cli.checkout import from_checkout
from th_jax.cli.options import DONE, UsageError, new_parser
from th_jax.cli.settings import add_setting_options, changed, read_settings_file, with_set_options


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    made = new_parser(
        "train", __doc__, example="th-jax train --config configs/demo.py --workdir runs/demo --set seed=1"
    )
    add_setting_options(made, file="configs/demo.py", change="steps=100 or networks.pool=mean", required=True)
    made.add_argument("--workdir", help="folder or address of the run: config, metrics, samples, checkpoints")
    made.add_argument(
        "--dry-run", action="store_true", help="print what would run, its memory and its FLOP; run nothing"
    )
    made.add_argument("--distributed", action="store_true", help="first join the processes of the other hosts")
    made.add_argument(
        "--replay", type=Path, metavar="FILE", help="repeat the step on a saved batch that stopped the run; print it"
    )
    made.add_argument("--profile", action="store_true", help="trace a few steps with jax.profiler into WORKDIR/profile")
    made.add_argument("--profile-steps", type=_count, default=5, metavar="N", help="number of traced steps; default 5")
    return made


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the options; `--config.KEY=VALUE` is `--set KEY=VALUE`."""
    return parser().parse_args(with_set_options(arguments))


def less_memory(_: argparse.Namespace) -> str:
    """Return what to change if memory is too small."""
    return "lower --set episodes.batch_size, or see step.grad_accumulation_steps and step.remat_perceptual in docs/training.md"


def _count(written: str) -> int:
    if not written.isdecimal() or not 1 <= int(written) <= 1000:
        raise argparse.ArgumentTypeError(f"must be 1 to 1000, but is {written}")
    return int(written)


def run(options: argparse.Namespace) -> int:
    """Check the settings, and run or describe what they stand for."""
    if not (options.workdir or options.dry_run):
        raise UsageError("--workdir is missing: the folder of the run")
    script, defaults = from_checkout("train"), from_checkout("configs.defaults")
    import jax
    from absl import flags
    from ml_collections import ConfigDict

    from th_jax.training.dry_run import describe_config
    from th_jax.training.presets import check_meta_settings
    from th_jax.training.run import replay_lines

    settings = changed(read_settings_file(options.config), options.changes)
    check_meta_settings(settings, known=defaults.get_config().to_dict())
    flags.FLAGS.mark_as_parsed()  # Grain's worker processes read absl's flags
    if options.distributed:
        jax.distributed.initialize()
    jax.config.update("jax_default_matmul_precision", settings["matmul_precision"])
    if options.dry_run:
        print(ConfigDict(settings), describe_config(settings), sep="\n")
    elif options.replay:
        print(*replay_lines(settings, options.workdir, options.replay), sep="\n")
    else:
        profile_steps = options.profile_steps if options.profile else 0
        script.train(ConfigDict(settings), options.workdir, profile_steps=profile_steps)
    return DONE
