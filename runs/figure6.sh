#!/usr/bin/env bash
# Figure 6: β. The paper's text does not say which settings its bars show; here one value for all pairs (0.1: that is
# DPO) beside one for each gap.
#   bash runs/figure6.sh [--plan | --smoke]: see runs/recipe.sh
source "$(dirname "$0")/recipe.sh"
dataset bespoke
crv crv_bespoke
sft crv_sft_7b
prefer cogpo_7b
prefer cogpo_7b loss.name=dpo out=out/paper/dpo_7b
for beta in 0.2 0.5; do
    prefer cogpo_7b loss.betas="[$beta, $beta, $beta]" out=out/paper/cogpo_uniform_${beta}_7b
done
table figure6
finish
