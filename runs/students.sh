#!/usr/bin/env bash
# Beyond the paper: the students of configs/students, each SFT and CogPO on the paper's CRV run in <think> tags.
#   bash runs/students.sh [--plan | --smoke]: see runs/recipe.sh       STUDENTS="qwen3_8b smollm3_3b": some of them
source "$(dirname "$0")/recipe.sh"
students=$root/configs/students
if [ "$mode" = smoke ]; then
    python -m pocket.tiny qwen3=Qwen/Qwen3-{1.7B,4B,8B} smollm3=HuggingFaceTB/SmolLM3-3B \
        llama3.2=meta-llama/Llama-3.2-3B-Instruct olmo2=allenai/OLMo-2-{0425-1B,1124-7B}-Instruct
fi
dataset bespoke
crv crv_bespoke
crv ../students/crv
all="qwen3_1.7b qwen3_4b qwen3_8b smollm3_3b llama3.2_3b olmo2_1b olmo2_7b"
for name in $all; do
    if [[ " ${STUDENTS:-$all} " != *" $name "* ]]; then
        EVALUATE="${EVALUATE:-} models.\"$name\"=null models.\"${name}_sft\"=null models.\"${name}_cogpo\"=null"
        continue
    fi
    student=$(sed -n 's/^  path: //p' "$students/$name.yaml")
    sft "../students/$name"
    prefer "../students/$name" --config "$students/cogpo.yaml" \
        model.path="out/students/$name/crv_sft/model" out="out/students/$name/cogpo"
done
table ../students/eval
finish
