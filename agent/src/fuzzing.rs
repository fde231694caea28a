//! Fuzz targets: for every parser that somebody else's bytes reach, what must hold whatever they are.
//!
//! `cargo xtask fuzz` has libFuzzer call them. The unit tests call them too, with the corpora and with what
//! proptest makes of those, so that each is known to hold, and to end, before anybody fuzzes. They panic where a
//! property is violated. The properties themselves (`check` of each module) are also those of the parsers' own
//! property tests.

mod choices;
pub(crate) mod headers;
mod hello;
pub(crate) mod identity;
mod kernel;
pub(crate) mod manifest;
pub(crate) mod path;
mod routes;
mod spoken;
#[cfg(test)]
mod tests;
mod tokens;

use self::choices::Choices;

/// One parser, or several that read the same.
#[derive(Debug)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Checks one input.
    ///
    /// # Panics
    /// If what must hold doesn't.
    pub run: fn(&[u8]),
}

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run }
}

/// All of them, those first whose mistakes would cost most.
pub const TARGETS: [Target; 16] = [
    target("routes", routes::run),
    target("path", path::run),
    target("spoken", spoken::run),
    target("authority", headers::authority),
    target("headers", headers::run),
    target("frame", headers::frame),
    target("spiffe", identity::spiffe),
    target("certificate", identity::certificate),
    target("request", identity::request),
    target("token", tokens::token),
    target("jwks", tokens::jwks),
    target("manifest", manifest::run),
    target("policy", manifest::policy),
    target("trace", headers::trace),
    target("btf", kernel::btf),
    target("hello", hello::run),
];
