#!/bin/bash
# Train on the machines of a SLURM job: one torchrun on each, which starts a process for each GPU.
#
#   sbatch --nodes 4 --gpus-per-node 8 scripts/slurm_train.sh --config meru_vit_b --output-dir /shared/output/meru_vit_b
#
# Arguments are those of `hypvl train`. The output folder must be the same on all machines. The run is resumed if the
# folder holds one. Two minutes before the time limit, and when it is preempted, the job saves a checkpoint and queues
# itself again. RANKS_PER_NODE: processes on each machine (default: one for each GPU).
#SBATCH --job-name=hypvl
#SBATCH --ntasks-per-node=1
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

mapfile -t machines < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
asked=0
srun --ntasks-per-node=1 --kill-on-bad-exit=1 python -m torch.distributed.run \
    --nnodes "$SLURM_NNODES" --nproc-per-node "${RANKS_PER_NODE:-gpu}" --max-restarts "${MAX_RESTARTS:-3}" \
    --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "${machines[0]}:$((20000 + SLURM_JOB_ID % 20000))" \
    -m hypvl train --resume "$@" &
step=$!
trap 'asked=1; kill -TERM "$step" 2>/dev/null || true' TERM # srun passes it on to every torchrun

code=0
wait "$step" || code=$?
while kill -0 "$step" 2>/dev/null; do # the first wait ends with the signal
    code=0
    wait "$step" || code=$?
done
if ((asked)); then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
