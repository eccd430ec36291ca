"""All settings of meta-learning with the paper's values; every experiment is a copy of these with changes."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Return the paper's settings (docs/paper-map.md); each section's keys are constructor arguments."""
    return ConfigDict(
        {
            "name": "paper",
            "seed": 0,
            # Precision of float32 matrix products: TPUs and GPUs round them to fewer bits by default.
            "matmul_precision": "high",
            # E, P, G, D: th_jax.Networks
            "networks": {
                "image_size": 256,
                "base_width": 64,
                "pool": "sum",
                "pool_order": "sum_relu",
                "compute_dtype": "float32",
                "projection_spectral_norm": True,
            },
            # th_jax.losses.loss_preset: a published set, and changes to it
            "losses": {"preset": "iccv"},
            "perceptual": ("vgg19", "vggface"),
            # th_jax.training.optimizers.Optimizers
            "optimizers": {
                "synthesis": {"learning_rate": 5e-5, "beta1": 0.0, "beta2": 0.999, "eps": 1e-5},
                "discriminator": {"learning_rate": 2e-4, "beta1": 0.0, "beta2": 0.999, "eps": 1e-5},
                "averaging": 0.999,
                "embedding_rate": 1.0,
            },
            "batch_rule": "square_root",
            # th_jax.training.optimizers.AdversarySchedule: in the paper both players train from the first step
            "adversary": {
                "content_steps": 0,
                "discriminator_steps": 0,
                "ramp_steps": 0,
                "weight": 1.0,
                "fall_steps": 0,
                "final_weight": 1.0,
            },
            # th_jax.training.meta_step.make_meta_train_step
            "step": {
                "discriminator_updates": 2,
                "discriminator_episodes": "same",
                "grad_accumulation_steps": 1,
                "remat_perceptual": False,
            },
            "data": {"folder": "", "split": "train", "on_damage": "skip"},
            # th_jax.data.Episodes
            "episodes": {
                "batch_size": 8,
                "sources": 8,
                "flip": False,
                "color_jitter": 0.0,
                "crop_scale": 0.0,
                "crop_shift": 0.0,
                "drop_pupils": 0.0,
                "other_shape": 0.0,
                "landmarks": "detected",
                "short_videos": "leave_out",
            },
            "reading": {"threads": 2, "workers": 0},
            # An epoch is one episode per video; `steps` above 0 overrides `epochs`. One of them must be above 0.
            "epochs": 75,
            "steps": 0,
            # th_jax.evaluation.people.load_heldout; folder "" means the folder of the training data
            "heldout": {
                "folder": "",
                "split": "heldout",
                "people": 24,
                "sources": 8,
                "targets": 4,
                "landmarks": "detected",
            },
            "log_every": 50,
            "health_every": 500,  # 0 for never
            "evaluate_every": 5000,
            "evaluate_faces": True,
            "checkpoint_every": 2500,
            "keep_checkpoints": 3,
            # In addition, one checkpoint of every so many hours (0 for none), and the one with the lowest held-out number
            # among those of evaluated steps ("" for none; "-heldout/ssim" keeps the highest).
            "keep_hours": 0.0,
            "keep_best": "heldout/l1/box",
            # th_jax.training.guard.GuardSettings
            "guard": {"sigma": 6.0, "decay": 0.99, "warm_up": 100},
            # Skipped steps in a row, not finite or outliers, after which the run returns to an earlier checkpoint.
            "max_consecutive_nonfinite_steps": 20,
            "max_rollbacks": 3,
            # Released weights or a run's workdir to start from, with fresh moments; "" for fresh weights.
            "start_from": "",
            # Whether start_from may be weights for smaller frames (th_jax.models.grow).
            "start_growing": False,
            # Number of videos that --dry-run assumes if the data are missing.
            "expected_videos": 145_569,
        }
    )
