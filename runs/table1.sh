#!/usr/bin/env bash
# Table 1: how complex the chains are that R1-Distill-Qwen 1.5B, 7B and 32B write on MATH-500, by the Critic's majority of
# three ratings.
#   bash runs/table1.sh [--plan | --smoke]: see runs/recipe.sh
source "$(dirname "$0")/recipe.sh"
size=500
split[32B]=4  # 66 GB of weights, and a response of 33k tokens holds 9 GB
table chains
for billions in 1.5b 7b 32b; do
    name=${billions^^}
    chains MATH-500 "${name/./_}" deepseek-ai/DeepSeek-R1-Distill-Qwen-${billions^^} problems/math500_chains_$billions.jsonl
    crv crv_table1 problems=problems/math500_chains_$billions.jsonl out=out/paper/crv_table1_$billions
done
table table1
finish
