#!/bin/bash
# One meta-training over four nodes. docs/cluster.md explains it.
#
#   sbatch examples/cluster/slurm-train.sh
#
#SBATCH --job-name=th-jax-train
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=128G
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
#SBATCH --output=train-%j.log

set -u
SHARED=${SHARED:-/shared}

# One process ends: Slurm ends the others, whose run is saved up to its newest checkpoint.
srun --kill-on-bad-exit=1 python train.py \
    --distributed \
    --config configs/voxceleb2.py \
    --set data.folder="$SHARED/voxceleb2" \
    --workdir "$SHARED/runs/voxceleb2"
code=$?

if [ "$code" -ne 0 ] && [ "$code" -ne 2 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 100 ]; then
    # 75: stopped by the time limit; otherwise a lost node. The same command continues.
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
