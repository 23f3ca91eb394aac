#!/bin/bash
# Training on all GPUs of one machine. Submit it again after an interruption: it continues.
#   sbatch examples/slurm/train_one_node.sh
#   sbatch --export=ALL,ACCELERATE_CONFIG=configs/accelerate/fsdp2.yaml examples/slurm/train_one_node.sh
#SBATCH --job-name=pal-train
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=runs/slurm-%x-%j.log
set -euo pipefail
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 # so that workers that start again do not read addresses of the dead
export HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}" # fetch models and corpora beforehand, where nodes have no network

# Two restarts on this machine, of all workers where one fails; each continues from the last checkpoint.
srun accelerate launch --config_file "${ACCELERATE_CONFIG:-configs/accelerate/ddp.yaml}" \
    --num_processes "$SLURM_GPUS_ON_NODE" --max_restarts 2 \
    -m pal train --config pal data.train=runs/pesconv output_dir=runs/pal \
    global_batch_size=16 training.bf16=true
