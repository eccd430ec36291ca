"""A new person by the paper's preset: 40 epochs of the shots at meta-learning's rates (paper, section 4).

Command:   python finetune.py --meta RUN --shots PHOTOS --out AVATARS
Hardware:  any; a GPU for the paper's networks at 256 px
Time:      see docs/fine-tuning.md
Result:    not yet run with weights of paper scale
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The settings of `th_jax.make_finetune`, and of what finetune.py does between its chunks."""
    return ConfigDict(
        {
            "name": "finetune",
            "seed": 0,
            # Of products of float32 numbers: TPUs and GPUs would round them to fewer bits by default.
            "matmul_precision": "high",
            # th_jax.losses.loss_preset; "" is the published set for the frozen networks of the meta weights
            "losses": {"preset": ""},
            # Factor of the score and of feature matching: the one that meta-learning ended with.
            "adversary": 1.0,
            # th_jax.training.optimizers.Optimizers
            "optimizers": {
                "synthesis": {"learning_rate": 5e-5, "beta1": 0.0, "beta2": 0.999, "eps": 1e-5},
                "discriminator": {"learning_rate": 2e-4, "beta1": 0.0, "beta2": 0.999, "eps": 1e-5},
            },
            # 40, 40 and 160 steps for 1, 8 and 32 shots
            "epochs": 40,
            # th_jax.enrolment.stopping.StoppingSettings; from_shots=0 for never, as in evaluation protocols
            "early_stopping": {"from_shots": 8, "held_out": 0.25, "patience": 3},
            # th_jax.training.finetune_many
            "rounds": {"at_once": 1, "width": 1, "chunk_steps": 10},
        }
    )
