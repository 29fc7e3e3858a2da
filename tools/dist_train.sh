#!/usr/bin/env bash
# Train on several processes of this machine, or on several machines, with torchrun.
set -euo pipefail

if [ "$#" -lt 2 ]; then
    cat >&2 <<USAGE
usage: $0 CONFIG GPUS [arguments of tools/train.py]
  GPUS: processes on this machine, one per GPU; on a machine without GPUs, CPU processes.
  Several machines: run on each with NNODES (how many), NODE_RANK (0, 1, ...), MASTER_ADDR (address
  of machine 0) and PORT (a free port there, default 29500) set.
  MAX_RESTARTS=N: start all processes anew, up to N times, after one of them has died, from the last
  checkpoint of the run.
USAGE
    exit 2
fi

CONFIG=$1
GPUS=$2
TOOLS=$(cd "$(dirname "$0")" && pwd)

MAX_RESTARTS=${MAX_RESTARTS:-0}
if [ "${NNODES:-1}" = 1 ] && [ -z "${PORT:-}" ]; then
    # One machine: torchrun finds a free port, so two runs can share the machine.
    RENDEZVOUS=(--standalone)
elif [ "$MAX_RESTARTS" -gt 0 ]; then
    # Machines that restart have to find each other again, which a fixed rank and port do not serve.
    RENDEZVOUS=(
        --nnodes="${NNODES:-1}"
        --rdzv_backend=c10d
        --rdzv_endpoint="${MASTER_ADDR:-127.0.0.1}:${PORT:-29500}"
        --rdzv_id="${RUN_ID:-$(basename "$CONFIG" .py)}"
    )
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
if [ "$MAX_RESTARTS" -gt 0 ]; then
    # The store that torchrun shares with its processes keeps what those that died have written: addresses of nobody.
    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
fi
# A restart goes on from checkpoints of this run, not of one before in the same folder (minus a clock's second).
export RUN_STARTED="${RUN_STARTED:-$(($(date +%s) - 1))}"
exec torchrun "${RENDEZVOUS[@]}" --nproc_per_node="$GPUS" --max-restarts="$MAX_RESTARTS" \
    "$TOOLS/train.py" "$CONFIG" --launcher pytorch "${@:3}"
