# The same image as `make image`, for those who have Docker: a static binary and nothing else.
FROM rust:1-slim-bookworm AS build
WORKDIR /source
COPY . .
# Linking and the build scripts of the TLS library want a C compiler.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev make && rm -rf /var/lib/apt/lists/*
# .cargo/config.toml sets the target (this machine's) and the static linking.
RUN cargo build --release --locked --bin pullguard && cp target/*/release/pullguard /pullguard

FROM scratch
COPY --from=build /pullguard /pullguard
USER 65532:65532
ENTRYPOINT ["/pullguard"]
