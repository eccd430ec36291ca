"""Generates docs/settings.md from the configs and docstrings: `python -m docs.site.settings > docs/settings.md`."""

import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from configs import defaults, finetune
from th_jax.avatars.early_stopping import StoppingSettings
from th_jax.data.episodes import Episodes
from th_jax.evaluation.people import load_heldout
from th_jax.losses import LossWeights
from th_jax.models.networks import Networks
from th_jax.training.finetune import make_finetune_step
from th_jax.training.meta_step import make_meta_train_step
from th_jax.training.optimizers import AdamSettings, AdversarySchedule, Optimizers

_HEADER = """\
# Settings

Every setting with its type, its default and its effect. This page is generated from the configs and the docstrings of what
they configure (`make docs`). A config in `configs/` is a copy of the defaults with its
differences; `--set KEY=VALUE` changes a setting of a run, as in `--set episodes.batch_size=32`. Unknown names are rejected
with the nearest known one.
"""

_META_OWNERS: Mapping[str, Any] = {
    "networks": Networks,
    "losses": LossWeights,
    "optimizers": Optimizers,
    "optimizers.synthesis": AdamSettings,
    "optimizers.discriminator": AdamSettings,
    "adversary": AdversarySchedule,
    "step": make_meta_train_step,
    "episodes": Episodes.__init__,
    "heldout": load_heldout,
}
_FINETUNE_OWNERS: Mapping[str, Any] = {
    "": make_finetune_step,
    "losses": LossWeights,
    "optimizers.synthesis": AdamSettings,
    "optimizers.discriminator": AdamSettings,
}
_PRESET = (
    "published set of loss weights: `iccv`, `arxiv_v1`, `embedded` (VGG16 alone), `heads`; other keys change one weight"
)
_META_TEXTS = {
    "name": "name of the run, stored in its weights; the fine-tuning preset is chosen by it",
    "seed": "seed of the initial weights, the order of episodes and all augmentation",
    "matmul_precision": "precision of float32 products: `high`, or `bfloat16`, faster on accelerators and newer CPUs",
    "losses.preset": _PRESET,
    "perceptual": "frozen networks of the content loss: `vgg16`, `vgg19`, `vggface`, `face_mobilenet`",
    "batch_rule": "how rates and decays follow the global batch size: `none`, `square_root` or `linear`",
    "data.folder": "folder of the data set, local or in a bucket; `bundled` for the bundled people",
    "data.split": "split to train on",
    "data.on_damage": "`skip` replaces damaged records by the next ones, `stop` ends the run",
    "reading.threads": "threads that decode episodes",
    "reading.workers": "processes that decode episodes, each with its own threads; 0 for none",
    "epochs": "passes over all videos, one episode each",
    "steps": "length of the run in steps; above 0 it replaces `epochs`",
    "heldout.folder": "folder of the held-out people; empty for that of the training data",
    "heldout.split": "split of the held-out people",
    "log_every": "steps between two lines of metrics.jsonl",
    "health_every": "steps between two measurements of the diagnostics; 0 for never",
    "evaluate_every": "steps between two evaluations on the held-out people",
    "evaluate_faces": "whether evaluations measure faces, which needs dlib",
    "checkpoint_every": "steps between two checkpoints",
    "keep_checkpoints": "number of checkpoints that are kept",
    "keep_hours": "hours between checkpoints that are kept in addition; 0 for none",
    "keep_best": "held-out measure by which the best checkpoint is kept in addition; empty for none",
    "guard.sigma": "standard deviations above the running mean of a loss or gradient at which a step is skipped; 0 for none",
    "guard.decay": "weight of the past in the running mean and variance",
    "guard.warm_up": "steps of a stage that only feed the statistics",
    "max_rollbacks": "returns to an earlier checkpoint after a series of skipped steps, before the run stops",
    "max_consecutive_nonfinite_steps": "skipped steps in a row after which the run returns to an earlier checkpoint",
    "start_from": "released weights, or the folder of a run, to start from with fresh moments; empty for fresh weights",
    "start_growing": "whether `start_from` may be weights for smaller frames",
    "expected_videos": "number of videos that `--dry-run` assumes where the data are missing",
}
_FINETUNE_TEXTS = {
    "name": "name of the config",
    "seed": "seed of the order of the shots",
    "matmul_precision": _META_TEXTS["matmul_precision"],
    "losses.preset": "as in meta-learning; empty selects the published set for the frozen networks of the weights",
    "epochs": "passes over the shots: 40 are 40, 40 and 160 steps for 1, 8 and 32 shots",
    "rounds.at_once": "people per device in a round",
    "rounds.vmap_width": "how many of them are computed side by side",
    "rounds.chunk_steps": "steps between two previews, checks of early stopping and messages",
    "early_stopping.from_shots": "minimum number of real shots for early stopping; 0 disables it",
    "early_stopping.held_out": "share of the shots that is held out of training; at least two shots are",
    "early_stopping.patience": "number of evaluations without improvement after which fine-tuning stops",
}


