#!/usr/bin/env bash
# Linters, then all tests. Extra words go to pytest:  bash runs/test.sh -k cogpo
set -euo pipefail
source "$(dirname "$0")/setup.sh"
ruff check .
ruff format --check .
exec python -m pytest "$@"
