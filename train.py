"""Meta-learning command: `python train.py --config configs/NAME.py --workdir DIR` (paper, section 3.2; docs/training.md)."""

import math
import sys
from pathlib import Path
from typing import Any

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from configs import defaults
from th_jax.console import forgiving_output
from th_jax.data import Episodes, VideoRecords
from th_jax.data.records import data_folder
from th_jax.evaluation.watch import HeldOutWatch
from th_jax.losses import loss_preset
from th_jax.models.checks import check_setting_names
from th_jax.models.networks import Networks
from th_jax.perceptual.frozen import load_perceptual
from th_jax.signals import StopRequest, is_out_of_memory
from th_jax.storage.checkpoints import Checkpoints
from th_jax.training.dry_run import batch_shapes, describe_run, listed_or_expected
from th_jax.training.optimizers import AdversarySchedule, Optimizers
from th_jax.training.programs import MetaPrograms
from th_jax.training.run import (
    StepClock,
    begin_or_resume,
    config_mistake,
    find_start,
    one_epoch,
    replay_lines,
    steps_of_epochs,
    stop_for_replay,
)
from th_jax.training.run_log import RunLog, write_config
from th_jax.training.sharding import make_mesh, put_batch

CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment, a file in configs/.")
WORKDIR = flags.DEFINE_string("workdir", None, "Where the run lives: config, metrics, samples, checkpoints.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print what would run, its memory and its arithmetic; run nothing.")
DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Join the processes of the other hosts first.")
REPLAY = flags.DEFINE_string("replay", None, "A saved batch: run the step that stopped the run again, and print it.")

LEAST = {
    **dict.fromkeys(("log_every", "evaluate_every", "checkpoint_every", "keep_checkpoints", "stop_after_skips"), 1),
    **dict.fromkeys(("steps", "health_every"), 0),
}
"""Minimum values of the step-interval settings."""

NO_MEMORY = (
    "out of memory: lower --config.episodes.batch_size, "
    "or see step.slices and step.remat_perceptual in docs/training.md"
)


def parse(arguments: list[str]) -> list[str]:
    """Parse the command line's flags and the config with its changes; report mistakes in one sentence, without a traceback."""
    try:
        return app.parse_flags_with_usage(arguments)
    except (AttributeError, LookupError, TypeError, ValueError, OSError, SyntaxError, ImportError) as error:
        sys.exit(f"train.py: {config_mistake(error, arguments)}")


@forgiving_output()
def main(arguments: list[str]) -> None:
    """Run the command that the flags select."""
    if arguments[1:]:
        app.usage(detailed_error=f"unexpected: {' '.join(arguments[1:])}", exitcode=2)
    if not (WORKDIR.value or DRY_RUN.value):
        app.usage(detailed_error="--workdir is missing: the folder where the run shall live", exitcode=2)
    logging.set_verbosity(logging.WARNING)
    if DISTRIBUTED.value:
        jax.distributed.initialize()
    try:
        config = loaded_config()
        jax.config.update("jax_default_matmul_precision", config.matmul_precision)
        (dry_run if DRY_RUN.value else replay if REPLAY.value else train)(config)
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        sys.exit(f"train.py: {NO_MEMORY}")
    except (ValueError, ImportError, OSError) as error:
        sys.exit(f"train.py: {error}")


def loaded_config() -> ConfigDict:
    """Return the config of the command line.

    Raises:
        ValueError: if the file cannot be loaded, or does not contain a meta-learning config.
    """
    config = CONFIG.value
    try:
        getattr(config, "name", None)  # an unreadable file raises only at the first access
    except OSError as error:
        raise ValueError(config_mistake(error, sys.argv)) from error
    if not isinstance(config, ConfigDict):
        raise ValueError(
            f"get_config must return a ConfigDict as configs/defaults.py does, but returned {config!r:.80}"
        )
    check_config(config.to_dict())
    return config


def check_config(settings: dict[str, Any]) -> None:
    """Check that settings are a complete meta-learning config with values in range.

    Raises:
        ValueError: naming what is missing, unknown or out of range; also for other configs, such as those of fine-tuning.
    """
    known = defaults.get_config().to_dict()
    if missing := [name for name in known if name not in settings]:
        named = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if missing[3:] else "")
        raise ValueError(f"this is no config of meta-learning: it has no {named}; begin with configs/defaults.py")
    check_setting_names("a config of meta-learning", known, settings)
    for section in (name for name, value in known.items() if isinstance(value, dict)):
        if not isinstance(settings[section], dict):
            raise ValueError(f"{section} is a section of settings in configs/defaults.py, but is {settings[section]!r}")
    for section in ("data", "episodes", "reading", "heldout"):  # constructors check the others
        if missing := [name for name in known[section] if name not in settings[section]]:
            raise ValueError(f"the section {section} has no {', '.join(missing)}; configs/defaults.py has")
        check_setting_names(f"the section {section}", known[section], settings[section])
    counts = {f"episodes.{name}": (settings["episodes"][name], 1) for name in ("batch_size", "sources")}
    counts |= {name: (settings[name], least) for name, least in LEAST.items()}
    for name, (value, least) in counts.items():
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be at least {least}, but is {value!r}")
    epochs = settings["epochs"]
    if not settings["steps"] and not (isinstance(epochs, int | float) and 0 < epochs < math.inf):
        raise ValueError(f"a run needs steps or epochs above 0, but steps is 0 and epochs is {epochs!r}")


