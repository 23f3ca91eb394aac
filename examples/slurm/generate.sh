#!/bin/bash
# Responses to a test split on all GPUs of one machine. Submit it again after an interruption: finished batches stay.
#   sbatch examples/slurm/generate.sh
#SBATCH --job-name=pal-generate
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=02:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=runs/slurm-%x-%j.log
set -euo pipefail
export HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}"

srun accelerate launch --config_file configs/accelerate/ddp.yaml --num_processes "$SLURM_GPUS_ON_NODE" \
    -m pal generate --config pal model=runs/pal input=runs/pesconv split=test output=runs/pal_test.jsonl

# Scores take one process.
srun pal eval --config pal model=runs/pal input=runs/pesconv split=test \
    predictions=runs/pal_test.jsonl output=runs/pal_scores.json
