#!/bin/bash
# One stage on one node of a SLURM cluster, from the project's folder:
#   sbatch --gpus-per-node=1 deploy/slurm.sh pretrain@speech
# The folder is on a file system that all nodes see. A job that is stopped or preempted saves at the next update, is put
# back into the queue, and goes on from there. How many processes train is `processes` in params.yaml.
#SBATCH --job-name=d2v
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=state/slurm-%j.log
#SBATCH --signal=B:TERM@120

set -euo pipefail

stage=${1:?"name a stage of dvc.yaml, such as pretrain@speech"}
cd "${SLURM_SUBMIT_DIR:-.}"
export PATH="$PWD/.venv/bin:$PATH" PYTHONPATH="$PWD" DVC_NO_ANALYTICS=1
stopped=0

# shellcheck disable=SC2317,SC2329  # the trap calls it
stop() {
    stopped=1
    pkill -TERM --parent "$training" || true
    kill -TERM "$training" 2>/dev/null || true
}

trap stop TERM
dvc --wait-for-lock repro "$stage" &
training=$!
code=0
wait "$training" || code=$?
if ((stopped)); then
    wait || true
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
exit "$code"
