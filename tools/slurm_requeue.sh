#!/usr/bin/env bash
# Train as a Slurm batch job that outlives its time limit: it saves shortly before the end, goes back into the queue,
# and resumes, until the run is over. Start it on a login node; it submits itself.
set -euo pipefail

if [ -z "${NEPA_MM_TOOLS:-}" ]; then
    if [ "$#" -lt 3 ]; then
        cat >&2 <<USAGE
usage: $0 PARTITION JOB_NAME CONFIG [arguments of tools/train.py]
  Environment: GPUS (processes in all, default 8), GPUS_PER_NODE (default 8, or GPUS if fewer),
  CPUS_PER_TASK (default 5), SECONDS_BEFORE_END (when to save, default 120), SBATCH_ARGS (further
  arguments of sbatch, such as --time=1-00:00:00).
USAGE
        exit 2
    fi
    PARTITION=$1
    JOB_NAME=$2
    GPUS=${GPUS:-8}
    GPUS_PER_NODE=${GPUS_PER_NODE:-$((GPUS < 8 ? GPUS : 8))}
    export CPUS_PER_TASK=${CPUS_PER_TASK:-5}
    read -r -a EXTRA <<<"${SBATCH_ARGS:-}"
    # Slurm runs a copy of this file from a folder of its own: the place of the tools travels in the environment.
    NEPA_MM_TOOLS=$(cd "$(dirname "$0")" && pwd)
    export NEPA_MM_TOOLS
    exec sbatch --partition="$PARTITION" \
        --job-name="$JOB_NAME" \
        --gres=gpu:"$GPUS_PER_NODE" \
        --ntasks="$GPUS" \
        --ntasks-per-node="$GPUS_PER_NODE" \
        --cpus-per-task="$CPUS_PER_TASK" \
        --requeue \
        --open-mode=append \
        --signal=B:USR1@"${SECONDS_BEFORE_END:-120}" \
        ${EXTRA[@]+"${EXTRA[@]}"} \
        "$NEPA_MM_TOOLS/slurm_requeue.sh" "${@:3}"
fi

# From here on inside the job. Slurm signals this shell alone (B:); srun passes a signal on to its tasks, and
# StopOnSignalHook saves and ends the run with status 75.
export PYTHONPATH="$NEPA_MM_TOOLS/..${PYTHONPATH:+:$PYTHONPATH}"
SIGNALLED=
SRUN=
trap 'SIGNALLED=yes; [ -z "$SRUN" ] || kill -USR1 "$SRUN" 2>/dev/null || true' USR1
srun --kill-on-bad-exit=1 --cpus-per-task="${CPUS_PER_TASK:-5}" \
    python -u "$NEPA_MM_TOOLS/train.py" "$1" --launcher slurm --resume "${@:2}" &
SRUN=$!

STATUS=0
while :; do
    # wait returns for a signal as well as at the end
    wait "$SRUN" && STATUS=0 || STATUS=$?
    kill -0 "$SRUN" 2>/dev/null || break
done
if [ "$STATUS" = 75 ] || { [ -n "$SIGNALLED" ] && [ "$STATUS" != 0 ]; }; then
    # Not by the status alone: the first task that ends with 75 may have srun kill the others, whose status counts more.
    echo "slurm_requeue.sh: stopped with status $STATUS; job $SLURM_JOB_ID goes back into the queue."
    exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$STATUS"
