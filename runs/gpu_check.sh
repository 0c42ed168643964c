#!/usr/bin/env bash
# What a machine with one GPU should run first, about ten minutes: versions, kernels, a small training of each kind, a
# 1.5B model with its memory beside --plan, and speed. No network, nothing is installed. The table is also written to
# out/gpu_check/<GPU>.md. Without a GPU the same lines run in a small setting, to see that they run.
set -euo pipefail
[ $# = 0 ] || { echo "error: unknown word $1; this takes none" >&2; exit 2; }
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck disable=SC1091
[ -f .venv/bin/activate ] && source .venv/bin/activate
python=$(command -v python || command -v python3)
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTORCH_ALLOC_CONF=${PYTORCH_ALLOC_CONF:-expandable_segments:True}
name=$("$python" -c "import torch; print(torch.cuda.get_device_name().replace(' ', '-') if torch.cuda.is_available() else 'cpu')")
mkdir -p out/gpu_check
"$python" -m bench.gpu_check | tee "out/gpu_check/$name.md"
