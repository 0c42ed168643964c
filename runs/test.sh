#!/usr/bin/env bash
# Linters, then all tests, on two processes. Extra words go to pytest:
#   bash runs/test.sh -k cogpo
#   bash runs/test.sh -m "not slow"      without the tests of more than ten seconds: kills and recipes among them
set -euo pipefail
source "$(dirname "$0")/setup.sh"
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1
ruff check .
ruff format --check .
exec python -m pytest -n 2 --dist worksteal "$@"
