"""Makes an avatar of a person from 1 to 32 images (paper, section 3.3), or of each person in a list.

th-jax finetune --meta heads --shots photos/ada --consent ada.consent.json --out avatars
th-jax finetune --meta runs/voxceleb2 --people-file people.csv --out avatars
th-jax finetune --meta runs/voxceleb2 --people-file people.csv --out avatars --shard 2/8
th-jax finetune --merge avatars --people-file people.csv

Run the same command again to continue an interrupted run. docs/fine-tuning.md has the settings, docs/cluster.md describes
shards.
"""

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from th_jax.avatars.enroll import Interrupted, enroll
from th_jax.avatars.merge import merge_reports, merge_summary
from th_jax.avatars.output import REPORT_FILE, Report, Saving, request_digest, summary, unfinished
from th_jax.avatars.requests import PersonRequest, check_name, one_person, read_people_file
from th_jax.avatars.settings import check_config, default_config, finetuning_of
from th_jax.avatars.shards import ShardInUseError, people_of_shard
from th_jax.cli.options import (
    DONE,
    FACE_HELP,
    FAILED,
    INTERRUPTED,
    UsageError,
    add_landmark_model,
    face_number,
    new_parser,
)
from th_jax.cli.settings import add_setting_options, changed, read_settings_file, with_set_options
from th_jax.cli.shard_options import add_shard_options, only_report, requested_shard
from th_jax.consent import NO_CONSENT, ConsentError, check_valid, read_consent
from th_jax.data.shots import SHOT_COUNTS
from th_jax.provenance.signing_options import add_signing_options, tried_signer
from th_jax.signals import StopRequest
from th_jax.storage.files import check_place
from th_jax.training.presets import preset_of
from th_jax.weights import load_meta

