"""Measures weights on held-out people by a protocol: numbers with intervals, a page, and a user study's frames.

th-jax evaluate --meta heads64 --data bundled --protocol heads --out runs/evaluation
th-jax evaluate --meta runs/voxceleb2 --data data/voxceleb2 --protocol zakharov19 --out runs/zakharov19

The same command goes on where it was stopped. --shard I/N measures a part of the people; when all parts are done, the command
without it joins them. docs/evaluation.md says what each number means.
"""

import argparse
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from th_jax.cli.checkout import from_checkout
from th_jax.cli.options import DONE, INTERRUPTED, UsageError, add_landmark_model, new_parser, print_hint
from th_jax.cli.shard_options import add_shard_options, requested_shard
from th_jax.data.records import VideoRecords
from th_jax.evaluation.face_measures import check_face_models
from th_jax.evaluation.generated_gaze import feed_forward_avatars, gaze_report, measure_generated, tuned_avatars
from th_jax.evaluation.people import LANDMARKS
from th_jax.evaluation.protocol.expectations import judged
from th_jax.evaluation.protocol.judges import add_options, judges_of
from th_jax.evaluation.protocol.judging import Answers, ask_judges
from th_jax.evaluation.protocol.measure import Faces
from th_jax.evaluation.protocol.plan import CHOSEN_FILE, PROTOCOLS, Person, choose_people, chosen_text
from th_jax.evaluation.protocol.report import write_report
from th_jax.evaluation.protocol.results import (
    RESULTS_FILE,
    TABLE_FILE,
    Scores,
    crossed_facts,
    gather,
    results_document,
    table_markdown,
    write_results,
)
from th_jax.evaluation.protocol.run import COPIES, RESERVED, Evaluation, Progress, Stopped, cell_count
from th_jax.evaluation.protocol.run import run as measure_all
from th_jax.evaluation.protocol.score_store import STUDY_FOLDER, ScoreStore, baseline_shots
from th_jax.evaluation.protocol.study import write_study
from th_jax.evaluation.protocol.weights import weight_digests
from th_jax.evaluation.resting import resting_flicker, resting_report
from th_jax.evaluation.retargeting import fit_errors, measure_pairs
from th_jax.evaluation.retargeting import report as retargeting_report
from th_jax.landmarks.methods import METHODS
from th_jax.provenance.signing_options import add_signing_options, tried_signer
from th_jax.signals import StopRequest
from th_jax.storage.files import check_place
from th_jax.storage.run_folder import CONFIG_FILE, write_config, write_whole
from th_jax.training.presets import (
    FINETUNE_PRESETS,
    Settings,
    check_settings,
    finetune_arguments,
    finetune_preset,
    preset_of,
    read_settings,
)
from th_jax.version import __version__
from th_jax.weights import MetaModel, load_meta

RETARGET = "retarget"
"""The protocol on points, which needs no data, and weights only for the gaze in generated frames."""

RETARGET_SHOTS = 8

GAZE_PEOPLE = 6
"""Number of people whose generated frames are measured."""


def run(options: argparse.Namespace) -> int:
    """Compute the missing measures; return 75 if a signal stopped the run."""
    if options.protocol == RETARGET:
        return measure_retargeting(options)
    if options.meta is None or options.data is None:
        raise UsageError(f"the protocol {options.protocol} needs --meta and --data")
    judges = judges_of(options)
    shard = requested_shard(options)
    evaluation, about = begin(options)
    if shard is not None:
        evaluation = evaluation._replace(only=shard.names({person.name: 1 for person in evaluation.people}))
        print(f"{shard.title}: {len(evaluation.measured)} of {len(evaluation.people)} people", flush=True)
    with (
        StopRequest() as stop,
        tqdm(total=cell_count(evaluation), unit="cell", dynamic_ncols=True, disable=options.quiet or None) as bar,
    ):
        progress = Progress(on_cell=bar.update, on_message=bar.set_postfix_str, stop=lambda: bool(stop.signal))
        try:
            faces = measure_all(evaluation, progress)
            if shard is not None:
                bar.write(f"{options.out}: done; when all shards are, --shard 1/1 writes {RESULTS_FILE}")
                return DONE
            answers = ask_judges(evaluation, judges, faces, progress)
        except Stopped:
            bar.write(f"stopped by {stop.signal}; finished results are kept; run the same command again to continue")
            return INTERRUPTED
    about["networks"] = judges.about()
    finish(evaluation, about, faces, answers, out=options.out, seed=options.seed)
    return DONE


