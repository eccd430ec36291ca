#!/bin/bash
# One meta-training on all hosts of a TPU pod slice, from your own machine. docs/cluster.md explains it.
#
#   NAME=my-slice ZONE=us-east5-a BUCKET=my-bucket bash examples/cluster/tpu-pod.sh
#
# The slice has a checkout in ~/th_jax with its environment in .venv (extra gcs).

set -u
: "${NAME:?name of the slice}" "${ZONE:?its zone}" "${BUCKET:?bucket with the data set}"

for attempt in $(seq 100); do
    gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all --command="cd th_jax && .venv/bin/python train.py \
        --distributed \
        --config configs/voxceleb2.py \
        --set data.folder=gs://$BUCKET/voxceleb2 \
        --workdir gs://$BUCKET/runs/voxceleb2"
    code=$?
    if [ "$code" -eq 0 ] || [ "$code" -eq 2 ]; then
        exit "$code" # finished, or wrong options
    fi
    echo "attempt $attempt ended with $code; the run continues from its newest checkpoint"
    sleep "${PAUSE:-60}"
done
exit "$code"
