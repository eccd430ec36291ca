#!/bin/bash
# Eight shards of a people file as an array. docs/cluster.md explains it.
#
#   sbatch examples/cluster/slurm.sh
#   sbatch --array=2,5 examples/cluster/slurm.sh     # only these tasks again
#
#SBATCH --job-name=th-jax-finetune
#SBATCH --array=0-7
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --gpus=1
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
#SBATCH --output=finetune-%A_%a.log

set -u
SHARDS=8 # tasks of the whole array, even if only some of them run again
SHARED=${SHARED:-/shared}

srun th-jax finetune \
    --meta "$SHARED/meta.safetensors" \
    --people-file "$SHARED/people/people.csv" \
    --out "$SHARED/avatars" \
    --shard-count "$SHARDS"
code=$?

if [ "$code" -eq 75 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 10 ]; then
    # interrupted, for example by the time limit: the same command continues
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
fi
exit "$code"
