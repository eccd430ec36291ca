"""The paper's comparison with other systems: VoxCeleb1 at 256 px, the fine-tuned variant (FT).

Command:   python train.py --config configs/voxceleb1.py --workdir runs/voxceleb1 --config.data.folder=DATA
Hardware:  intended for 1 to 8 GPUs (docs/training.md)
Time:      not yet run
Result:    not yet run
"""

from ml_collections import ConfigDict

from configs import defaults


def get_config() -> ConfigDict:
    """Return the paper's settings for the smaller data set; batch 8 in bfloat16."""
    config = defaults.get_config()
    config.name = "voxceleb1"
    config.networks.compute_dtype = "bfloat16"
    config.data.folder = "data/voxceleb1"
    config.heldout.split = "test"
    config.reading.update({"threads": 8, "workers": 2})
    config.expected_videos = 21_819
    return config