def measure_retargeting(options: argparse.Namespace) -> int:
    """Measure the methods of retargeting on points of rendered heads, and write the tables and their text.

    With weights, the gaze in frames that they generate is measured too, of GAZE_PEOPLE people by default.

    Raises:
        UsageError: for options that belong to data.
        ValueError, OSError: for numbers that make no pairs, and for a place that cannot be written.
        ImportError: outside of a checkout, which has the heads.
    """
    if options.data is not None:
        raise UsageError("the protocol retarget renders its own people: omit --data")
    if options.shard is not None or options.shard_count is not None:
        raise UsageError("the protocol retarget takes a minute and has no shards: omit --shard and --shard-count")
    _check_out_and_seed(options)
    shots = options.shots or [RETARGET_SHOTS]
    if len(shots) != 1:
        raise ValueError(f"the protocol retarget takes one number of shots, but {len(shots)} were given")
    people = 24 if options.people is None else options.people
    frames = 8 if options.targets is None else options.targets
    meta = None if options.meta is None else load_meta(options.meta, perceptual=options.perceptual)
    pairs = from_checkout("data_prep.heads.retarget_truth").make_truth(people=people, frames=frames, shots=shots[0])
    with tqdm(total=people * len(METHODS), unit="target", dynamic_ncols=True, disable=options.quiet or None) as bar:
        measured = measure_pairs(pairs, on_target=bar.update)
    text = retargeting_report(measured, fit_errors(pairs), seed=options.seed)
    if meta is not None:
        text += "\n" + _generated_gaze(meta, options, people=min(people, GAZE_PEOPLE), shots=shots[0])
    options.out.mkdir(parents=True, exist_ok=True)
    write_whole(str(options.out / TABLE_FILE), text.encode())
    print(text, end="")
    print(f"{options.out / TABLE_FILE}: {people} x {people - 1} pairs, {3 * frames} frames each")
    return DONE


def _generated_gaze(meta: MetaModel, options: argparse.Namespace, *, people: int, shots: int) -> str:
    """Fine-tune avatars of rendered people and measure the gaze in their frames."""
    settings = _named_settings(options) or finetune_preset(preset_of(meta.description))
    jax.config.update("jax_default_matmul_precision", settings["matmul_precision"])
    size = meta.networks.image_size
    truth = from_checkout("data_prep.heads.gaze_truth").make_gaze_truth(size=size, people=people, shots=shots)
    tuned = tuned_avatars(meta, truth, **finetune_arguments(settings, meta.perceptual))
    avatars = {"feed-forward": feed_forward_avatars(meta, truth), "fine-tuned": tuned}
    measured = measure_generated(meta.networks, avatars, truth)
    still = resting_flicker(meta.networks, tuned, [one[0] for one in truth.shots], seed=options.seed)
    gaze = gaze_report(measured, size=size, radius=float(truth.radius.mean()), seed=options.seed)
    return gaze + "\n" + resting_report(still)


def _named_settings(options: argparse.Namespace) -> Settings | None:
    """Return the settings of fine-tuning that `--settings` names, or None.

    Raises:
        ValueError: if they are invalid.
    """
    if options.settings is None:
        return None
    named = read_settings(options.settings, on_message=print_hint)
    check_settings(named)
    return named


def _check_out_and_seed(options: argparse.Namespace) -> None:
    check_place(options.out, folder=True)
    if options.seed < 0:
        raise ValueError(f"seed must be 0 or more, but is {options.seed}")


