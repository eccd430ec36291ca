"""The smallest run with all stages: content alone, reset of W, both players; saved, evaluated and logged at every turn."""

from ml_collections import ConfigDict

from configs import heads_content


def get_config() -> ConfigDict:
    """Eight steps, four saves, two evaluations."""
    config = heads_content.get_config()
    config.name = "killed"
    config.data.folder = "bundled"
    config.networks.update({"image_size": 16, "base_width": 4})
    config.episodes.update({"batch_size": 2, "sources": 2})
    config.adversary.update({"content_steps": 2, "discriminator_steps": 0, "ramp_steps": 2})
    config.losses.update({"content": {}})
    config.perceptual = ()
    config.heldout.update({"people": 2, "targets": 1})
    config.evaluate_faces = False
    config.steps = 8
    config.update({"log_every": 1, "health_every": 0, "evaluate_every": 4, "checkpoint_every": 2})
    return config
