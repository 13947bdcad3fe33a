# discreet for CPU or GPU, of the versions in requirements.lock.
#
#   docker build --build-arg DEVICE=cuda --tag discreet .
#   docker build --build-arg DEVICE=cpu --build-arg TORCH_INDEX=URL --tag discreet .
#
# The default package index has torch for Linux on x86 with CUDA only; it runs on a CPU too, and
# takes some 5 GB more. TORCH_INDEX is the index of CPU builds that PyTorch's own page names.
FROM python:3.11-slim-bookworm

ARG DEVICE=cuda
ARG TORCH_INDEX=

SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# What OpenCV loads.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/discreet
COPY requirements.lock pyproject.toml README.md LICENSE ./

# On a CPU: torch first, from its own index, and none of the libraries of CUDA.
RUN if [[ "$DEVICE" == cpu && -n "$TORCH_INDEX" ]]; then \
        sed -n 's/^\(torch\(vision\)\?==[^ ]*\).*/\1/p' requirements.lock > torch.lock \
        && pip install --no-cache-dir --index-url "$TORCH_INDEX" -r torch.lock \
        && awk '/^[a-z]/ { keep = !/^(torch|torchvision|triton|nvidia-|cuda-)/ } keep' \
            requirements.lock > installed.lock; \
    else \
        cp requirements.lock installed.lock; \
    fi \
    && pip install --no-cache-dir -r installed.lock

COPY src ./src
RUN pip install --no-cache-dir --no-deps --no-build-isolation . \
    && useradd --create-home --uid 1000 discreet

USER 1000
WORKDIR /work
ENTRYPOINT ["discreet"]
CMD ["help"]
