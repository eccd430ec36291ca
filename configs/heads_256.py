"""Rendered people at 256 px, grown from 128 px weights by an outer block at each end of G and D, which begins without effect.

Command:   th-jax prepare render-heads --out runs/heads_256_data --size 256 --people 2000 --style photo
           python train.py --config configs/heads_256.py --workdir runs/heads_256
Hardware:  an accelerator
Result:    not yet run
"""

from ml_collections import ConfigDict

from configs import heads_128


def get_config() -> ConfigDict:
    """Keep the networks of configs/heads_128.py as the core, at the same cost, and E's input at 64 px."""
    config = heads_128.get_config()
    config.name = "heads_256"
    config.start_from = "runs/heads_128"
    config.networks.update({"image_size": 256, "base_width": 16, "max_width": 256})
    config.losses.update({"content_size": 128, "face_size": 128})
    config.data.folder = "runs/heads_256_data"
    return config
