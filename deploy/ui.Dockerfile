# The web page's image. The build context is the repository; deploy/ui.Dockerfile.dockerignore says what of it is seen.
ARG PYTHON=3.11.14-slim-bookworm

FROM python:${PYTHON} AS install
ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_PYTHON_DOWNLOADS=never
RUN pip install --no-cache-dir uv==0.13.9 \
    && uv venv --python "$(command -v python3.11)" /opt/venv
COPY requirements-ui.lock /tmp/requirements.lock
RUN uv pip sync --python /opt/venv/bin/python --require-hashes --only-binary :all: /tmp/requirements.lock

FROM python:${PYTHON}
ARG VERSION=0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="product-photo-detector-ui" \
      org.opencontainers.image.description="The web page of the product photo detector" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN pip uninstall --yes --quiet setuptools wheel pip \
    && groupadd --gid 1034 bentoml \
    && useradd --uid 1034 --gid bentoml --no-log-init --no-create-home --home-dir /tmp --shell /usr/sbin/nologin bentoml
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
COPY --from=install /opt/venv /opt/venv
WORKDIR /app
COPY detector detector
COPY gradio_app gradio_app
USER 1034:1034
EXPOSE 7860
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=4 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://localhost:7860/', timeout=4).close()"]
ENTRYPOINT ["python", "-m", "gradio_app", "--host", "0.0.0.0", "--port", "7860"]