_MOST_SHOTS = SHOT_COUNTS[-1]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    made = new_parser("finetune", __doc__)
    made.add_argument("--meta", help="meta weights: a bundled name, a released file, or a run's folder")
    made.add_argument("--shots", help="one person: folder of photos, a photo or a video")
    made.add_argument("--name", help="name of the person; default: name of the folder or file")
    made.add_argument("--landmarks", help="file with 68 points for a single photo in which no face is detected")
    made.add_argument("--face", type=face_number, metavar="N", help=FACE_HELP)
    made.add_argument(
        "--people-file", help="many people: a CSV file with the columns name,shots,consent(,landmarks,face)"
    )
    add_shard_options(made, what="make the people")
    made.add_argument(
        "--merge", metavar="OUT", help="make nothing: join the reports of the shards in OUT, and name who is missing"
    )
    made.add_argument("--consent", help="consent record of the person (th-jax consent make), or none")
    made.add_argument("--out", help="folder for avatars, report and previews")
    made.add_argument("--max-shots", type=_shots, help=f"maximum number of images per person, 1 to {_MOST_SHOTS}")
    made.add_argument("--feed-forward", action="store_true", help="do not train; the avatar has less than 100 KB")
    made.add_argument("--compact", choices=("int8", "float16"), help="store only the changed weights, quantized")
    made.add_argument("--preview", action="store_true", help="draw OUT/previews/NAME/STEP.png every few steps")
    add_setting_options(made, file="configs/finetune_heads.py", change="epochs=20 or losses.pixel=100")
    add_signing_options(made)
    add_landmark_model(made)
    return made


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the options; `--config.KEY=VALUE` is `--set KEY=VALUE`."""
    return parser().parse_args(with_set_options(arguments))


def less_memory(options: argparse.Namespace) -> str:
    """Return what to change if memory is too small."""
    rounds = "" if options.feed_forward else "--set rounds.vmap_width=1, --set rounds.at_once=1, or "
    return f"lower {rounds}--max-shots"


def _shots(written: str) -> int:
    if not written.isdecimal() or not 1 <= int(written) <= _MOST_SHOTS:
        raise argparse.ArgumentTypeError(f"must be 1 to {_MOST_SHOTS}, but is {written}")
    return int(written)


def run(options: argparse.Namespace) -> int:
    """Make the avatars; return 0 if all were made, 1 if a person failed, 75 if it was interrupted."""
    check_combinations(options)
    if options.merge is not None:
        return merge(options)
    named = default_config("paper") if options.config is None else read_settings_file(options.config)
    config = changed(named, options.changes)
    check_config(config)  # before weights are loaded, whose name decides on the preset
    return finetune(options, None if options.config is None else config)


def check_combinations(options: argparse.Namespace) -> None:
    """Check that the options fit together.

    Raises:
        UsageError: naming the options that do not.
    """
    if options.merge is not None:
        if options.people_file is None:
            raise UsageError("--merge needs --people-file, which says who should be there")
        given = ("meta", "out", "shots", "shard", "shard_count")
        if extra := [f"--{name.replace('_', '-')}" for name in given if getattr(options, name) is not None]:
            raise UsageError(f"--merge makes nothing: leave out {', '.join(extra)}")
        return
    if missing := [f"--{name}" for name in ("meta", "out") if getattr(options, name) is None]:
        raise UsageError(f"give {' and '.join(missing)}")
    if options.people_file is None and (options.shard is not None or options.shard_count is not None):
        raise UsageError("--shard and --shard-count are parts of a people file: give --people-file")
    if (options.shots is None) == (options.people_file is None):
        raise UsageError("give either --shots, for one person, or --people-file, for many people")
    own = ("name", "landmarks", "face")
    if options.people_file is not None and any(getattr(options, name) is not None for name in own):
        raise UsageError("--name, --landmarks and --face are for one person: a people file has columns for them")
    if options.landmarks is not None and options.face is not None:
        raise UsageError("--landmarks are those of one face: omit --face")
    if options.people_file is not None and options.consent not in (None, NO_CONSENT):
        raise UsageError("--consent FILE is for one person: a people file has a column consent")
    if options.feed_forward and options.compact is not None:
        raise UsageError("--compact applies to trained avatars: a feed-forward avatar is small already")
    if (options.signing_key or options.signing_certificate) and not options.preview:
        raise UsageError("--signing-key signs previews: give --preview too")


def merge(options: argparse.Namespace) -> int:
    """Join the reports of shards; return 0 if all people are finished, 1 if a person is missing or failed."""
    folder, people_file = Path(options.merge), Path(options.people_file)
    merged = merge_reports(folder, read_people_file(people_file, unrecorded=True))
    print(merge_summary(merged, people_file=people_file))
    return DONE if all(outcome.status == "finished" for outcome in merged.outcomes) else FAILED


def finetune(options: argparse.Namespace, config: dict[str, Any] | None) -> int:
    """Make the avatars, and return the exit code.

    Args:
        options: as `parser` reads them.
        config: the preset for the meta weights, with the options' changes, by default.
    """
    shard = None if options.people_file is None else requested_shard(options)
    check_place(options.out, folder=True)
    people = requested(options)
    if shard is None:
        return _finetune(options, config, people, REPORT_FILE)
    chosen, text = people_of_shard(people, shard, max_shots=options.max_shots)
    print(text, flush=True)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(only_report(options.out, shard.report_file))
        except ShardInUseError as error:
            print(f"th-jax finetune: {error}, then run the same command again", file=sys.stderr)
            return INTERRUPTED
        return _finetune(options, config, chosen, shard.report_file) if chosen else DONE


def _finetune(
    options: argparse.Namespace, config: dict[str, Any] | None, people: list[PersonRequest], report_file: str
) -> int:
    import jax

    signer = tried_signer(options.signing_key, options.signing_certificate) if options.preview else None
    meta = load_meta(options.meta, only_generate=options.feed_forward)
    config = config or changed(default_config(preset_of(meta.description)), options.changes)
    jax.config.update("jax_default_matmul_precision", config["matmul_precision"])
    settings = {"feed_forward": True} if options.feed_forward else config
    notes = {"request": request_digest(meta, settings), "settings": settings}
    saving = Saving(Path(options.out), options.compact, options.preview, notes, signer)
    finetuning = None if options.feed_forward else finetuning_of(config, meta)
    report, stopped = Report(saving.folder, name=report_file), False
    left = unfinished(people, saving, max_shots=options.max_shots, report=report)
    done = len(people) - len(left)
    with StopRequest() as stop, tqdm(total=len(people), initial=done, unit="person", disable=None) as bar:
        made = enroll(
            meta, left, saving, finetuning=finetuning, max_shots=options.max_shots, report=report,
            stop=lambda: bool(stop.signal), on_message=lambda text: bar.set_postfix_str(text),
        )  # fmt: skip
        try:
            for outcome in made:
                bar.update()
                if outcome.status == "failed":
                    bar.write(f"{outcome.name}: {outcome.reason}", file=sys.stderr)
        except Interrupted:
            stopped = True
    failed = any(outcome.status == "failed" for outcome in report.outcomes)
    if options.people_file is not None or not failed:  # one person's reason was printed when it happened
        print(summary(report.outcomes, skipped=done, folder=saving.folder, report=report_file))
    if stopped:
        print(f"stopped by {stop.signal}; finished avatars are saved; run the same command again to continue")
        return INTERRUPTED
    return FAILED if failed else DONE


def requested(options: argparse.Namespace) -> list[PersonRequest]:
    """Return the requested people."""
    if options.people_file is not None:
        return read_people_file(Path(options.people_file), unrecorded=options.consent == NO_CONSENT)
    landmarks = None if options.landmarks is None else Path(options.landmarks)
    if options.name is not None:
        check_name(options.name)
    consent = None if options.consent in (None, NO_CONSENT) else Path(options.consent)
    person = one_person(Path(options.shots), name=options.name, landmarks=landmarks, consent=consent, face=options.face)
    if options.consent is None:
        raise ConsentError(
            f"the person shown in {options.shots} must have consented: give the consent record (th-jax consent make) with "
            "--consent FILE, or --consent none, which is recorded in the avatar and its images"
        )
    if consent is not None:
        check_valid(read_consent(consent))  # its images are compared when they are read
    return [person]
