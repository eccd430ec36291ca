"""Pictures of somebody new to their avatar (paper, section 3.3), for one person or a manifest of many.

    python finetune.py --meta heads --shots photos/ada --consent ada.consent.json --out avatars
    python finetune.py --meta runs/voxceleb2 --manifest people.csv --out avatars

The same command goes on where it was stopped. docs/fine-tuning.md has the settings.
"""

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags
from tqdm import tqdm

from th_jax.consent import NO_CONSENT, ConsentError, check_valid, read_consent
from th_jax.console import forgiving_output
from th_jax.data.shots import SHOT_COUNTS
from th_jax.enrolment.enrol import Finetuning, Interrupted, enrol
from th_jax.enrolment.report import Report, summary
from th_jax.enrolment.requests import PersonRequest, check_name, one_person, read_manifest
from th_jax.enrolment.saving import Saving, request_digest, unfinished
from th_jax.enrolment.stopping import StoppingSettings, check_stopping
from th_jax.interruption import StopRequest
from th_jax.media.signing_options import CERTIFICATE_HELP, KEY_HELP, tried_signer
from th_jax.memory import is_out_of_memory
from th_jax.models.boundary import check_setting_names
from th_jax.pretrained import MetaModel, load_meta
from th_jax.training.finetune_presets import check_settings, finetune_arguments, finetune_preset
from th_jax.whole_file import check_place

CONFIG = config_flags.DEFINE_config_file("config", None, "Settings; configs/finetune_META.py or configs/finetune.py.")
META = flags.DEFINE_string("meta", None, "Meta weights: a run's workdir, a released file, or a bundled name.")
SHOTS = flags.DEFINE_string("shots", None, "One person: a folder of photos, a photo or a video.")
NAME = flags.DEFINE_string("name", None, "The person's name; by default that of the folder or file.")
LANDMARKS = flags.DEFINE_string("landmarks", None, "68 points by hand for a single photo without a face that is found.")
MANIFEST = flags.DEFINE_string(
    "manifest", None, "Many people: a CSV file with the columns name,shots,consent(,landmarks)."
)
CONSENT = flags.DEFINE_string("consent", None, "The person's consent record (th_jax.consent makes one), or none.")
OUT = flags.DEFINE_string("out", None, "Where avatars, report and previews go.")
MAX_SHOTS = flags.DEFINE_integer(
    "max_shots", None, "Pictures of a person that are used at most.", lower_bound=1, upper_bound=SHOT_COUNTS[-1]
)
FEED_FORWARD = flags.DEFINE_bool("feed_forward", False, "No training: an avatar of under 100 KB in milliseconds.")
COMPACT = flags.DEFINE_enum("compact", None, ["int8", "float16"], "Store only what changed, in so few bits.")
PREVIEW = flags.DEFINE_bool("preview", False, "Draw OUT/previews/NAME/STEP.png every few steps.")
SIGNING_KEY = flags.DEFINE_string("signing_key", None, f"Of previews: {KEY_HELP}.")
SIGNING_CERTIFICATE = flags.DEFINE_string("signing_certificate", None, f"Of previews: {CERTIFICATE_HELP}.")

STOPPED = 75
"""Exit code after a signal, with people left: sysexits' "try again", which the same command does."""

OWN_SECTIONS = ("name", "early_stopping")


def parse(arguments: list[str]) -> list[str]:
    """The command line's flags and the config with its changes. A mistake in them is one sentence, not a traceback."""
    try:
        return flags.FLAGS(arguments)
    except flags.Error as error:
        hint = "--helpshort lists the flags"
        if isinstance(error, flags.UnrecognizedFlagError) and error.flagname.startswith("config."):
            hint = "a setting is changed in a file, so name the file too: --config configs/finetune_heads.py"
        reason = str(error).rstrip(".")
        sys.exit(f"finetune.py: {reason}; {hint}")
    except SyntaxError as error:
        encoding = "; save it as UTF-8" if "utf-8" in str(error).lower() else ""
        sys.exit(f"finetune.py: the config cannot be used: {error}{encoding}")
    except (AttributeError, LookupError, TypeError, ValueError, OSError, ImportError) as error:
        sys.exit(f"finetune.py: {_unknown_setting(error) or f'the config or a change of it cannot be used: {error}'}")


def _unknown_setting(error: Exception) -> str | None:
    """A sentence for what ml_collections says of an unknown setting: its name in quotes, and in a second line a like one."""
    inner = error.args[0] if error.args and isinstance(error.args[0], KeyError) else error
    said = inner.args[0] if isinstance(inner, KeyError) and inner.args else None
    named = re.fullmatch(r"'(\w+)'(?:\n(.*))?", said) if isinstance(said, str) else None
    if named is None:
        return None
    like = f". {named[2]}" if named[2] else ""
    return f"the config has no setting {named[1]}; configs/finetune.py lists them{like}"


@forgiving_output()
def main(arguments: list[str]) -> None:
    """Do what the flags say."""
    if arguments[1:]:
        app.usage(detailed_error=f"unexpected: {' '.join(arguments[1:])}", exitcode=2)
    if (SHOTS.value is None) == (MANIFEST.value is None):
        app.usage(detailed_error="give either --shots, for one person, or --manifest, for many", exitcode=2)
    if MANIFEST.value is not None and (NAME.value is not None or LANDMARKS.value is not None):
        app.usage(
            detailed_error="--name and --landmarks are for one person: a manifest has columns of them", exitcode=2
        )
    if MANIFEST.value is not None and CONSENT.value not in (None, NO_CONSENT):
        app.usage(detailed_error="--consent FILE is for one person: a manifest has a column consent", exitcode=2)
    if FEED_FORWARD.value and COMPACT.value is not None:
        app.usage(
            detailed_error="--compact is for what was trained: a feed-forward avatar is small already", exitcode=2
        )
    if (SIGNING_KEY.value or SIGNING_CERTIFICATE.value) and not PREVIEW.value:
        app.usage(detailed_error="--signing_key signs previews, and there are none: give --preview too", exitcode=2)
    logging.set_verbosity(logging.WARNING)
    try:
        sys.exit(finetune(CONFIG.value))
    except (ValueError, ImportError, OSError) as error:
        sys.exit(f"finetune.py: {error}")
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        lower = "" if FEED_FORWARD.value else "--config.rounds.width and --config.rounds.at_once (1 is the least), or "
        sys.exit(f"finetune.py: out of memory: lower {lower}--max_shots")


