"""The entry point: `th-jax COMMAND`.

A command is a module with `parser()` and `run(options)`, which returns an exit code; it is imported only when it is called. An
error is one sentence, `th-jax COMMAND: what is wrong; what to do`; docs/cli.md lists the exit codes.
"""

import argparse
import contextlib
import difflib
import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from th_jax.cli.options import DONE, FAILED, INTERRUPTED, USAGE, UsageError, with_hyphens, with_new_names
from th_jax.console import forgiving_output
from th_jax.storage.setting_names import RENAMED_WEIGHTS
from th_jax.text import escape_control_chars
from th_jax.version import __version__


class Command(NamedTuple):
    """Module and summary of a command."""

    module: str
    summary: str
    computes: bool = False
    """Whether it compiles programs, which are cached on disk."""


COMMANDS = {
    "demo": Command("th_jax.cli.demo", "fine-tune two people and drive them, from bundled data alone", True),
    "finetune": Command("th_jax.cli.finetune", "make an avatar from 1 to 32 images of a person", True),
    "animate": Command("th_jax.cli.animate", "drive an avatar with a video, landmarks or a camera", True),
    "faces": Command("th_jax.cli.faces", "number the people in a photo or video, for --face"),
    "landmarks": Command("th_jax.cli.landmarks", "place the landmarks of one photo by hand on a local page", True),
    "studio": Command("th_jax.cli.studio", "open a local page: from photos to a talking avatar", True),
    "track": Command("th_jax.cli.track", "write the motion of a face in a video as ARKit coefficients", True),
    "export": Command("th_jax.cli.export", "write an avatar's generator as StableHLO or ONNX", True),
    "compress": Command("th_jax.cli.compress", "store an avatar in a tenth of its size", True),
    "evaluate": Command("th_jax.cli.evaluate", "measure weights on held-out people, by a protocol", True),
    "study": Command("th_jax.cli.study", "build, serve and report a user study"),
    "verify": Command("th_jax.cli.verify", "report whether images and videos are marked as generated"),
    "consent": Command("th_jax.cli.consent", "make, check and revoke consent records"),
    "release": Command("th_jax.cli.release", "write a run's averaged weights as one file", True),
    "teach": Command("th_jax.cli.teach", "distill a face network's identity features into the embedder", True),
    "curves": Command("th_jax.cli.curves", "plot the metrics of training runs"),
    "summary": Command("th_jax.cli.summary", "list the layers of the networks, their parameters and FLOP"),
    "kernels": Command("th_jax.cli.kernels", "compile fast convolutions for this machine's processor"),
    "doctor": Command("th_jax.cli.doctor", "check the installation, devices, weights and folders", True),
    "prepare": Command("th_jax.cli.prepare", "prepare data sets (from a checkout)"),
    "train": Command("th_jax.cli.train", "meta-train (from a checkout)", True),
}

FIRST_STEPS = """\
th-jax makes a talking head from a few images of a person. To begin:

  th-jax doctor                     check this machine
  th-jax demo --out out             two avatars from bundled data, no input needed
  th-jax consent make --subject "Ada" --basis self --shots photos/ada --out ada.consent.json
  th-jax finetune --meta heads --shots photos/ada --consent ada.consent.json --out avatars
  th-jax animate --avatar avatars/ada.safetensors --driver speech.mp4 --out ada.mp4

th-jax --help lists all commands, th-jax COMMAND --help the options of one."""


def load(name: str) -> ModuleType:
    """Import the module of a command."""
    return importlib.import_module(COMMANDS[name].module)


@forgiving_output()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
        arguments: name of the command and its options; default: the process's arguments.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given:
        print(FIRST_STEPS)
        return DONE
    name, *rest = given
    if name in ("-h", "--help", "help"):
        width = max(map(len, COMMANDS))
        print("usage: th-jax COMMAND [options]\n\ncommands:")
        print(*(f"  {known:<{width}}  {command.summary}" for known, command in COMMANDS.items()), sep="\n")
        return DONE
    if name == "--version":
        print(f"th_jax {__version__}")
        return DONE
    if name not in COMMANDS:
        like = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {like[0]}?" if like else "th-jax --help lists the commands"
        print(f"th-jax: unknown command {name!r}; {hint}", file=sys.stderr)
        return USAGE
    try:
        return _run(name, rest)
    except SystemExit as ended:  # argparse, after --help or a wrong option
        return ended.code if isinstance(ended.code, int) else USAGE if ended.code else DONE
    except KeyboardInterrupt:
        print(f"th-jax {name}: interrupted; run the same command again", file=sys.stderr)
        return INTERRUPTED


def _landmark_model(options: argparse.Namespace) -> contextlib.AbstractContextManager[None]:
    """Return a context with the landmark model of the options (`th_jax.cli.options.add_landmark_model`)."""
    if getattr(options, "landmark_model", None) is None:
        return contextlib.nullcontext()
    from th_jax.faces.detect import using_landmark_model

    return using_landmark_model(options.landmark_model)


def _hint(name: str, renamed: Mapping[str, str]) -> None:
    for before, now in renamed.items():
        print(f"th-jax {name}: {before} is now {now}; the old name ends with the next release", file=sys.stderr)


def _run(name: str, rest: list[str]) -> int:
    from th_jax.cli.compile_cache import use_compile_cache
    from th_jax.cli.kernels import use_kernels
    from th_jax.signals import interrupting, is_out_of_memory

    command, options, called = load(name), None, name
    is_delegated = hasattr(command, "delegate")  # to a program of the checkout with its own options
    try:
        if is_delegated:
            called = " ".join([name, *rest[:1]])
            return int(command.delegate(rest))
        rest, old = with_hyphens(rest)
        if old:
            print(
                f"th-jax {name}: write {', '.join(old)} with hyphens; the next release does not accept underscores",
                file=sys.stderr,
            )
        rest, renamed = with_new_names(name, rest)
        _hint(name, renamed)
        options = command.parse(rest) if hasattr(command, "parse") else command.parser().parse_args(rest)
        weights = str(getattr(options, "meta", None))
        if weights in RENAMED_WEIGHTS and not Path(weights).exists():
            _hint(name, {weights: RENAMED_WEIGHTS[weights]})
        if COMMANDS[name].computes:
            use_compile_cache()
            use_kernels()
        with interrupting(), _landmark_model(options):
            return int(command.run(options))
    except UsageError as error:
        print(f"th-jax {name}: {error}; th-jax {name} --help lists the options", file=sys.stderr)
        return USAGE
    except (ValueError, TypeError, OSError, ImportError) as error:
        text = str(error)
        if isinstance(error, OSError) and error.filename and error.strerror:
            text = f"cannot use {error.filename}: {error.strerror}; check the path, its permissions and the free space"
        return _failed(called, text)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            if is_delegated and type(error) is RuntimeError:  # such as a worker that was killed
                return _failed(called, str(error))
            raise
        advice = command.less_memory(options) if hasattr(command, "less_memory") else "close other programs"
        return _failed(called, f"out of memory; {advice}")


def _failed(called: str, text: str) -> int:
    """Print an error without control characters, which names of files may contain, and return the exit code."""
    lines = (escape_control_chars(line) for line in text.split("\n"))
    print(f"th-jax {called}: " + "\n".join(lines), file=sys.stderr)
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
