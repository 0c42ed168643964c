#!/usr/bin/env bash
# Beyond the paper: CogPO on pairs of r* and the CRV+SFT student's own wrong answers, CRV's small and medium pairs beside
# them (python -m evals.own_pairs).
#   bash runs/own_pairs.sh [--plan | --smoke]: see runs/recipe.sh
source "$(dirname "$0")/recipe.sh"
dataset bespoke
crv crv_bespoke
sft crv_sft_7b
table own_pairs benchmarks.train.limit="$size"
step "own pairs"
[ "$mode" = plan ] || python -m evals.own_pairs eval=out/paper/own_pairs out=out/paper/own_pairs/pairs.jsonl \
    model="$(known_as crv_sft out/paper/crv_sft_7b/model)" sft=out/paper/crv_bespoke/sft.jsonl \
    pairs=out/paper/crv_bespoke/pairs.jsonl
prefer cogpo_7b data.file=out/paper/own_pairs/pairs.jsonl out=out/paper/cogpo_own_7b
finish
