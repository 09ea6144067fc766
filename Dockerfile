# The image of a worker, or of a training without one. torch's wheels bring CUDA: the host needs a driver and NVIDIA's
# container toolkit, and the same image runs on a CPU.
#   docker build -t d2v . && docker run --rm --gpus all -v "$PWD:/d2v" -w /d2v d2v python -m flows.pretrain speech
FROM python:3.12-slim-bookworm

RUN apt-get update \
    && apt-get install --yes --no-install-recommends git=1:2.* make=4.* \
    && rm -rf /var/lib/apt/lists/*

ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PIP_NO_CACHE_DIR=1 \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    PREFECT_PLUGINS_ENABLED=0 \
    D2V_ROOT=/d2v \
    DO_NOT_TRACK=1 \
    DVC_NO_ANALYTICS=1

WORKDIR /d2v
COPY pyproject.toml constraints.txt README.md ./
COPY flows/__init__.py flows/
COPY d2v_core/__init__.py d2v_core/
RUN python -m pip install --constraint constraints.txt --editable .
COPY . .
# A volume may belong to another user than ours, whose repository git would refuse.
RUN useradd --create-home --uid 1000 d2v && chown -R 1000 /d2v \
    && git config --system --add safe.directory '*'
USER 1000
CMD ["python", "-m", "flows.worker", "gpu"]
