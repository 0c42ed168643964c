# What the recipes share: bash runs/table2.sh and so on, each a list of the steps below. Sourced, not run.
#
#   bash runs/table2.sh            from the public dataset to the rendered table; if killed, run it again to resume
#   bash runs/table2.sh --plan     what it will take: GPU-hours, memory, calls of the teacher, disk
#   bash runs/table2.sh --smoke    the same steps in minutes on any machine, with tiny random models of the same families,
#                                  a few problems and the scripted teacher; the numbers mean nothing
#
#   GPUS=8                         how many GPUs torchrun uses
#   TEACHER=http://gpu9:8000/v1    where the agents are served, if not at localhost:8000 (several: a,b,c)
#   SERVE=vllm                     each model of a table is served on all GPUs (runs/serve.sh); the default where there is
#                                  a command `vllm`, which is never installed into .venv; SERVE=none: one GPU, in process
#   VLLM_FLAGS="--dtype float16"   how: these are the default (docs/evaluation.md says why this dtype)
#   EVALUATE="models.base=endpoint:base …"   further arguments for evaluate.py: models that you serve, or batch_size=8
#
# On one machine the teacher and the training want the same GPUs. All CRV runs come first; before a training the recipe
# stops with exit status 3 while something else holds the GPUs. Stop the teacher's server then and run the same command
# again: CRV's answers are in its journal, so it needs no server. Table 1's 32B must be served. No recipe has been run on
# GPUs yet.
#
# All recipes write to out/paper and reuse what is there: CRV runs, reference caches, checkpoints, generations. A smoke run
# is the same commands in another working directory, out/smoke, where the hub's names are folders with tiny models.
set -euo pipefail
mode=run
case "${1:-}" in
    "") ;;
    --plan | --smoke) mode=${1#--} ;;
    *) echo "error: unknown word $1; use --plan, --smoke or nothing" >&2; exit 2 ;;
esac
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
root=$PWD
source "$root/runs/serve.sh"
paper=$root/configs/paper
gpus=${GPUS:-8}
serve=${SERVE:-none}
[ "$mode" != run ] || [ -n "${SERVE:-}" ] || ! command -v vllm > /dev/null || serve=vllm
[ "$serve" != vllm ] || command -v vllm > /dev/null || { echo "error: SERVE=vllm, but PATH has no command vllm" >&2; exit 2; }
[[ "$serve" == vllm || "$serve" == none ]] || { echo "error: SERVE takes vllm or none, not $serve" >&2; exit 2; }
teacher=()
began=$SECONDS
hours=$(mktemp)

declare -A sizes=([bespoke]=16710 [sky_t1]=16401 [openthoughts]=113957)  # for --plan
declare -A files=([bespoke]=bespoke_stratos_17k [sky_t1]=sky_t1_17k [openthoughts]=openthoughts_114k)

step() { printf '\n== %s (%d:%02d)\n' "$1" $(((SECONDS - began) / 60)) $(((SECONDS - began) % 60)) >&2; }

at_end() {
    stop_serving
    [ -z "${teacher_pid:-}" ] || kill "$teacher_pid" 2> /dev/null || true
    rm -f "$hours"
}
trap at_end EXIT
trap 'exit 130' INT

if [ "$mode" = smoke ]; then
    export HF_HUB_OFFLINE=1 PYTHONPATH=$root
    smoke=${SMOKE:-out/smoke}
    mkdir -p "$smoke"
    cd "$smoke"
    step "smoke: tiny models, a few problems"
    [ -e problems/openthoughts_114k.jsonl ] || python -m pocket.smoke .  # the last file that it writes
    python -m pocket.tiny {qwen2=Qwen/Qwen2.5-{3B,7B,14B},llama=meta-llama/Llama-3.1-8B}-Instruct \
        mistral=mistralai/Mistral-7B-Instruct-v0.3 r1=deepseek-ai/DeepSeek-R1-Distill-Qwen-{1.5B,7B,32B} \
        llama=SimpleBerry/LLaMA-O1-Supervised-1129 qwen2=AIDC-AI/Marco-o1 qwen2=bespokelabs/Bespoke-Stratos-7B \
        qwen2=open-thoughts/OpenThinker-7B
    port=$(python -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
    python -m pocket.teacher --port "$port" > teacher.log 2>&1 &
    teacher_pid=$!
    until (exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null; do
        kill -0 "$teacher_pid" 2> /dev/null || { cat teacher.log >&2; exit 1; }
        sleep 0.2
    done
    TEACHER=http://127.0.0.1:$port/v1
fi
[ -z "${TEACHER:-}" ] || teacher=("endpoints.teacher.base_url=[$TEACHER]")

# dataset NAME: the public dataset as problem records; what follows is planned for its size
dataset() {
    local file=problems/${files[$1]}.jsonl
    size=${sizes[$1]}
    [ "$mode" = run ] && [ ! -s "$file" ] || return 0
    step "problems: $1"
    python -m data.sources name="$1" out="$file"
}

# crv CONFIG [key=value …]: build_crv.py
crv() {
    local config=$1; shift
    step "CRV: $config $*"
    case $mode in
        run) python build_crv.py --config "$paper/$config.yaml" "${teacher[@]}" "$@" ;;
        plan) echo "$size problems; about four calls of the teacher for each, with stages=c one for each vote" \
            "(docs/scaling.md, Building data)" ;;
        smoke) python "$root/build_crv.py" --config "$paper/$config.yaml" --config "$root/configs/smoke/crv.yaml" \
            "${teacher[@]}" "$@" ;;
    esac
}