def begin(options: argparse.Namespace) -> tuple[Evaluation, dict[str, Any]]:
    """Check all inputs before any computation, and return the evaluation and its description.

    Raises:
        ValueError, OSError, ImportError: for options that make no run, and for a folder that holds another one.
    """
    _check_out_and_seed(options)
    protocol = PROTOCOLS[options.protocol]
    changes = {"people": options.people, "targets": options.targets, "shots": options.shots}
    protocol = protocol._replace(**{name: value for name, value in changes.items() if value is not None})
    protocol = protocol._replace(shots=tuple(sorted(set(protocol.shots))))
    baselines = _baselines(options.baseline)
    if protocol.crossed and options.no_faces:
        raise ValueError("the protocol cross measures only faces: omit --no-faces")
    named = _named_settings(options)
    records = VideoRecords(str(options.data), options.split)
    people = choose_people(records, protocol, seed=options.seed)
    landmarks = options.landmarks or ("true" if records.videos.true_landmarks else "detected")
    if landmarks == "true" and not records.videos.true_landmarks:
        raise ValueError(f"data set {records.videos.name!r} has no true landmarks: give --landmarks detected")
    if not options.no_faces:
        check_face_models()
    store = ScoreStore(options.out, signer=tried_signer(options.signing_key, options.signing_certificate))
    meta = load_meta(options.meta, perceptual=options.perceptual)
    settings = finetune_preset(preset_of(meta.description)) if named is None else named
    jax.config.update("jax_default_matmul_precision", settings["matmul_precision"])
    finetune_arguments(settings, meta.perceptual)
    size = meta.networks.image_size
    if size > records.videos.frame_size:
        raise ValueError(
            f"the networks make frames of {size} px, but data set {records.videos.name!r} stores "
            f"{records.videos.frame_size} px"
        )
    weights = weight_digests(meta, faces=not options.no_faces)
    about: dict[str, Any] = {
        "protocol": options.protocol,
        "seed": options.seed,
        "size": size,
        "landmarks": landmarks,
        "targets": protocol.targets,
        "shots": list(protocol.shots),
        "retargeting": options.retargeting,
    }
    chosen = chosen_text(records, people, about).encode()
    request = about | {
        "chosen": hashlib.sha256(chosen).hexdigest(),
        "records": _content_digest(records, people),
        "version": __version__,
        "weights": weights,
        "settings": settings,
        "faces": not options.no_faces,
        "curve": options.curve,
    }
    if differing := write_config(options.out, request):
        raise ValueError(
            f"{options.out} holds an evaluation with another {', '.join(differing)} ({CONFIG_FILE}): choose another folder"
        )
    write_whole(str(options.out / CHOSEN_FILE), chosen)
    evaluation = Evaluation(
        meta, settings, records, protocol, people, store, landmarks=landmarks, faces=not options.no_faces,
        retargeting=options.retargeting, curve=options.curve, baselines=baselines, weights=weights,
    )  # fmt: skip
    return evaluation, request | {"software": f"th_jax {__version__}", "data": repr(records)}


def _content_digest(records: VideoRecords, people: Sequence[Person]) -> str:
    """Compute a SHA-256 digest of the selected records' checksums, which differ after a new preparation."""
    lines = [f"{person.video_id} {records.crc(person.record):08x}" for person in people]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def finish(
    evaluation: Evaluation, about: dict[str, Any], faces: Faces | None, answers: Answers, *, out: Path, seed: int
) -> Scores:
    """Numbers, table, page and the index of a user study, from what is on the disk and what networks say of it.

    Raises:
        ValueError: if something is missing.
        OSError: if the disk refuses.
    """
    protocol = evaluation.protocol
    baselines = {name: baseline_shots(folder, protocol.shots) for name, folder in evaluation.baselines.items()}
    scores = gather(
        evaluation.store, evaluation.people, shots=protocol.shots, systems=baselines, more=answers.tables,
        distances=answers.distances, seed=seed,
    )  # fmt: skip
    compared = crossed_facts(scores)
    expected, facts = judged(scores), [*_facts(evaluation, about, faces), *compared]
    undetected = None if faces is None else faces.undetected()
    document = results_document(scores, about | {"real_undetected": undetected}, expected)
    write_results(out, document, table_markdown(scores, [" ".join(facts)]))
    title = f"{about['protocol']}: {evaluation.meta.description['name']}"
    reported = write_report(out, evaluation, scores, title=title, facts=facts, expected=expected)
    shown = [cell for cell in scores.tables if cell[1] and cell[0] not in COPIES]
    study = write_study(
        evaluation.store, evaluation.people, cells=shown, name=title, size=about["size"], weights=evaluation.weights
    )
    for fact in compared:
        print(fact)
    names = [RESULTS_FILE, TABLE_FILE, *reported, CHOSEN_FILE, *([f"{STUDY_FOLDER}/"] if study else [])]
    print(f"{out}: {', '.join(names)}")
    return scores


