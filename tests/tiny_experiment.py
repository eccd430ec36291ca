"""A few steps of meta-learning on the bundled heads with the smallest networks, through all stages of a run."""

from ml_collections import ConfigDict

from configs import heads_content


def get_config() -> ConfigDict:
    """Seconds a run once its programs are compiled."""
    config = heads_content.get_config()
    config.name = "tiny"
    config.data.folder = "bundled"
    config.networks.update({"image_size": 16, "base_width": 4})
    config.episodes.update({"batch_size": 2, "sources": 2})
    config.adversary.update({"content_steps": 2, "discriminator_steps": 0, "ramp_steps": 2})
    config.heldout.update({"people": 2, "targets": 1})
    config.evaluate_faces = False
    config.steps = 6
    config.update(
        {
            "log_every": 1,
            "health_every": 4,
            "evaluate_every": 3,
            "checkpoint_every": 2,
            "max_consecutive_nonfinite_steps": 3,
        }
    )
    return config
