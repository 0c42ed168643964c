#!/usr/bin/env bash
# The whole paper at pocket size: problems, CRV, SFT, CogPO, and a table of accuracies. No model hub, no GPU needed.
#
#   bash runs/pocket.sh                   base | SFT | CRV+SFT | CogPO, one seed: about 12 minutes on two cores
#   bash runs/pocket.sh --full            the studies of docs/pocket-study.md: Tables 2, 5, 6 and Fig. 6, five seeds, two
#                                         task mixtures, rates tuned; a micro student, 2 to 3 hours on two cores
#   bash runs/pocket.sh --full preference one of them; smollm2 is the same on SmolLM2-135M: days, so use a GPU
#   further arguments go to the study, e.g. workers=8
#
# Killed at any point, run the same command to resume: every stage skips what it has finished.
# The agents are a scripted teacher behind a real HTTP server, standing in for DeepSeek-R1-Distill-Qwen-32B.
set -euo pipefail
case "${1:-}" in
    "" | --full) ;;
    *) echo "error: unknown word $1; use --full or nothing" >&2; exit 2 ;;
esac
source "$(dirname "$0")/setup.sh"
export HF_HUB_OFFLINE=1
if [ "${1:-}" = --full ]; then
    shift
    studies=(sft preference orders)
    [[ "${1:-=}" == *=* ]] || { studies=("$1"); shift; }  # a name of configs/pocket/study, not key=value
    for study in "${studies[@]}"; do
        python -m pocket.study.study --config "configs/pocket/study/$study.yaml" "$@"
    done
    exit
fi
out=out/pocket
began=$SECONDS

stage() { printf '\n== %s (%d:%02d)\n' "$1" $(((SECONDS - began) / 60)) $(((SECONDS - began) % 60)) >&2; }

sft() { # name, data file
    stage "$1"
    python train_sft.py --config configs/pocket/sft.yaml data.file="$out/crv/$2" out="$out/seed0/$1"
}

stage "student: SmolLM2-135M-Instruct"
python -m pocket.student out="$out/student"

stage "problems and original reasoning, from reasoning-gym"
python -m pocket.problems --config configs/pocket/problems.yaml

stage "CRV: the scripted teacher rates, rewrites and verifies"
mkdir -p "$out"
port=$(python -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
python -m pocket.teacher --port "$port" > "$out/teacher.log" 2>&1 &
teacher=$!
trap 'kill $teacher 2>/dev/null || true' EXIT
until (exec 3<> "/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
    kill -0 "$teacher" 2>/dev/null || { cat "$out/teacher.log" >&2; exit 1; }
    sleep 0.2
done
python build_crv.py --config configs/pocket/crv.yaml "endpoints.teacher.base_url=http://127.0.0.1:$port/v1"
kill "$teacher"

sft sft sft_original.jsonl
sft crv_sft sft.jsonl
stage "CogPO"
python train_cogpo.py --config configs/pocket/cogpo.yaml model.path="$out/seed0/crv_sft/model" out="$out/seed0/cogpo"

stage "evaluation"
python evaluate.py --config configs/pocket/eval.yaml
stage "done"
