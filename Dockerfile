# The exporter for linux/amd64 and linux/arm64, for which all packages have wheels: nothing is compiled.
ARG PYTHON_VERSION=3.13

FROM python:${PYTHON_VERSION}-slim AS build
COPY requirements.txt /
RUN pip install --no-cache-dir --no-compile --root-user-action=ignore --only-binary=:all: --require-hashes \
    --target=/app --requirement=/requirements.txt
COPY exporter /app/exporter
RUN python -m compileall -q --invalidation-mode unchecked-hash /app

FROM python:${PYTHON_VERSION}-slim
ARG REVISION=unknown
LABEL org.opencontainers.image.title="proc-connector-exporter" \
      org.opencontainers.image.description="Prometheus exporter of process life: every fork, exec, exit and non-zero exit, counted from the kernel's process connector." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /app /app
ENV PYTHONPATH=/app \
    PYTHONSAFEPATH=1
# The base image has no compiled files, and a read-only root could keep none: start once, and what is imported of the
# standard library is compiled. Without it every start would take three times as long.
RUN python -m exporter --version
EXPOSE 10061
# Enough from Linux 6.6 on. For exact names: --user=0 --cap-drop=ALL with NET_ADMIN, PERFMON, SETUID and SETGID added, and
# the exporter's own --user=65534.
USER 65534
ENTRYPOINT ["python", "-m", "exporter"]