def train(config: ConfigDict) -> None:
    """Run meta-learning, from the first step or the last saved step to the end."""
    workdir, data, networks = WORKDIR.value, config.data, Networks.from_settings(config.networks)
    records = VideoRecords(data_folder(config.data.folder), data.split, on_damage=data.on_damage)
    hosts = {"process_index": jax.process_index(), "process_count": jax.process_count()}
    episodes = Episodes(records, image_size=networks.image_size, seed=config.seed, **hosts, **config.episodes)
    videos, video_list = len(records.videos.entries(data.split)), records.videos.digest(split=data.split)
    programs, perceptual = programs_of(config, videos=videos), load_perceptual(config.perceptual)
    watch = watch_of(config, networks) if jax.process_index() == 0 else None
    total = config.steps or steps_of_epochs(config.epochs, episodes.episodes_per_epoch, config.episodes.batch_size)
    description, folder = {"config": config.to_dict(), "video_list": video_list}, f"{workdir}/checkpoints"
    goes_on, start = find_start(
        programs, folder, start_from=config.start_from, growing=config.start_growing, seed=config.seed
    )
    with StopRequest() as stop, Checkpoints(folder, keep=config.keep_checkpoints) as checkpoints:
        begun = begin_or_resume(programs, checkpoints, episodes, seed=config.seed, video_list=video_list, start=start)
        state, step = begun.state, begun.step
        with RunLog(workdir, total_steps=total, start_step=step, process_index=jax.process_index()) as log:
            if jax.process_index() == 0:
                for difference in write_config(workdir, config.to_dict(), overwrite=True):
                    log.message(f"from here on another setting: {difference}")
            if goes_on and config.start_from:
                log.message(f"start_from is not used: the run goes on from step {step:,}")
            begun.tell(log)
            log.message(f"step {step:,} of {total:,}; {videos:,} videos; {programs.mesh.devices.size} devices")
            reader, clock = episodes.iterate(start_step=step, **config.reading), StepClock()
            while step < total and not stop.agreed(step):
                if programs.schedule.settles_at(step):
                    state = programs.settle(state, one_epoch(episodes, programs))
                with clock.waiting():
                    batch = next(reader)
                on_devices = put_batch(programs.mesh, batch)
                if config.health_every and step % config.health_every == 0:
                    log.metrics(step, programs.health_at(step)(state, perceptual, on_devices))
                state, metrics = programs.step_at(step)(state, perceptual, on_devices)
                step += 1
                log.progress(step, metrics)
                if step % config.log_every == 0 or step == total:
                    log.metrics(step, metrics | {"skipped": state.skipped} | clock.lap())
                    if int(state.skipped_in_a_row) >= config.stop_after_skips:
                        stop_for_replay(workdir, checkpoints, state, batch, step=step, description=description)
                if step % config.evaluate_every == 0 or step == total:
                    averaged = programs.averaged(state)  # on all hosts
                    if watch:
                        watch.look(log, step, networks, jax.device_get(averaged), perceptual)
                if step % config.checkpoint_every == 0:
                    checkpoints.save(step, state, description=description)
            checkpoints.save(step, state, description=description)
        ended = "finished with" if step == total else f"stopped by {stop.signal or 'the cluster'} at"
    print(f"{ended} step {step:,} of {total:,}; all is saved")


def programs_of(config: ConfigDict, *, videos: int) -> MetaPrograms:
    """Build the run's networks, optimizers and losses on all devices."""
    return MetaPrograms(
        Networks.from_settings(config.networks),
        Optimizers.from_settings(config.optimizers).for_batch(config.episodes.batch_size, rule=config.batch_rule),
        loss_preset(**config.losses),
        make_mesh(),
        videos=videos,
        schedule=AdversarySchedule.from_settings(config.adversary),
        step=config.step,
    )


def watch_of(config: ConfigDict, networks: Networks) -> HeldOutWatch:
    """Build the evaluation on held-out people during the run."""
    chosen = config.heldout.to_dict()
    records = VideoRecords(data_folder(chosen.pop("folder") or config.data.folder), chosen.pop("split"))
    return HeldOutWatch(records, faces=config.evaluate_faces, image_size=networks.image_size, **chosen)


def dry_run(config: ConfigDict) -> None:
    """Print a description of the run."""
    videos, points, note = listed_or_expected(
        data_folder(config.data.folder), config.data.split, expected=config.expected_videos
    )
    size, sizes = Networks.from_settings(config.networks).image_size, config.episodes
    batch = batch_shapes(episodes=sizes.batch_size, sources=sizes.sources, size=size, points=points)
    steps = config.steps or steps_of_epochs(config.epochs, videos, sizes.batch_size)
    programs, frozen = programs_of(config, videos=videos), tuple(config.perceptual)
    print(config, note, describe_run(programs, batch, perceptual=frozen, steps=steps), sep="\n")


def replay(config: ConfigDict) -> None:
    """Repeat the step that stopped the run, and print which of its metrics are not finite."""
    videos, _, _ = listed_or_expected(
        data_folder(config.data.folder), config.data.split, expected=config.expected_videos
    )
    with Checkpoints(f"{WORKDIR.value}/checkpoints", read_only=True) as checkpoints:
        perceptual = load_perceptual(config.perceptual)
        print(*replay_lines(programs_of(config, videos=videos), checkpoints, Path(REPLAY.value), perceptual), sep="\n")


if __name__ == "__main__":
    flags.mark_flags_as_required(["config"])
    app.run(main, flags_parser=parse)
