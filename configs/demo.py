"""Meta-learning from scratch on the bundled heads: the held-out loss falls within ten minutes on two cores.

Command:   python train.py --config configs/demo.py --workdir runs/demo
Hardware:  2 cores of an x86-64 server, no accelerator
Time:      10 min 50 s for 400 steps while the machine was shared with other work
Result:    held-out L1 in the landmark box 0.137, 0.123, 0.114, 0.108 after each hundred steps (docs/learning.md)
"""

from ml_collections import ConfigDict

from configs import heads_content


def get_config() -> ConfigDict:
    """Return the settings of `configs/heads_content.py`, content and pixel losses only, for the 192 bundled people."""
    config = heads_content.get_config()
    config.name = "demo"
    config.data.folder = "bundled"
    config.adversary.content_steps = config.steps = 400
    config.log_every = 10
    config.health_every = 100
    config.evaluate_every = 100
    config.checkpoint_every = 100
    config.expected_videos = 192
    return config
