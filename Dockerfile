# For one CUDA node (the default), or for a machine without GPUs:
#   docker build -t crv-cogpo .                      docker run --gpus all --ipc host -v "$PWD/out:/crv/out" -it crv-cogpo
#   docker build -t crv-cogpo:cpu --target cpu .     docker run -v "$PWD/out:/crv/out" -it crv-cogpo:cpu bash runs/pocket.sh
FROM python:3.11-slim-bookworm AS base
# a C++ compiler for torch.compile, bubblewrap for programs that models write
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends bubblewrap ca-certificates curl g++ git \
    && rm -rf /var/lib/apt/lists/*
ENV PIP_NO_CACHE_DIR=1 PATH=/crv/.venv/bin:$PATH
WORKDIR /crv
COPY requirements.txt requirements-pocket.txt requirements-dev.txt ./
COPY runs/setup.sh runs/
CMD ["bash"]

FROM base AS cpu
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
RUN bash runs/setup.sh
COPY . .

# torch's wheel brings CUDA's libraries; the driver and `--gpus` come from the host
FROM base AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN bash runs/setup.sh
COPY . .
