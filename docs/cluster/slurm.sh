#!/usr/bin/env bash
# A whole VOC run as one Slurm job: Ray starts on every node, the job runs on the first one, Ray ends with it.
#
#   sbatch docs/cluster/slurm.sh        docs/cluster/slurm.md has the steps; submit from the root of the repository
#
# Whole nodes: at the end `ray stop` ends every Ray of yours on them.
#SBATCH --job-name=qaclims-voc12
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=qaclims-%j.log
set -euo pipefail

SHARED=${SHARED:?set SHARED to a folder that all nodes see: data, weights, runs}
ENVIRONMENT=${ENVIRONMENT:-$PWD/.venv}

export PATH=$ENVIRONMENT/bin:$PATH
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$HOME/.qaclims-ray/auth_token
export RAY_USAGE_STATS_ENABLED=0 MLFLOW_DISABLE_TELEMETRY=true
export HF_HOME=$SHARED/cache/huggingface TORCH_HOME=$SHARED/cache/torch
# How long nodes wait for one another; the default of 30 s is short for a cold file system.
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300

[ -s "$RAY_AUTH_TOKEN_PATH" ] || { echo "no token in $RAY_AUTH_TOKEN_PATH: docs/cluster/slurm.md, step 1" >&2; exit 1; }
[ -x "$ENVIRONMENT/bin/ray" ] || { echo "no $ENVIRONMENT/bin/ray: docs/cluster/slurm.md, step 1" >&2; exit 1; }

# This script runs on the first node. Its address, not its name: a name may mean 127.0.1.1 on the node itself.
ADDRESS=$(hostname -I | cut -d ' ' -f 1):6379

srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 \
    ray symmetric-run --address "$ADDRESS" --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="$SLURM_GPUS_ON_NODE" --dashboard-host=127.0.0.1 -- \
    env RAY_ADDRESS="$ADDRESS" \
    python jobs/train_voc.py --preset voc12 --data-root "$SHARED/VOCdevkit/VOC2012" \
    --clip.weights "$SHARED/weights/ovseg_swinbase_vitL14_ft_mpt.pth" --out "$SHARED/runs/voc12"
