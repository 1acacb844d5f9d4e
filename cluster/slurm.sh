#!/usr/bin/env bash
# One search on the nodes of a Slurm job: sbatch cluster/slurm.sh STUDY.py RUN [OPTIONS OF SEARCH].
# Sent again, or requeued by Slurm, it goes on where it was stopped. Lines marked EDIT need your
# values; README.md beside this file explains the rest.
#SBATCH --job-name=evometa
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

study=${1:?the study file}
run=${2:?the run directory, on a file system that the first node can write}
shift 2

source .venv/bin/activate # EDIT: where evometa is installed, on all nodes

# the nodes of a job are often shared with the jobs of others: a port and a token of our own
port=$((20000 + SLURM_JOB_ID % 20000))
# not `| head`: scontrol would die of the closed pipe now and then, and the job with it
read -r head < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
export RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN
# slow file systems take longer than Ray's 30 seconds to load it on every node
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300

if test -e "$run/study.json"; then
  command=(evometa resume "$run")
else
  command=(evometa search "$study" --run "$run" "$@")
fi

# --temp-dir is short because the paths of Unix sockets end at 107 characters
srun ray symmetric-run \
  --address "$head:$port" \
  --min-nodes "$SLURM_NNODES" \
  --num-cpus "$SLURM_CPUS_PER_TASK" \
  --num-gpus "${SLURM_GPUS_ON_NODE:-0}" \
  --temp-dir "/tmp/ray-$SLURM_JOB_ID" \
  --dashboard-host 127.0.0.1 \
  -- "${command[@]}" --address "$head:$port"
