"""The paper's feed-forward variant (FF) on VoxCeleb2: 150 epochs without the matching loss, never fine-tuned.

Command:   python train.py --config configs/voxceleb2_ff.py --workdir gs://BUCKET/voxceleb2_ff --config.data.folder=DATA
Hardware:  intended for 8 GPUs or a TPU slice (docs/training.md)
Time:      not yet run; twice that of configs/voxceleb2.py
Result:    not yet run
"""

from ml_collections import ConfigDict

from configs import voxceleb2


def get_config() -> ConfigDict:
    """Return the settings of `configs/voxceleb2.py` with twice the epochs and no matching loss."""
    config = voxceleb2.get_config()
    config.name = "voxceleb2_ff"
    config.losses.matching = 0.0
    config.epochs = 150
    return config
