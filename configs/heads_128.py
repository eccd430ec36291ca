"""Rendered people at 128 px, grown from the bundled `heads64`: content only, discriminator only, then both players.

Command:   make heads && th-jax prepare convert-weights face_mobilenet FILE
           python train.py --config configs/heads_128.py --workdir runs/heads_128
Hardware:  2 cores of an x86-64 server with bfloat16 products (AMX or AVX512-BF16), no accelerator
Result:    see docs/learning.md
"""

from ml_collections import ConfigDict

from configs import heads


def get_config() -> ConfigDict:
    """Keep E's input at 64 px, so that its embeddings, P and the video table stay valid while G and D adapt."""
    config = heads.get_config()
    config.name = "heads_128"
    config.start_from = "heads64"
    config.start_growing = True
    config.matmul_precision = "bfloat16"
    config.networks.update({"image_size": 128, "embedder_size": 64, "landmark_width": 3.0})
    config.episodes.update({"crop_scale": 0.2, "crop_shift": 0.1, "color_jitter": 0.1, "other_shape": 0.5})
    config.losses.update({"content_size": 64, "face_content": 0.5, "face_size": 64, "identity": 12.0, "eyes": 40.0})
    # At the first rate, held-out identity stands still from about step 5,000 on (docs/learning.md).
    config.optimizers.synthesis.halve_at = (4000, 5000)
    config.optimizers.averaging = 0.997
    config.adversary.update({"content_steps": 4000, "discriminator_steps": 150, "ramp_steps": 300, "weight": 4.0})
    config.adversary.update({"fall_steps": 3000, "final_weight": 2.0})
    config.steps = 20_000
    config.evaluate_every = 500
    config.checkpoint_every = 100
    return config
