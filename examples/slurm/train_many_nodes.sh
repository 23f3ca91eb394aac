#!/bin/bash
# Training over several machines. runs/ lies on a disk that all of them see; the first process writes.
# Submit it again after an interruption, on as many nodes as there are: it continues.
#   sbatch examples/slurm/train_many_nodes.sh
#   sbatch --nodes=2 examples/slurm/train_many_nodes.sh
#SBATCH --job-name=pal-train
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=runs/slurm-%x-%j.log
set -euo pipefail
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 # so that workers that start again do not read addresses of the dead
export HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}"
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export first

# One launcher a machine. In single quotes, so that each node expands its own SLURM_NODEID.
srun bash -c 'accelerate launch --config_file configs/accelerate/multi_node.yaml \
    --num_machines "$SLURM_NNODES" --num_processes "$((SLURM_NNODES * SLURM_GPUS_ON_NODE))" \
    --machine_rank "$SLURM_NODEID" --main_process_ip "$first" --main_process_port 29500 \
    -m pal train --config smollm2 data.train=runs/pesconv output_dir=runs/smollm2 \
    global_batch_size=64 training.bf16=true'

# The same with torchrun, whose workers start again up to three times, on all machines together:
# srun bash -c 'torchrun --nnodes "$SLURM_NNODES" --nproc_per_node "$SLURM_GPUS_ON_NODE" --max-restarts 3 \
#     --rdzv_backend c10d --rdzv_id "$SLURM_JOB_ID" --rdzv_endpoint "$first:29500" \
#     -m pal train --config smollm2 data.train=runs/pesconv output_dir=runs/smollm2 \
#     global_batch_size=64 training.bf16=true'
