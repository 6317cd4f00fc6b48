# esproxy in an image of one static binary: no shell, no package manager, no embedded demo node.
#
#   docker build -t esproxy .
#   docker run --rm esproxy keygen
#
# Run it read-only, without capabilities and without swap, as docker-compose.yml does.

ARG GO_VERSION=1.26

FROM golang:${GO_VERSION} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
# nodevnode leaves the embedded node out: an image is for production.
RUN CGO_ENABLED=0 go build -trimpath -tags nodevnode -ldflags='-s -w' -o /out/esproxy ./cmd/esproxy \
    && mkdir /out/state

FROM scratch
LABEL org.opencontainers.image.title="esproxy" \
      org.opencontainers.image.description="Reverse proxy that seals fields on their way into Elasticsearch" \
      org.opencontainers.image.source="https://github.com/esproxy/esproxy" \
      org.opencontainers.image.documentation="https://github.com/esproxy/esproxy/blob/main/README.md" \
      org.opencontainers.image.licenses="Apache-2.0"

# Authorities for TLS to Elasticsearch and to the source of ingest. Time zones are inside the binary.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt

COPY --from=build /out/esproxy /esproxy
# A policy to begin with. Mount your own folder over /config: a reload then sees changed files.
COPY config/fields.yaml config/ingest.yaml /config/
# For checkpoints and dead letters of ingest; a volume mounted here takes over the owner.
COPY --from=build --chown=65532:65532 /out/state /state

WORKDIR /
# A number, so that runAsNonRoot can be checked without /etc/passwd.
USER 65532:65532
# Loopback is no use in a container. Grants are refused on this address until it has TLS, or until
# ESPROXY_ALLOW_PLAIN_GRANTS says that the network is private. The admin listener stays on loopback.
ENV ESPROXY_LISTEN=0.0.0.0:9280
EXPOSE 9280

HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["/esproxy", "healthcheck"]
ENTRYPOINT ["/esproxy"]
CMD ["serve"]
