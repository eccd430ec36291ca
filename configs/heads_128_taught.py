"""Rendered people at 128 px, from weights whose E a face network taught: content only, at a low rate for G.

Command:   th-jax prepare render-heads --out runs/heads_photo --people 2000 --first-seed 40000 --frames 16 --style photo
           th-jax prepare convert-weights face_mobilenet FILE
           th-jax teach --meta heads --data runs/heads_photo --out runs/taught.safetensors
           python train.py --config configs/heads_128_taught.py --workdir runs/heads_128_taught
Hardware:  2 cores of an x86-64 server with bfloat16 products (AMX or AVX512-BF16), no accelerator
Result:    see docs/learning.md
"""

from ml_collections import ConfigDict

from configs import heads_128


def get_config() -> ConfigDict:
    """Continue `configs/heads_128.py`'s content stage, with E and P at eight times G's rate."""
    config = heads_128.get_config()
    config.name = "heads_128_taught"
    config.start_from = "runs/taught.safetensors"
    config.start_growing = False
    config.data.folder = "runs/heads_photo"
    config.optimizers.synthesis.update({"learning_rate": 2.5e-5, "halve_at": ()})
    config.optimizers.update({"embedding_rate": 8.0, "averaging": 0.998})
    config.adversary.content_steps = config.steps
    return config
