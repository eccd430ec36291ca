"""Fine-tuning to a new person with the bundled weights `heads` and `heads64`: small networks, at rates that adapt quickly.

Command:   python finetune.py --config configs/finetune_heads.py --meta heads --shots PHOTOS --consent CONSENT --out AVATARS
Hardware:  2 cores of an x86-64 server, no accelerator
Time:      see docs/fine-tuning.md
Result:    see docs/fine-tuning.md
"""

from ml_collections import ConfigDict

from configs import finetune
from th_jax.training.presets import finetune_preset


def get_config() -> ConfigDict:
    """Return the fine-tuning settings with the losses and Adam settings of meta-learning (configs/heads.py)."""
    config = finetune.get_config()
    config.update({"name": "finetune_heads"} | finetune_preset("heads"))
    return config
