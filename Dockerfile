# The image of agent and control: the one binary, and what it is linked to. No shell, no package
# manager. `cargo xtask image` builds it.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# A compiler for the eBPF programs, and a linker for its LLVM.
RUN cargo xtask setup --build
RUN cargo build --release --locked --package ambit --bin ambit

# glibc (libm with it) and libgcc are all that the binary links to, as a test sees: `cc` has them, of
# the same release of Debian as the stage above. Not musl, with which nothing here is tested.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/ambit /usr/bin/ambit
ENTRYPOINT ["/usr/bin/ambit"]
