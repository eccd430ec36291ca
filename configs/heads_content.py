"""First stage of the bundled weights `heads64`: content and pixel losses only, on 2,000 rendered people at 64 px.

Command:   make heads && python train.py --config configs/heads_content.py --workdir runs/heads_content
Hardware:  2 cores of an x86-64 server, no accelerator
Time:      44 minutes for 1,500 steps
Result:    see docs/learning.md
"""

from ml_collections import ConfigDict

from configs import defaults


def get_config() -> ConfigDict:
    """Return the settings of the stage without adversary; `configs/heads.py` continues from it."""
    config = defaults.get_config()
    config.name = "heads_content"
    config.networks.image_size = 64
    config.networks.base_width = 32
    config.losses.preset = "heads"
    config.perceptual = ("vgg16",)
    adam = {"learning_rate": 4e-4, "warmup": 20, "beta1": 0.0, "beta2": 0.99, "eps": 1e-5}
    config.optimizers.synthesis = ConfigDict({"halve_at": (), **adam})
    config.optimizers.discriminator = ConfigDict(adam)
    config.optimizers.averaging = 0.995
    config.data.folder = "runs/heads"
    config.episodes.update({"batch_size": 8, "sources": 4, "flip": True, "drop_pupils": 0.15, "landmarks": "true"})
    config.adversary.content_steps = config.steps = 1500
    config.heldout.landmarks = "true"
    config.log_every = 20
    config.health_every = 100
    config.evaluate_every = 250
    config.checkpoint_every = 100
    config.expected_videos = 2000
    return config
