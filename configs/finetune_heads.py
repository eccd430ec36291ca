"""A new person with the bundled weights `heads`: small networks at 64 px, at rates that move them within a minute.

Command:   python finetune.py --meta heads --shots PHOTOS --out AVATARS
Hardware:  2 cores of an x86-64 server, no accelerator
Time:      see docs/fine-tuning.md
Result:    see docs/fine-tuning.md
"""

from ml_collections import ConfigDict

from configs import finetune
from th_jax.training.finetune_presets import finetune_preset


def get_config() -> ConfigDict:
    """Losses and Adam as meta-learning had them (configs/heads.py)."""
    config = finetune.get_config()
    config.update({"name": "finetune_heads"} | finetune_preset("heads"))
    return config