def finetune(config: ConfigDict | None) -> int:
    """From requests to avatars; the exit code is 0 if everybody has one, 1 if somebody failed, STOPPED if it was stopped.

    Args:
        config: by default the one for the meta weights.
    """
    if config is not None:
        check_config(config)
    check_place(OUT.value, folder=True)
    people = requested()
    signer = tried_signer(SIGNING_KEY.value, SIGNING_CERTIFICATE.value) if PREVIEW.value else None
    meta = load_meta(META.value, only_generate=FEED_FORWARD.value)
    config = config or default_config(str(meta.description["name"]))
    check_config(config)
    jax.config.update("jax_default_matmul_precision", config.matmul_precision)
    settings = {"feed_forward": True} if FEED_FORWARD.value else config.to_dict()
    notes = {"request": request_digest(meta, settings), "settings": settings}
    saving = Saving(Path(OUT.value), COMPACT.value, PREVIEW.value, notes, signer)
    how = None if FEED_FORWARD.value else finetuning_of(config, meta)
    report, stopped = Report(saving.folder), False
    left = unfinished(people, saving, max_shots=MAX_SHOTS.value, report=report)
    done = len(people) - len(left)
    with StopRequest() as stop, tqdm(total=len(people), initial=done, unit="person", disable=None) as bar:
        made = enrol(
            meta, left, saving, how=how, max_shots=MAX_SHOTS.value, report=report,
            stop=lambda: bool(stop.signal), told=lambda text: bar.set_postfix_str(text),
        )  # fmt: skip
        try:
            for outcome in made:
                bar.update()
                if outcome.status == "failed":
                    bar.write(f"{outcome.name}: {outcome.reason}", file=sys.stderr)
        except Interrupted:
            stopped = True
    print(summary(report.outcomes, skipped=done, folder=saving.folder))
    if stopped:
        print(f"stopped by {stop.signal}; what is finished is saved, and the same command goes on")
        return STOPPED
    return int(any(outcome.status == "failed" for outcome in report.outcomes))


def requested() -> list[PersonRequest]:
    """Who the flags ask for."""
    if MANIFEST.value is not None:
        return read_manifest(Path(MANIFEST.value), unrecorded=CONSENT.value == NO_CONSENT)
    landmarks = None if LANDMARKS.value is None else Path(LANDMARKS.value)
    if NAME.value is not None:
        check_name(NAME.value)
    consent = None if CONSENT.value in (None, NO_CONSENT) else Path(CONSENT.value)
    person = one_person(Path(SHOTS.value), name=NAME.value, landmarks=landmarks, consent=consent)
    if CONSENT.value is None:
        raise ConsentError(
            f"whoever is shown in {SHOTS.value} must have agreed: give the record of it (python -m th_jax.consent make) with "
            "--consent FILE, or say --consent none, which the avatar and its pictures will say too"
        )
    if consent is not None:
        check_valid(read_consent(consent))  # its pictures are compared when they are read
    return [person]


def finetuning_of(config: ConfigDict, meta: MetaModel) -> Finetuning:
    """What fine-tuning is told."""
    stopping = StoppingSettings(**config.early_stopping) if config.early_stopping.from_shots else None
    arguments = finetune_arguments(settings_of(config), meta.perceptual)
    return Finetuning(**arguments, seed=config.seed, stopping=stopping)


def settings_of(config: ConfigDict) -> dict[str, Any]:
    """The config without what only this script has."""
    return {name: value for name, value in config.to_dict().items() if name not in OWN_SECTIONS}


def check_config(config: ConfigDict) -> None:
    """Refuse a config of something else, such as training, and values that fit no fine-tuning.

    Raises:
        ValueError: naming what is missing, unknown or out of range.
    """
    known = finetune_preset("paper")
    if missing := [name for name in (*known, "early_stopping") if name not in config]:
        raise ValueError(
            f"this is no config of fine-tuning: it has no {', '.join(missing)}; begin with configs/finetune.py"
        )
    check_setting_names("a config of fine-tuning", [*known, *OWN_SECTIONS], config)
    check_setting_names("the section early_stopping", StoppingSettings._fields, config.early_stopping)
    if config.early_stopping.from_shots:
        check_stopping(StoppingSettings(**config.early_stopping))
    check_settings(settings_of(config))


def default_config(meta: str) -> ConfigDict:
    """configs/finetune_META.py if there is one for meta weights of that name, else the paper's preset.

    Args:
        meta: the name that the weights have in themselves, wherever their file lies.
    """
    known = {path.stem for path in (Path(__file__).parent / "configs").glob("finetune_*.py")}
    name = f"finetune_{meta}" if f"finetune_{meta}" in known else "finetune"
    config: ConfigDict = importlib.import_module(f"configs.{name}").get_config()
    return config


if __name__ == "__main__":
    flags.mark_flags_as_required(["meta", "out"])
    app.run(main, flags_parser=parse)
