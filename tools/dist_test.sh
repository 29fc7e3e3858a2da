#!/usr/bin/env bash
# Test on several processes of this machine, or on several machines, with torchrun.
set -euo pipefail

if [ "$#" -lt 3 ]; then
    cat >&2 <<USAGE
usage: $0 CONFIG CHECKPOINT GPUS [arguments of tools/test.py]
  GPUS: processes on this machine, one per GPU; on a machine without GPUs, CPU processes.
  Several machines: run on each with NNODES (how many), NODE_RANK (0, 1, ...), MASTER_ADDR (address
  of machine 0) and PORT (a free port there, default 29500) set.
USAGE
    exit 2
fi

CONFIG=$1
CHECKPOINT=$2
GPUS=$3
TOOLS=$(cd "$(dirname "$0")" && pwd)

if [ "${NNODES:-1}" = 1 ] && [ -z "${PORT:-}" ]; then
    # One machine: torchrun finds a free port, so two runs can share the machine.
    RENDEZVOUS=(--standalone)
else
    RENDEZVOUS=(
        --nnodes="${NNODES:-1}"
        --node_rank="${NODE_RANK:-0}"
        --master_addr="${MASTER_ADDR:-127.0.0.1}"
        --master_port="${PORT:-29500}"
    )
fi

# Every process starts a thread per core otherwise.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
export PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}"
exec torchrun "${RENDEZVOUS[@]}" --nproc_per_node="$GPUS" \
    "$TOOLS/test.py" "$CONFIG" "$CHECKPOINT" --launcher pytorch "${@:4}"
