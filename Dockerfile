# The image of agent and control: the one binary, and what it is linked to. No shell, no package
# manager. `cargo xtask image` builds it.
FROM rust:1.95-bookworm AS build
WORKDIR /src
# A compiler for the eBPF programs and a linker for its LLVM, before the sources: they stay in a
# layer of their own. Cargo wants the manifests of all members of the workspace, and a target in each.
COPY . .
RUN cargo xtask setup --build
RUN cargo build --release --locked --package ambit --bin ambit

# glibc, libgcc and libm are all that the binary links to: `cc` has them, in the build stage's
# release of Debian. Not musl: the eBPF toolchain and AWS-LC are built with glibc here and tested so.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/ambit /usr/bin/ambit
ENTRYPOINT ["/usr/bin/ambit"]
