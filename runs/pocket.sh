#!/usr/bin/env bash
# The whole paper at pocket size: problems, CRV, SFT, CogPO, and a table of accuracies. No model hub, no GPU needed.
#
#   bash runs/pocket.sh           base | SFT | CRV+SFT | CogPO, one seed
#   bash runs/pocket.sh --full    also DPO, β-DPO, SimPO (Table 2), the ablation (Table 6), the levels (Table 5), 3 seeds
#
# Killed at any moment, the same command goes on where it stopped: every stage skips what it has finished.
# The agents are a scripted teacher behind a real HTTP server, standing in for DeepSeek-R1-Distill-Qwen-32B.
set -euo pipefail
full=false
case "${1:-}" in
    "") ;;
    --full) full=true ;;
    *) echo "error: unknown word $1; use --full or nothing" >&2; exit 2 ;;
esac
source "$(dirname "$0")/setup.sh"
export HF_HUB_OFFLINE=1
out=out/pocket
began=$SECONDS

stage() { printf '\n== %s (%d:%02d)\n' "$1" $(((SECONDS - began) / 60)) $(((SECONDS - began) % 60)) >&2; }

sft() { # name, data file, seed
    stage "$1, seed $3"
    python train_sft.py --config configs/pocket/sft.yaml data.file="$out/crv/$2" out="$out/seed$3/$1" seed="$3"
}

prefer() { # name, loss, seed: all from the same CRV+SFT checkpoint and the same pairs
    stage "$1, seed $3"
    python train_cogpo.py --config configs/pocket/cogpo.yaml loss.name="$2" model.path="$out/seed$3/crv_sft/model" \
        out="$out/seed$3/$1" seed="$3"
}

stage "student: SmolLM2-135M-Instruct"
python -m model.pocket_student "$out/student"

stage "problems and original reasoning, from reasoning-gym"
python -m data.pocket --config configs/pocket/problems.yaml

stage "CRV: the scripted teacher rates, rewrites and verifies"
mkdir -p "$out"
port=$(python -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
python -m agents.teacher --port "$port" > "$out/teacher.log" 2>&1 &
teacher=$!
trap 'kill $teacher 2>/dev/null || true' EXIT
until (exec 3<> "/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
    kill -0 "$teacher" 2>/dev/null || { cat "$out/teacher.log" >&2; exit 1; }
    sleep 0.2
done
python build_crv.py --config configs/pocket/crv.yaml "endpoints.teacher.base_url=http://127.0.0.1:$port/v1"
kill "$teacher"

seeds=0
$full && seeds="0 1 2"
for seed in $seeds; do
    sft sft sft_original.jsonl "$seed"
    sft crv_sft sft.jsonl "$seed"
    prefer cogpo cogpo "$seed"
    if $full; then
        prefer dpo dpo "$seed"
        prefer beta_dpo beta_dpo "$seed"
        prefer simpo simpo "$seed"
        sft sft_c sft_c.jsonl "$seed"
        sft sft_cr sft_cr.jsonl "$seed"
        for level in easy medium hard; do sft "sft_$level" "sft_$level.jsonl" "$seed"; done
    fi
done

stage "evaluation"
if $full; then
    python evaluate.py --config configs/pocket/eval_full.yaml
else
    python evaluate.py --config configs/pocket/eval.yaml
fi
stage "done"
