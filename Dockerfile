# The three images, each one static program and nothing else:
#
#   docker build --target gauze-proxy -t REGISTRY/gauze-proxy:0.1.0 .
#   docker build --target gauze-control-plane -t REGISTRY/gauze-control-plane:0.1.0 .
#   docker build --target gauze -t REGISTRY/gauze:0.1.0 .
#
# What the final stages say stands in tests/rig/images.json too, from which the test rig makes the same
# images without a builder; a test compares the two.

FROM rust:1.95.0-bookworm AS build
WORKDIR /source
COPY . .
# `dist` is what is published: whole-program optimised. `release` compiles in a third of the time.
ARG PROFILE=dist
# .cargo/static.sh links each program statically. The caches are the builder's, so the programs are copied out.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/source/target \
    cargo build --locked --profile "$PROFILE" --bins \
    && mkdir /programs \
    && cp target/"$PROFILE"/gauze target/"$PROFILE"/gauze-proxy target/"$PROFILE"/gauze-control-plane /programs/

FROM scratch AS gauze-proxy
COPY --from=build /programs/gauze-proxy /gauze-proxy
LABEL org.opencontainers.image.title="gauze-proxy"
LABEL org.opencontainers.image.description="The sidecar of gauze, and the init step that programs its redirect"
LABEL org.opencontainers.image.licenses="Apache-2.0"
LABEL org.opencontainers.image.version="0.1.0"
USER 1337:1337
ENTRYPOINT ["/gauze-proxy"]

FROM scratch AS gauze-control-plane
COPY --from=build /programs/gauze-control-plane /gauze-control-plane
LABEL org.opencontainers.image.title="gauze-control-plane"
LABEL org.opencontainers.image.description="The control plane of gauze: configuration, certificates, injection"
LABEL org.opencontainers.image.licenses="Apache-2.0"
LABEL org.opencontainers.image.version="0.1.0"
USER 65532:65532
ENTRYPOINT ["/gauze-control-plane"]

FROM scratch AS gauze
COPY --from=build /programs/gauze /gauze
LABEL org.opencontainers.image.title="gauze"
LABEL org.opencontainers.image.description="The command line of gauze, and the apps of its sample shop"
LABEL org.opencontainers.image.licenses="Apache-2.0"
LABEL org.opencontainers.image.version="0.1.0"
USER 65532:65532
ENTRYPOINT ["/gauze"]
