"""A new person with the bundled weights `heads`: small networks at 64 px, at rates that move them within a minute.

Command:   python finetune.py --meta heads --shots PHOTOS --out AVATARS
Hardware:  2 cores of an x86-64 server, no accelerator
Time:      see docs/fine-tuning.md
Result:    see docs/fine-tuning.md
"""

from ml_collections import ConfigDict

from configs import finetune


def get_config() -> ConfigDict:
    """Losses and Adam as meta-learning had them (configs/heads.py)."""
    config = finetune.get_config()
    config.name = "finetune_heads"
    config.losses.update({"preset": "heads", "pixel": 200.0})
    config.adversary = 4.0
    config.optimizers.synthesis.update({"learning_rate": 2e-4, "beta2": 0.99})
    config.optimizers.discriminator.update({"learning_rate": 2e-4, "beta2": 0.99})
    return config
