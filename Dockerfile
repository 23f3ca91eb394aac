# PAL in a container, for a CPU or for a GPU. Nobody has built it where it was written, since there
# was no container engine at hand: take it as a recipe, and report what it lacks.
#
#   docker build -t pal .                                                # CPU
#   docker build -t pal-gpu --build-arg BASE=nvidia/cuda:12.8.1-runtime-ubuntu24.04 \
#       --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .   # CUDA
#   docker run --rm -v "$PWD/runs:/work/runs" pal quickstart
#   docker run --rm --gpus all -v "$PWD/runs:/work/runs" pal-gpu generate model=runs/pal …
#
# No key is built in: give it to `docker run -e OPENAI_API_KEY`. The folder that is mounted must be
# writable by user 10001.
ARG BASE=ubuntu:24.04
FROM ${BASE}

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 \
    PATH=/opt/pal/bin:$PATH HF_HOME=/work/.cache/huggingface

RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/pal

# torch first, from its own index, so that a change of the code does not fetch it again.
WORKDIR /src
COPY constraints.txt ./
RUN torch=$(grep '^torch==' constraints.txt) && pip install --index-url "$TORCH_INDEX" "$torch"
COPY . .
RUN pip install -c constraints.txt ".[serve,lora]" && rm -rf /src/*

RUN useradd --uid 10001 --create-home --home-dir /work pal
USER 10001
WORKDIR /work

ENTRYPOINT ["pal"]
CMD ["--help"]
