"""Fine-tuning to a new person with the paper's preset: 40 epochs over the shots at meta-learning's rates (section 4).

Command:   python finetune.py --config configs/finetune.py --meta RUN --shots PHOTOS --consent CONSENT --out AVATARS
Hardware:  any; a GPU for the paper's networks at 256 px
Time:      see docs/fine-tuning.md
Result:    not yet run with weights of paper scale
"""

from ml_collections import ConfigDict

from th_jax.training.presets import finetune_preset


def get_config() -> ConfigDict:
    """Return the settings of `th_jax.make_finetune`, and of finetune.py's work between its chunks."""
    return ConfigDict(
        finetune_preset("paper")
        | {
            "name": "finetune",
            # th_jax.avatars.early_stopping.StoppingSettings; from_shots=0 disables it, as in evaluation protocols
            "early_stopping": {"from_shots": 8, "held_out": 0.25, "patience": 3},
        }
    )