def main() -> None:
    """Print the page."""
    print(page(), end="")


def page() -> str:
    """Return the page as Markdown.

    Raises:
        LookupError: if a setting has no description.
    """
    meta, person = defaults.get_config().to_dict(), finetune.get_config().to_dict()
    assert set(person["early_stopping"]) == set(StoppingSettings._fields)
    meta["networks"] = _fields(Networks()) | meta["networks"]
    for config in (meta, person):
        for player, adam in config["optimizers"].items():
            if isinstance(adam, dict):
                config["optimizers"][player] = _fields(AdamSettings(**adam))
    lines = [_HEADER, "## Meta-learning", "", "`configs/defaults.py`, the paper's settings.", ""]
    lines += _table(meta, _META_OWNERS, _META_TEXTS)
    lines += ["", "## Fine-tuning", "", "`configs/finetune.py`, the paper's settings.", ""]
    lines += _table(person, _FINETUNE_OWNERS, _FINETUNE_TEXTS)
    lines += [
        "",
        "## Loss weights",
        "",
        "Keys of the section `losses` of both, with the values of the preset `iccv`.",
        "",
    ]
    lines += _table({"losses": _fields(LossWeights())}, _META_OWNERS, _META_TEXTS)
    return "\n".join(lines) + "\n"


def _fields(settings: Any) -> dict[str, Any]:
    return {entry.name: getattr(settings, entry.name) for entry in dataclasses.fields(settings)}


def _table(settings: Mapping[str, Any], owners: Mapping[str, Any], texts: Mapping[str, str]) -> list[str]:
    rows = ["| setting | type | default | effect |", "|---|---|---|---|"]
    for name, value in _leaves(settings):
        section, _, key = name.rpartition(".")
        described = texts.get(name) or (_entries(owners[section]).get(key) if section in owners else None)
        if not described:
            raise LookupError(f"the setting {name} has no description: add it to {__name__}")
        default = "`{}`" if not isinstance(value, dict) else "{}"
        shown = ", ".join(f"`{k}`: {v}" for k, v in value.items()) if isinstance(value, dict) else repr(value)
        text = described.replace("|", "\\|").rstrip(".")
        rows.append(f"| `{name}` | {type(value).__name__} | {default.format(shown)} | {text} |")
    return rows


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping) and name != "content":
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _entries(owner: Any) -> dict[str, str]:
    """Return the entries of a docstring's section "Attributes" or "Args" by name."""
    text = inspect.getdoc(owner) or ""
    section = re.search(r"^(?:Attributes|Args):\n((?:(?:    .*)?\n?)*)", text, re.M)
    found: dict[str, str] = {}
    for names, described in re.findall(
        r"^    ([\w, ]+): ((?:.*\n?)(?:        .*\n?)*)", section[1] if section else "", re.M
    ):
        for name in names.split(", "):
            # The page names neither private modules nor files of a checkout.
            plain = re.sub(r" \((?:`th_jax\.[^)]*`|docs/[^)]*)\)", "", " ".join(described.split()))
            found[name] = re.sub(r"\bdocs/([\w-]+)\.md\b", r"[\1](\1.md)", plain)
    return found


if __name__ == "__main__":
    main()
