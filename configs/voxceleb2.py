"""The paper's experiment: VoxCeleb2 at 256 px, the fine-tuned variant (FT), 75 epochs with the matching loss.

Command:   python train.py --config configs/voxceleb2.py --workdir gs://BUCKET/voxceleb2 --config.data.folder=DATA
Hardware:  intended for 8 GPUs or a TPU slice (docs/training.md)
Time:      not yet run; docs/training.md estimates it from counted FLOP
Result:    not yet run
"""

from ml_collections import ConfigDict

from configs import defaults


def get_config() -> ConfigDict:
    """Return the paper's settings; batch 32 in bfloat16 with the square-root rule."""
    config = defaults.get_config()
    config.name = "voxceleb2"
    config.networks.compute_dtype = "bfloat16"
    config.data.folder = "data/voxceleb2"
    config.heldout.split = "test"
    config.episodes.batch_size = 32
    config.reading.update({"threads": 16, "workers": 4})
    return config
