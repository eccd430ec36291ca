"""Meta-learning from scratch on the bundled heads: a held-out loss that falls within ten minutes on two cores.

Command:   python train.py --config configs/demo.py --workdir runs/demo
Hardware:  2 cores of an x86-64 server, no accelerator
Time:      see docs/learning.md
Result:    see docs/learning.md
"""

from ml_collections import ConfigDict

from configs import heads_content


def get_config() -> ConfigDict:
    """The settings of `configs/heads_content.py`, content and pixels alone, on the 192 bundled people."""
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
