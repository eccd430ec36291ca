"""Meta-learning from beginning to end (paper, section 3.2): `python train.py --config configs/NAME.py --workdir DIR`.

th_jax/cli/train.py has the options, th_jax/training/presets.py the checks of the settings, docs/training.md the explanations.
"""

import sys

import jax
from ml_collections import ConfigDict

from th_jax.cli.main import main
from th_jax.data import Episodes, VideoRecords
from th_jax.evaluation.watch import HeldOutWatch
from th_jax.models.networks import Networks
from th_jax.perceptual.frozen import load_perceptual
from th_jax.signals import StopRequest
from th_jax.storage.checkpoints import Checkpoints
from th_jax.training.profile import StepProfiler
from th_jax.training.programs import MetaPrograms
from th_jax.training.run import (
    RunSaver,
    StepClock,
    begin_or_resume,
    check_hosts_agree,
    find_start,
    one_epoch,
    steps_of_epochs,
)
from th_jax.training.run_log import RunLog, write_config
from th_jax.training.sharding import put_batch
from th_jax.training.views import with_loss_networks


def train(config: ConfigDict, workdir: str, *, profile_steps: int = 0) -> bool:
    """Run meta-learning from the first step, or from the last saved step, to the end; return whether it came to the end.

    Args:
        config: settings that `th_jax.training.presets.check_meta_settings` accepts; configs/defaults.py lists them.
        workdir: folder or address of the run, for its config, metrics, samples and checkpoints.
        profile_steps: number of steps to trace with `jax.profiler`.

    Raises:
        ValueError: if the settings, data and saved states do not fit together, or too many steps in a row are not finite
            and no earlier state is left to return to.
    """
    networks = Networks.from_settings(config.networks.to_dict())
    records = VideoRecords(config.data.folder, config.data.split, on_damage=config.data.on_damage)
    episodes = Episodes(
        records,
        image_size=networks.image_size,
        seed=config.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        **config.episodes,
    )
    videos = len(records.videos.entries(config.data.split))
    video_list = records.videos.digest(split=config.data.split)
    check_hosts_agree(config.to_dict(), video_list)
    programs = MetaPrograms.from_settings(config.to_dict(), videos=videos)
    perceptual = with_loss_networks(load_perceptual(config.perceptual), programs.loss_weights)
    heldout = heldout_people(config, networks) if jax.process_index() == 0 else None
    total = config.steps or steps_of_epochs(config.epochs, episodes.episodes_per_epoch, config.episodes.batch_size)
    description = {"config": config.to_dict(), "video_list": video_list, "videos": videos}
    folder = f"{workdir}/checkpoints"
    resumes, released = find_start(
        programs, folder, start_from=config.start_from, growing=config.start_growing, seed=config.seed
    )
    retention = {"keep": config.keep_checkpoints, "keep_hours": config.keep_hours, "keep_best": bool(config.keep_best)}
    with StopRequest() as stop, Checkpoints(folder, **retention) as checkpoints:
        begun = begin_or_resume(
            programs, checkpoints, episodes, seed=config.seed, video_list=video_list, start=released
        )
        state = begun.state
        step = begun.step
        with (
            RunLog(workdir, total_steps=total, start_step=step, process_index=jax.process_index()) as log,
            StepProfiler(log, programs.schedule, start_step=step, total_steps=total, count=profile_steps) as profiler,
        ):
            if jax.process_index() == 0:
                for difference in write_config(workdir, config.to_dict(), overwrite=True):
                    log.message(f"changed setting: {difference}")
            if resumes and config.start_from:
                log.message(f"start_from is not used: the run continues from step {step:,}")
            begun.report(log)
            log.message(f"step {step:,} of {total:,}; {videos:,} videos; {programs.mesh.devices.size} devices")
            saver = RunSaver(
                workdir, programs, checkpoints, log,
                description=description, keep_best=config.keep_best, rollbacks=begun.rollbacks,
            )  # fmt: skip

            reader = episodes.iterate(start_step=step, **config.reading)
            clock = StepClock()
            while step < total and not stop.agreed(step):
                if programs.schedule.resets_table_at(step):
                    state = programs.reset_table_to_embeddings(state, one_epoch(episodes, programs))

                profiler.before(step)
                with clock.waiting():
                    batch = next(reader)
                on_devices = put_batch(programs.mesh, batch)
                if config.health_every and step % config.health_every == 0:
                    log.metrics(step, programs.health_at(step)(state, perceptual, on_devices))
                state, metrics = programs.step_at(step)(state, perceptual, on_devices)
                profiler.after(step, metrics)
                step += 1

                log.progress(step, metrics)
                if step % config.log_every == 0 or step == total:
                    log.metrics(step, metrics | {"skipped": state.skipped} | clock.lap())
                    if int(state.skipped_in_a_row) >= config.max_consecutive_nonfinite_steps:
                        state = saver.roll_back(state, batch, metrics, step=step, most=config.max_rollbacks)
                scores = None
                if step % config.evaluate_every == 0 or step == total:
                    averaged = programs.averaged(state)  # computed by all processes together
                    if heldout is not None:
                        scores = heldout.evaluate(log, step, networks, jax.device_get(averaged), perceptual)
                if step % config.checkpoint_every == 0:
                    saver.save(step, state, scores=scores)
            saver.save(step, state, last=True)
        ended = "finished with" if step == total else f"stopped by {stop.signal or 'the cluster'} at"
    print(f"{ended} step {step:,} of {total:,}; all is saved")
    return step == total


def heldout_people(config: ConfigDict, networks: Networks) -> HeldOutWatch:
    """Load the people who are held out from training and on whom the run is evaluated."""
    settings = config.heldout.to_dict()
    folder = settings.pop("folder") or config.data.folder
    records = VideoRecords(folder, settings.pop("split"))
    return HeldOutWatch(records, faces=config.evaluate_faces, image_size=networks.image_size, **settings)


if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
