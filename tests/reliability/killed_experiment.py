"""The smallest run with all stages: content alone, reset of W, both players; saved, evaluated and logged at every turn."""

from ml_collections import ConfigDict

from tests import tiny_experiment


def get_config() -> ConfigDict:
    """Eight steps, four saves, two evaluations."""
    config = tiny_experiment.get_config()
    config.name = "killed"
    config.losses.update({"content": {}})
    config.perceptual = ()
    config.steps = 8
    config.update({"health_every": 0, "evaluate_every": 4, "max_consecutive_nonfinite_steps": 20})
    return config
