# One image for all: `tradeback server`, `recorder`, `api`, `migrate` and the rest are its commands.
# docs/deploy.md says how it is run; tests/image_walk.py walks these steps without a container engine.

# The page for browsers. Node comes from PyPI, as it does in `make build` where there is none.
FROM debian:12.11-slim AS page
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
WORKDIR /src
RUN python3 -m venv /node
COPY tradeback/web tradeback/web
RUN CI=true /node/bin/python tradeback/web/build.py

# Wheels of everything, built once, and the environment that they are installed into.
FROM debian:12.11-slim AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates gcc libc6-dev python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
WORKDIR /src
RUN python3 -m venv /tools && python3 -m venv --without-pip /opt/tradeback
# What changes seldom comes first, so that its layer is kept.
COPY pyproject.toml ./
RUN /tools/bin/python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb")); \
print(*p["build-system"]["requires"], "wheel", sep="\n", file=open("/tools/build.txt", "w")); \
print(*p["project"]["dependencies"], sep="\n", file=open("/tools/run.txt", "w"))' \
    && /tools/bin/python -m pip install --no-cache-dir -r /tools/build.txt \
    && /tools/bin/python -m pip wheel --no-cache-dir --wheel-dir /wheels -r /tools/run.txt
COPY setup.py MANIFEST.in README.md LICENSE ./
COPY tradeback tradeback
COPY --from=page /src/tradeback/web/dist tradeback/web/dist
RUN /tools/bin/python setup.py --quiet build_ext --parallel 4 \
    && /tools/bin/python -m pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /tools/bin/python -m pip --python /opt/tradeback/bin/python install --no-cache-dir --no-index \
       --find-links /wheels tradeback

# What runs: Python, certificates, the environment. No compiler, no pip, no Node.
FROM debian:12.11-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \
    && useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin tradeback \
    && install -d -o tradeback -g tradeback -m 0700 /data
COPY --from=build /opt/tradeback /opt/tradeback
ENV PATH=/opt/tradeback/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SERVER_HOST=0.0.0.0 \
    DATA_DIR=/data
WORKDIR /data
USER 10001:10001
EXPOSE 8080 8081
# Each process ends in good order at SIGTERM and starts none that it does not wait for, so there is no init in between.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 CMD ["tradeback", "health"]
ENTRYPOINT ["tradeback"]
CMD ["up"]
