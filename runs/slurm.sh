#!/usr/bin/env bash
# Multi-node training under SLURM, either script; from the project's root, on a file system that every node sees:
#
#   sbatch --nodes 4 runs/slurm.sh train_cogpo.py --config configs/paper/cogpo_7b.yaml [key=value …]
#
# Options on sbatch's command line override those below (--partition, --account, --time, --gpus-per-node, …).
# Python comes from .venv if there is one, else from the environment that sbatch was called in.
#
# Before the time limit and when preempted, the run saves a checkpoint and the job is requeued; it resumes when
# it starts again. A run that ends by itself, successfully or with an error, is not requeued.
#
# Without SLURM, on two machines, run this on both; `first` is the host name of one of them.
#
#   torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint first:29400 --rdzv-id run1 \
#       train_cogpo.py --config configs/paper/cogpo_7b.yaml
#
# Hanging at the first step: NCCL_DEBUG=INFO shows which network NCCL picked, NCCL_SOCKET_IFNAME=eth0 (ib0, …) picks
# another. Hanging later: most likely a rank died; its node stops within 30 s, and --wait stops the others.
#SBATCH --job-name=crv
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --requeue
#SBATCH --signal=TERM@180
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
set -uo pipefail
stopped=75 # exit status of the scripts: stopped by SIGTERM, checkpoint saved

if [ "${1:-}" = --one-node ]; then # one task a node, started by srun below
    shift
    export RAYON_NUM_THREADS=$((SLURM_CPUS_ON_NODE / SLURM_GPUS_ON_NODE)) # the tokenizer's
    # with torchrun --max-restarts, ranks that are started anew must not find what the dead ones left in its store
    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=${TORCH_DISABLE_SHARE_RDZV_TCP_STORE:-1}
    # After SIGTERM the ranks have until just before SLURM's SIGKILL (--signal above) to save, instead of torchrun's
    # 30 s. If a rank died, the others on its node still get only those 30 s.
    export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-170}
    python -m torch.distributed.run --nnodes "$SLURM_NNODES" --nproc-per-node "$SLURM_GPUS_ON_NODE" \
        --rdzv-backend c10d --rdzv-endpoint "$RENDEZVOUS" --rdzv-id "$SLURM_JOB_ID" --local-addr "$SLURMD_NODENAME" \
        "$@" &
    torchrun=$!
    # SLURM signals this shell, at some sites every process of the task: torchrun survives a second SIGTERM, not a third
    signalled=false
    trap 'trap "" TERM; signalled=true; kill -TERM "$torchrun"' TERM
    wait "$torchrun"
    status=$?
    if $signalled; then # it interrupted `wait`; and torchrun exits with 1, whatever its ranks exit with
        wait "$torchrun"
        status=$?
        [ $status = 0 ] || status=$stopped
    fi
    exit $status
fi

if [ ! -f "${1:-}" ] || [ -z "${SLURM_JOB_ID:-}" ]; then
    echo "error: from the project's root: sbatch --nodes 4 runs/slurm.sh train_cogpo.py --config FILE [key=value …]" >&2
    exit 2
fi
# shellcheck disable=SC1091
[ -f .venv/bin/activate ] && source .venv/bin/activate
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-8}
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export RENDEZVOUS=$first:$((20000 + SLURM_JOB_ID % 10000)) # jobs on the same node need different ports

# srun kills its tasks when it receives SIGTERM. SLURM signals the tasks directly, so this shell forwards nothing.
trap : TERM
# when one node exits, the others may finish saving; --wait stops them after a minute if they hang
srun --kill-on-bad-exit=0 --wait=60 --cpus-per-task="$SLURM_CPUS_ON_NODE" bash runs/slurm.sh --one-node "$@" &
srun=$!
wait $srun
status=$?
while kill -0 $srun 2>/dev/null; do # SIGTERM interrupted `wait`
    wait $srun
    status=$?
done
if [ $status = $stopped ]; then
    echo "stopped, checkpoint saved; job $SLURM_JOB_ID is requeued" >&2
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $status
