"""Second stage of the bundled weights `heads64`: adversarial training on 2,000 rendered people at 64 px.

Command:   th-jax release runs/heads_content --mean-pooling --name heads_content --license CC0-1.0 \\
               --out runs/heads_content.safetensors
           python train.py --config configs/heads.py --workdir runs/heads_64
Hardware:  2 cores of an x86-64 server, no accelerator
Time:      about two hours for 2,000 steps while sharing the machine with other work; the weights are those of step 2,000
Result:    see docs/learning.md
"""

from ml_collections import ConfigDict

from configs import heads_content


def get_config() -> ConfigDict:
    """Continue from the content stage, with mean instead of sum pooling: D alone, a ramp, then both players."""
    config = heads_content.get_config()
    config.name = "heads"
    config.start_from = "runs/heads_content.safetensors"
    config.networks.update({"pool": "mean", "projection_spectral_norm": False})
    config.losses.pixel = 200.0
    config.adversary.update({"content_steps": 0, "discriminator_steps": 150, "ramp_steps": 300, "weight": 4.0})
    config.steps = 6000
    return config
