# The exporter for linux/amd64 and linux/arm64, for which all packages have wheels: nothing is compiled.
# A release names the base by its digest (`make release-image`); docs/releasing.md says how to find and update it.
ARG BASE=docker.io/library/python:3.13-slim

FROM ${BASE} AS build
COPY requirements.txt /
RUN pip install --no-cache-dir --no-compile --root-user-action=ignore --only-binary=:all: --require-hashes \
    --target=/app --requirement=/requirements.txt
COPY exporter /app/exporter
COPY dashboards/*.json /app/exporter/data/
COPY dashboards/rules/*.yaml /app/exporter/data/rules/
ARG REVISION=unknown
RUN if [ "${REVISION}" != unknown ]; then \
        printf '"""The commit that this program was built from."""\n\nREVISION = "%s"\n' "${REVISION}" \
            >/app/exporter/revision.py; \
    fi && \
    python -m compileall -q --invalidation-mode unchecked-hash /app

FROM ${BASE}
# Nothing is installed into a running container.
RUN rm -rf /usr/local/lib/python3*/site-packages/pip* /usr/local/lib/python3*/ensurepip /usr/local/bin/pip*
COPY --from=build /app /app
ENV PYTHONPATH=/app \
    PYTHONSAFEPATH=1
# For `kubectl exec POD -- proc-connector-exporter watch`.
RUN printf '#!/bin/sh\nexec python -m exporter "$@"\n' >/usr/local/bin/proc-connector-exporter && \
    chmod 755 /usr/local/bin/proc-connector-exporter
# The base image has no compiled files, and a read-only root could keep none: start once, and what is imported of the
# standard library is compiled. Without it every start would take three times as long.
RUN python -c "import exporter.app, exporter.watch.command" && python -m exporter --version
ARG REVISION=unknown
ARG VERSION=unknown
ARG BASE
LABEL org.opencontainers.image.title="proc-connector-exporter" \
      org.opencontainers.image.description="Prometheus exporter of process life: every fork, exec, exit and non-zero exit, counted from the kernel's process connector." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}"
EXPOSE 10061
# Enough from Linux 6.6 on. For exact names: --user=0 --cap-drop=ALL with NET_ADMIN, PERFMON, SETUID and SETGID added, and
# the exporter's own --user=65534.
USER 65534
ENTRYPOINT ["python", "-m", "exporter"]