def _facts(evaluation: Evaluation, about: dict[str, Any], faces: Faces | None) -> list[str]:
    protocol, count = evaluation.protocol, len(evaluation.people)
    shots = ", ".join(map(str, protocol.shots))
    persons = len({person.identity for person in evaluation.people})
    facts = [
        f"Protocol {about['protocol']}: {count} videos of {persons} people of {about['data']}, {protocol.targets} held-out "
        f"frames each at {about['size']} px, T = {shots}, seed {about['seed']}.",
        f"Landmarks that drive: {about['landmarks']}"
        + (f", of another person (retargeting: {about['retargeting']})." if protocol.crossed else "."),
        "Weights: " + ", ".join(f"{name} {digest[:16]}" for name, digest in evaluation.weights.items()) + " (SHA-256).",
        "Networks that judge: "
        + ", ".join(f"{name} {one['sha256'][:16]}" for name, one in about["networks"].items())
        + " (SHA-256).",
    ]
    needed = max(protocol.shots) + protocol.targets
    numbers = range(len(evaluation.records))
    if short := sum(evaluation.records.entry(number).frames < needed for number in numbers):
        facts.append(f"{short} videos of the split have fewer than {needed} frames and were not drawn.")
    if faces is None:
        return [*facts, "Faces were not measured."]
    total = count * protocol.targets
    return [*facts, f"The detector found no face in {faces.undetected()} of {total} real frames."]


def _baselines(named: Sequence[str]) -> dict[str, Path]:
    """Other systems' folders by name.

    Raises:
        ValueError: for something else than NAME=FOLDER, and for names that mean something else.
    """
    systems: dict[str, Path] = {}
    for text in named:
        name, equals, folder = text.partition("=")
        if not equals or not folder or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}", name):
            raise ValueError(
                f"another system is given as NAME=FOLDER, NAME of letters, digits, _, . and -, not as {text!r}"
            )
        if name in RESERVED | systems.keys():
            raise ValueError(f"the name {name!r} is taken: give the other system another one")
        systems[name] = Path(folder)
    return systems


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = new_parser("evaluate", __doc__)
    made.add_argument(
        "--meta", help="run's workdir, released file, or bundled name such as heads; optional for retarget"
    )
    made.add_argument("--data", help='data set, or "bundled" for the bundled heads')
    made.add_argument("--protocol", required=True, choices=[*PROTOCOLS, RETARGET])
    made.add_argument("--out", type=Path, required=True, help="folder of the run; the same one to go on")
    made.add_argument("--split", default="heldout", help="split of the data set, with people who were not trained on")
    made.add_argument(
        "--settings",
        help=f"of fine-tuning: a JSON file, or {' or '.join(FINETUNE_PRESETS)} (default: by the weights' name)",
    )
    made.add_argument(
        "--baseline",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="another system's frames",
    )
    made.add_argument("--people", type=int, help="other than the protocol's")
    made.add_argument("--targets", type=int, help="held-out frames of each, other than the protocol's")
    made.add_argument("--shots", type=int, nargs="+", metavar="T", help="other than 1 8 32")
    made.add_argument("--landmarks", choices=LANDMARKS, help="that drive (default: true where there are)")
    made.add_argument("--retargeting", choices=METHODS, default="none", help="of another driver's landmarks")
    made.add_argument("--perceptual", type=Path, help="folder of converted perceptual weights")
    made.add_argument("--seed", type=int, default=0, help="of people, shots, drivers and intervals")
    made.add_argument("--curve", action="store_true", help="measure images between chunks of fine-tuning, for a plot")
    made.add_argument("--no-faces", action="store_true", help="measure pixels and features alone, without dlib")
    made.add_argument("--quiet", action="store_true", help="no progress bar")
    add_shard_options(made, what="measure the people")
    add_signing_options(made)
    add_options(made)
    add_landmark_model(made)
    return made
