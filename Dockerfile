# The libraries are installed in a stage of their own, so that pip and its caches stay behind.
FROM python:3.12-slim AS build
COPY requirements.lock /
RUN python -m venv /venv \
    && /venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
        --no-deps --require-hashes --only-binary :all: -r /requirements.lock \
    && /venv/bin/python -m pip uninstall --yes --quiet setuptools pip

FROM python:3.12-slim
# libgomp1: llama.cpp computes with it. Its version is that of the image's Debian.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/*
# The user is a number that orchestrators can check. Keys and histories are private to it.
RUN groupadd --system --gid 10001 recollect \
    && useradd --system --uid 10001 --gid recollect --no-create-home --shell /usr/sbin/nologin recollect \
    && install --directory --owner=recollect --group=recollect --mode=0700 /data
COPY --from=build /venv /venv
WORKDIR /app
COPY *.py ./
COPY api ./api
COPY auth ./auth
COPY chains ./chains
COPY chat_models ./chat_models
COPY histories ./histories
COPY playground_config ./playground_config
COPY turns ./turns
COPY web ./web
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RECOLLECT_DATA_DIR=/data \
    RECOLLECT_HOST=0.0.0.0 \
    RECOLLECT_PORT=8000
USER 10001:10001
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ['RECOLLECT_PORT'] + '/healthz', timeout=2)"]
# A running turn may take RECOLLECT_SHUTDOWN_S (30 s) to end, which is longer than `docker stop` waits by itself.
CMD ["python", "server.py"]
