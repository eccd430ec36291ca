"""Meta-learns E, P, G, D and the video table (paper, section 3.2): the options of train.py, which needs a checkout.

The same command continues a run where it was stopped. docs/training.md has the settings.
"""

import argparse
import os
import sys
import time
from typing import NoReturn

from th_jax.cli.checkout import from_checkout
from th_jax.cli.compile_cache import SharedPrograms
from th_jax.cli.options import DONE, FAILED, INTERRUPTED, UsageError, new_parser
from th_jax.cli.settings import add_setting_options, changed, read_settings_file, with_set_options

_HEARTBEAT_SECONDS = 20
"""Time without a sign of life after which a process counts as lost, and the others end."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    made = new_parser(
        "train", __doc__, example="th-jax train --config configs/demo.py --workdir runs/demo --set seed=1"
    )
    add_setting_options(made, file="configs/demo.py", change="steps=100 or networks.pool=mean")
    made.add_argument("--workdir", help="folder or address of the run: config, metrics, samples, checkpoints")
    made.add_argument(
        "--dry-run", action="store_true", help="print what would run, its memory and its FLOP; run nothing"
    )
    made.add_argument(
        "--distributed",
        action="store_true",
        help="first join the processes of the other hosts of a TPU pod or Slurm job",
    )
    made.add_argument(
        "--coordinator", metavar="HOST:PORT", help="join the processes of the other hosts; address of process 0"
    )
    made.add_argument("--processes", type=int, metavar="N", help="number of processes of the run, with --coordinator")
    made.add_argument("--process", type=int, metavar="I", help="number of this process, from 0, with --coordinator")
    made.add_argument(
        "--replay",
        metavar="FOLDER",
        help="repeat a skipped step from WORKDIR/replay/STEP; needs no other option, nor data",
    )
    made.add_argument(
        "--aot",
        metavar="DIR",
        help="folder or bucket of compiled programs that all hosts load; the first host stores new ones",
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
    """Check the settings, and run or describe what they stand for; return 75 if a signal stopped the run."""
    if options.aot is not None and (options.replay or options.dry_run):
        raise UsageError("--aot is for runs: leave it out with --replay and --dry-run")
    if options.replay:
        return _replay(options.replay)
    if options.config is None:
        raise UsageError("--config is missing: a file of settings such as configs/demo.py")
    if not (options.workdir or options.dry_run):
        raise UsageError("--workdir is missing: the folder of the run")
    script, defaults = from_checkout("train"), from_checkout("configs.defaults")
    import jax
    from absl import flags
    from ml_collections import ConfigDict

    from th_jax.training.dry_run import describe_config
    from th_jax.training.presets import check_meta_settings

    settings = changed(read_settings_file(options.config), options.changes)
    check_meta_settings(settings, known=defaults.get_config().to_dict())
    # Before the hosts meet: a place that is refused must not leave the others waiting for this one.
    shared = None if options.aot is None else SharedPrograms(options.aot)
    flags.FLAGS.mark_as_parsed()  # Grain's worker processes read absl's flags
    if options.distributed or options.coordinator:
        _join(options)
    jax.config.update("jax_default_matmul_precision", settings["matmul_precision"])
    if options.dry_run:
        print(ConfigDict(settings), describe_config(settings), sep="\n")
        return DONE
    profile_steps = options.profile_steps if options.profile else 0
    try:
        finished = script.train(ConfigDict(settings), options.workdir, profile_steps=profile_steps)
    except Exception as error:
        if jax.process_count() == 1:
            raise
        _end_among_others(error)
    if shared is not None:
        print(shared)
    return DONE if finished else INTERRUPTED


def _join(options: argparse.Namespace) -> None:
    import jax

    given = (options.coordinator, options.processes, options.process)
    if None in given and any(value is not None for value in given):
        raise UsageError("--coordinator, --processes and --process belong together")
    if options.coordinator and not 0 <= options.process < options.processes:
        raise UsageError(f"--process counts from 0 to {options.processes - 1}, but is {options.process}")
    jax.distributed.initialize(
        *given, heartbeat_timeout_seconds=_HEARTBEAT_SECONDS, shutdown_timeout_seconds=_HEARTBEAT_SECONDS
    )


def _end_among_others(error: Exception) -> NoReturn:
    """End this process at once, because a normal end would wait for the others, and they for this one."""
    import jax

    print(f"th-jax train: process {jax.process_index()} of {jax.process_count()}: {error}", file=sys.stderr, flush=True)
    if "Gloo" in str(error) or isinstance(error, jax.errors.JaxRuntimeError):
        print(
            "if another process has ended, JAX names it now; run the same commands again", file=sys.stderr, flush=True
        )
        time.sleep(2 * _HEARTBEAT_SECONDS)  # JAX ends this process first, with the number of the lost one
    os._exit(FAILED)


def _replay(folder: str) -> int:
    from th_jax.training.run import replay

    for line in replay(folder):
        print(line)
    return DONE
