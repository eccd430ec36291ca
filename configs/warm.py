"""A few dozen steps of both players from the bundled weights `heads64` on the bundled heads: `make warm`.

Command:   python train.py --config configs/warm.py --workdir out/warm
Hardware:  2 cores of an x86-64 server, no accelerator
Time:      not yet measured on an idle machine; intended to stay within three minutes
Result:    not yet run with the weights of step 2,000
"""

from ml_collections import ConfigDict

from configs import heads


def get_config() -> ConfigDict:
    """Return settings with fresh moments, hence warm-up, and the adversary at full weight from the first step."""
    config = heads.get_config()
    config.name = "warm"
    config.data.folder = "bundled"
    config.start_from = "heads64"
    config.adversary.update({"discriminator_steps": 0, "ramp_steps": 0})
    config.optimizers.synthesis.learning_rate = 1e-4
    config.optimizers.discriminator.learning_rate = 1e-4
    config.episodes.batch_size = 4
    config.heldout.update({"people": 8, "targets": 2})
    config.steps = 30
    config.log_every = 5
    config.health_every = 0
    config.evaluate_every = 1000
    config.checkpoint_every = 1000
    config.expected_videos = 192
    return config
