# PAL in a container, for a CPU or for a GPU. Nobody has built it where it was written, since there
# was no container engine at hand: take it as a recipe, and report what it lacks.
#
#   docker build -t pal .                                                # CPU
#   docker build -t pal-gpu --build-arg BASE=nvidia/cuda:12.8.1-runtime-ubuntu24.04 .   # CUDA
#   docker run --rm -v "$PWD/runs:/home/pal/runs" pal quickstart
#   docker run --rm --gpus all -v "$PWD/runs:/home/pal/runs" pal-gpu generate model=runs/pal …
#
# TORCH_INDEX, a package index, gives another build of torch, such as the smaller one for CPUs.
# No key is built in: give it to `docker run -e OPENAI_API_KEY`. The folder that is mounted must be
# writable by user 10001.
ARG BASE=ubuntu:24.04
FROM ${BASE}

ARG TORCH_INDEX=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 \
    PATH=/opt/pal/bin:$PATH HF_HOME=/home/pal/.cache/huggingface

RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/pal

# torch first, so that a change of the code does not fetch it again.
WORKDIR /src
COPY constraints.txt ./
RUN torch=$(grep '^torch==' constraints.txt) && pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$torch"
COPY . .
RUN pip install -c constraints.txt ".[serve,lora]" && rm -rf /src/*

RUN useradd --uid 10001 --create-home --home-dir /home/pal pal
USER 10001
WORKDIR /home/pal

ENTRYPOINT ["pal"]
CMD ["--help"]
