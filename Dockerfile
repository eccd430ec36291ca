# The studio in a container, for CPUs; --build-arg EXTRAS=studio,cuda makes the one for NVIDIA's GPUs: docs/serving.md.
# All that is written lies below /data, so that the root may be read-only; nothing runs as root.
FROM python:3.12-slim-bookworm

ARG EXTRAS=studio
WORKDIR /opt/th_jax
COPY . .
RUN pip install --no-cache-dir -c constraints.txt -e ".[${EXTRAS}]" && \
    install --directory --owner=10001 --group=10001 /data

USER 10001:10001
WORKDIR /data
# JAX asks for the user's name to write its cache, and the number above has none.
ENV HOME=/data TMPDIR=/data XDG_CACHE_HOME=/data/cache PYTHONDONTWRITEBYTECODE=1 USER=studio
VOLUME /data
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/health/live', timeout=5)"]
ENTRYPOINT ["th-jax"]
CMD ["studio", "--host", "0.0.0.0", "--folder", "/data/studio", "--users", "/data/users.json", "--workers", "1"]
