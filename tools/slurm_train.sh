#!/usr/bin/env bash
# Train as a slurm job.
set -euo pipefail

if [ "$#" -lt 3 ]; then
    cat >&2 <<USAGE
usage: $0 PARTITION JOB_NAME CONFIG [arguments of tools/train.py]
  Environment: GPUS (processes in all, default 8), GPUS_PER_NODE (default 8, or GPUS if fewer),
  CPUS_PER_TASK (default 5), SRUN_ARGS (further arguments of srun).
USAGE
    exit 2
fi

PARTITION=$1
JOB_NAME=$2
CONFIG=$3
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-$((GPUS < 8 ? GPUS : 8))}
CPUS_PER_TASK=${CPUS_PER_TASK:-5}
read -r -a EXTRA <<<"${SRUN_ARGS:-}"
TOOLS=$(cd "$(dirname "$0")" && pwd)

export PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}"
exec srun --partition="$PARTITION" \
    --job-name="$JOB_NAME" \
    --gres=gpu:"$GPUS_PER_NODE" \
    --ntasks="$GPUS" \
    --ntasks-per-node="$GPUS_PER_NODE" \
    --cpus-per-task="$CPUS_PER_TASK" \
    --kill-on-bad-exit=1 \
    ${EXTRA[@]+"${EXTRA[@]}"} \
    python -u "$TOOLS/train.py" "$CONFIG" --launcher slurm "${@:4}"
