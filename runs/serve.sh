# How a recipe serves the models of its tables: one after the other, a vLLM on each GPU, all asked by one evaluate.py.
# Sourced by runs/recipe.sh, which says what SERVE, GPUS and VLLM_FLAGS do. Logs are in out/paper/served.
#
# A served model is known by the hash of its files (endpoint:NAME@hash): one that was trained again is asked again. A
# model whose answers are all there is not served again.

nobody=http://127.0.0.1:1/v1 # an address where nothing listens
keepers=() served=()
declare -A split=() # model: how many GPUs share one copy, for those that one GPU does not hold

# One line a model that the tables show and that no endpoint has: name, folder, hash, longest prompt with its response.
# The hub's models are downloaded here, once, and not by all servers at a time.
models='
import json
from pathlib import Path

from config import run_cli
from evals.models import SERVED, model_content, read_facts, write_facts
from evals.questions import settings_of
from evaluate import Config, check_config
from model.files import model_folder

def main(cfg):
    longest = max([asked.max_new_tokens for asked in settings_of(cfg).values()], default=0) + 8192
    shown = {name for table in check_config(cfg).values() for name in table.columns.values()}
    facts = read_facts("out/paper/served")  # hashes, by time and size of the files
    for name, path in cfg.models.items():
        if name in shown and not path.startswith(SERVED):
            folder = model_folder(path) or path
            content = model_content(folder, facts["folders"])
            write_facts("out/paper/served", facts)
            window = json.loads((Path(folder) / "config.json").read_text()).get("max_position_embeddings", longest)
            print(name, Path(folder).absolute(), content, min(window, longest), sep="\t")

run_cli(main, Config, "")
'

# serve_all WORDS…: every model that evaluate.py would show with these words is served and asked what is missing.
# `served` then holds the words for evaluate.py that say where the answers are from.
serve_all() {
    local list name folder content window words said
    mkdir -p out/paper/served
    list=$(python -c "$models" "$@")
    while IFS=$'\t' read -r name folder content window; do
        [ -n "$name" ] || continue
        words=("endpoints.$name.model=$name-$content" "endpoints.$name.timeout=3600")
        served+=("models.$name=endpoint:$name@$content" "${words[@]}" "endpoints.$name.base_url=$nobody")
        # this model alone; without a server it ends well if nothing is missing, and else says how much is
        words=("$@" "models:={$name: endpoint:$name@$content}" "tables:={}" "compare=[]" --generate-only "${words[@]}")
        said=$(python "$root/evaluate.py" "${words[@]}" "endpoints.$name.base_url=$nobody" "endpoints.$name.retries=0" \
            2>&1) && continue
        [[ "$said" == *"responses to sample: "* ]] || { echo "$said" >&2; exit 2; }
        step "serving: $name"
        serve "$name" "$folder" "$name-$content" "$window"
        words+=("endpoints.$name.base_url=[$(IFS=,; echo "${urls[*]}")]")
        bash "$root/runs/keep.sh" $$ python "$root/evaluate.py" "${words[@]}" & # a job: a signal ends it with this shell
        asking=$!
        wait "$asking" || { show_dead; exit 2; }
        stop_serving
    done <<< "$list"
}

# serve NAME FOLDER SERVED WINDOW: as many servers as the GPUs hold, until all are ready; sets urls, logs and keepers
serve() {
    local each=${split[$1]:-1} port=$((10000 + $$ % 2000 * 8)) began=$SECONDS devices first i
    gpus_are_free
    IFS=, read -ra devices <<< "${CUDA_VISIBLE_DEVICES:-$(seq -s, 0 $((gpus - 1)))}"
    ((each <= gpus)) || each=$gpus
    urls=() logs=()
    for ((first = 0; first + each <= gpus; first += each)); do
        while (exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null; do port=$((port + 1)); done
        urls+=("http://127.0.0.1:$port/v1") logs+=("$PWD/out/paper/served/$1-$first.log")
        # in a folder without modules that vLLM could take for its own. --generation-config: else the model's own
        # max_new_tokens holds, and what else a client does not send
        # shellcheck disable=SC2086
        (cd out/paper/served && CUDA_VISIBLE_DEVICES=$(IFS=,; echo "${devices[*]:first:each}") exec env -u PYTHONPATH \
            bash "$root/runs/keep.sh" $$ vllm serve "$2" --served-model-name "$3" --generation-config vllm \
            --max-model-len "$4" --tensor-parallel-size "$each" --host 127.0.0.1 --port "$port" \
            ${VLLM_FLAGS---dtype float16}) > "${logs[-1]}" 2>&1 < /dev/null &
        keepers+=($!)
        port=$((port + 1))
    done
    # a large model takes minutes to load
    for i in "${!urls[@]}"; do
        until healthy "${urls[i]}"; do
            kill -0 "${keepers[i]}" 2> /dev/null || { show_dead; exit 2; }
            ((SECONDS - began < 3600)) || { echo "error: a server is silent for an hour: ${logs[i]}" >&2; exit 2; }
            sleep 1
        done
    done
}

# healthy URL: the server there says that it is
healthy() {
    local place=${1#http://} status
    place=${place%/v1}
    (exec 3<> "/dev/tcp/${place/://}" && printf 'GET /health HTTP/1.0\r\n\r\n' >&3 && read -rt 5 status <&3 &&
        [[ "$status" == *" 200"* ]]) 2> /dev/null
}

# what the servers that ended have written: the errors' own lines, as they stand far above the end, and the end
show_dead() {
    local i
    for i in "${!keepers[@]}"; do
        kill -0 "${keepers[i]}" 2> /dev/null && continue
        echo "error: a server ended, see ${logs[i]}: its errors and its last lines" >&2
        grep -E '\w+(Error|Exception): ' "${logs[i]}" | grep -v WARNING | sed 's/^([^)]*)//' | sort -u |
            tail -n 5 >&2 || true
        tail -n 20 "${logs[i]}" | grep -v '^nanobind\|^ - ' >&2 || true
    done
}

stop_serving() {
    local pids=("${keepers[@]}" ${asking:-})
    keepers=() asking=
    [ ${#pids[@]} != 0 ] || return 0
    kill "${pids[@]}" 2> /dev/null || true
    wait "${pids[@]}" 2> /dev/null || true
}
