"""Meta-learning on 2,000 rendered people at 64 px on a laptop: where the bundled weights come from.

Command:   make heads && python train.py --config configs/heads.py --workdir runs/heads_64
Hardware:  2 cores of an x86-64 server, no accelerator
Time:      see docs/learning.md
Result:    see docs/learning.md
"""

from ml_collections import ConfigDict

from configs import defaults


def get_config() -> ConfigDict:
    """Content and pixels first, then the adversary."""
    config = defaults.get_config()
    config.name = "heads"
    config.networks.image_size = 64
    config.networks.base_width = 32
    config.losses.preset = "heads"
    config.perceptual = ("vgg16",)
    adam = {"beta1": 0.0, "beta2": 0.99, "eps": 1e-5}
    config.optimizers.synthesis = ConfigDict({"learning_rate": 4e-4, "warmup": 20, "halve_at": (), **adam})
    config.optimizers.discriminator = ConfigDict({"learning_rate": 4e-4, "warmup": 20, **adam})
    config.optimizers.averaging = 0.995
    config.adversary.update({"content_steps": 1500, "discriminator_steps": 100, "ramp_steps": 400, "weight": 1.0})
    config.data.folder = "runs/heads"
    config.episodes.update({"batch_size": 8, "sources": 4, "flip": True, "drop_pupils": 0.15, "landmarks": "true"})
    config.steps = 4000
    config.heldout.landmarks = "true"
    config.log_every = 20
    config.health_every = 100
    config.evaluate_every = 250
    config.checkpoint_every = 100
    config.expected_videos = 2000
    return config
