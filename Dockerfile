# One image for every role of ours: worker, Flower, MLflow's server, the simulated API, the command line.
# What a container does is its command; docker-compose.yml has them all.

ARG PYTHON_VERSION=3.12

FROM python:${PYTHON_VERSION}-slim AS build
WORKDIR /src
RUN python -m venv /opt/app
ENV PATH=/opt/app/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# The dependencies first, in a layer that a change of code does not touch.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN pip install --constraint constraints.txt setuptools \
    && pip install --constraint constraints.txt --no-build-isolation ".[azure,server]"
COPY flavor flavor
COPY worker worker
COPY producer producer
# Then without what no role of ours runs: the tests of others' packages.
RUN pip install --no-deps --no-build-isolation --force-reinstall . \
    && find /opt/app/lib -type d -name tests -prune -exec rm -rf {} +

FROM python:${PYTHON_VERSION}-slim
RUN useradd --uid 10001 --create-home app \
    && install --directory --owner app --group app /artifacts /data
COPY --from=build /opt/app /opt/app
ENV PATH=/opt/app/bin:$PATH PYTHONUNBUFFERED=1 GIT_PYTHON_REFRESH=quiet
USER app
WORKDIR /home/app
# The program itself is the container's first process, so that SIGTERM reaches it: Celery's warm shutdown.
CMD ["celery", "-A", "worker", "worker"]