# what is left running, a teacher most of all, holds nearly all memory of the GPUs
gpus_are_free() {
    command -v nvidia-smi > /dev/null || return 0
    local used
    used=$(nvidia-smi ${CUDA_VISIBLE_DEVICES:+-i "$CUDA_VISIBLE_DEVICES"} --query-gpu=memory.used \
        --format=csv,noheader,nounits | head -n "$gpus" | sort -n | tail -n 1)
    [ "$used" -gt 2048 ] || return 0
    echo "error: the next step needs the GPUs, but $used MiB of one are in use; stop the teacher's server (or what else" \
        "runs there), then run the same command again to resume" >&2
    exit 3
}

# sft, prefer CONFIG [key=value …]: train_sft.py, train_cogpo.py. student: the hub's name of the model
student=Qwen/Qwen2.5-7B-Instruct
launch=(torchrun --standalone --nproc_per_node 1)  # the first training of a smoke run: the launcher costs 2 s each time
train() {
    local script=$1 config=$2; shift 2
    step "$script: $config $*"
    case $mode in
        run) gpus_are_free; torchrun --nproc_per_node "$gpus" "$script" --config "$paper/$config.yaml" "$@" ;;
        plan) python "$script" --config "$paper/$config.yaml" "$@" model.path="$student" \
            --plan gpus="$gpus" examples="$size" | tee -a "$hours" ;;
        smoke)
            "${launch[@]}" "$root/$script" --config "$paper/$config.yaml" --config "$root/configs/smoke/train.yaml" "$@"
            launch=(python) ;;
    esac
}

sft() { train train_sft.py "$@"; }
prefer() { train train_cogpo.py "$@"; }

# students NAME CRV MODEL [key=value of CogPO …]: SFT on the original chains, CRV+SFT and CogPO of a model, from a CRV run's folder
students() {
    student=$3
    sft sft_7b model.path="$3" data.file="$2/sft_original.jsonl" out="out/paper/sft_$1"
    sft sft_7b model.path="$3" data.file="$2/sft.jsonl" out="out/paper/crv_sft_$1"
    prefer cogpo_7b model.path="out/paper/crv_sft_$1/model" data.file="$2/pairs.jsonl" out="out/paper/cogpo_$1" "${@:4}"
}

# table CONFIG [key=value …]: evaluate.py runs what is missing and renders
table() {
    local words=(--config "$paper/$1.yaml"); shift
    served=()
    [ "$mode" != smoke ] || words+=(--config "$root/configs/smoke/eval.yaml")
    [ "$mode" != plan ] || words+=(--plan)
    step "evaluation: ${words[1]##*/}"
    # shellcheck disable=SC2086
    [ "$mode" = plan ] || [ "$serve" = none ] || serve_all "${words[@]}" ${EVALUATE:-} "$@"
    # shellcheck disable=SC2086
    python "$root/evaluate.py" "${words[@]}" ${EVALUATE:-} "${served[@]}" "$@"
}

# known_as NAME MODEL: what the answers of models.NAME in the last table are kept under: MODEL, or its endpoint
known_as() {
    local word known=$2
    for word in ${EVALUATE:-} "${served[@]}"; do [[ "$word" != "models.$1="* ]] || known=${word#*=}; done
    echo "$known"
}

# chains BENCHMARK NAME MODEL FILE: what a model of that name wrote in `table chains`, as problem records
chains() {
    step "chains: $3"
    local words=(eval=out/paper/chains benchmark="$1" model="$(known_as "$2" "$3")" out="$4")
    [ "$mode" != smoke ] || words+=(benchmarks_dir=benchmarks allow_size=true)
    [ "$mode" = plan ] || python -m evals.chains "${words[@]}"
}

finish() {
    step "done"
    [ "$mode" = plan ] || return 0
    awk -v gpus="$gpus" '/^time:/ { sum += $2; n++ }
        END { printf "training together: %.0f GPU-hours (%d runs, %.1f h on %d GPUs, one after the other)\n", sum * gpus, n, sum, gpus }' "$hours"
}
