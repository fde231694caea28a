//! What a proxy needs to be told, as a file says it: `deploy/bench/example.yaml` has every field.

use std::{collections::BTreeMap, fs, io, path::Path};

use serde::Deserialize;

use super::template::{self, CONFIGURATION};
use crate::lab::check_name;

/// The adapters that come with the benchmark, with their file names.
const HAPROXY: &str = include_str!("../../../deploy/bench/haproxy.yaml");
const HAPROXY_HTTP: &str = include_str!("../../../deploy/bench/haproxy-http.yaml");
const ENVOY: &str = include_str!("../../../deploy/bench/envoy.yaml");
/// Whose names no other adapter may have: reports would show one for the other.
const BUILT_IN: [&str; 4] = ["haproxy", "haproxy-http", "envoy", "linkerd"];

/// How to start and configure a proxy as a sidecar.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adapter {
    name: String,
    pub(super) command: Vec<String>,
    #[serde(default)]
    pub(super) environment: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) user: User,
    #[serde(default)]
    pub(super) ipv6: bool,
    #[serde(default)]
    pub(super) http: bool,
    pub(super) ready: Ready,
    #[serde(default)]
    pub(super) configuration: String,
}

/// Who the proxy is when it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum User {
    /// The proxies' own uid and gid.
    #[default]
    Proxy,
    /// Root: it changes to the proxies' uid and gid by itself.
    Root,
}

/// How the proxy tells that it is ready.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ready {
    /// It accepts connections on it.
    pub(super) port: u16,
    /// It answers GET for it with status 200.
    pub(super) path: Option<String>,
}

/// What is wrong with an adapter file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be read.
    #[error("{file}: {source}: name a readable file, as deploy/bench/example.yaml")]
    Read {
        /// The file.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// It isn't YAML, or a field is missing, unknown or of another type.
    #[error("{file}: {field}: {cause}: compare with deploy/bench/example.yaml")]
    Syntax {
        /// The file.
        file: String,
        /// The field, `.` for the whole.
        field: String,
        /// What the parser said.
        cause: String,
    },
    /// A field's value can't be used.
    #[error("{file}: {field}: {cause}: {cure}")]
    Value {
        /// The file.
        file: String,
        /// The field.
        field: &'static str,
        /// What is wrong.
        cause: String,
        /// What to write instead.
        cure: String,
    },
}

impl Adapter {
    /// Reads an adapter file.
    ///
    /// # Errors
    /// Names file, field and cure.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let file = path.display().to_string();
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&file, &text),
            Err(source) => Err(Error::Read { file, source }),
        }
    }

    /// Checks the text of an adapter file; `file` is its name in errors.
    ///
    /// # Errors
    /// Names file, field and cure.
    pub fn parse(file: &str, text: &str) -> Result<Self, Error> {
        let adapter = Self::parse_any(file, text)?;
        if BUILT_IN.contains(&adapter.name.as_str()) {
            return Err(Error::Value {
                file: file.into(),
                field: "name",
                cause: format!("{:?} is the benchmark's own", adapter.name),
                cure: "take another".into(),
            });
        }
        Ok(adapter)
    }

    /// Its name; the mode is `sidecar-<name>`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The program that is started.
    pub(super) fn program(&self) -> &str {
        &self.command[0]
    }

    fn parse_any(file: &str, text: &str) -> Result<Self, Error> {
        let document = serde_norway::Deserializer::from_str(text);
        let adapter: Self =
            serde_path_to_error::deserialize(document).map_err(|error| Error::Syntax {
                file: file.into(),
                field: error.path().to_string(),
                cause: error.inner().to_string(),
            })?;
        adapter
            .check()
            .map_err(|(field, cause, cure)| Error::Value {
                file: file.into(),
                field,
                cause,
                cure,
            })?;
        Ok(adapter)
    }

    /// Field, cause and cure of the first thing that is wrong.
    fn check(&self) -> Result<(), (&'static str, String, String)> {
        if check_name("proxy", &self.name).is_err() {
            let cure = "use 1 to 40 of a-z, 0-9 and -".into();
            return Err(("name", format!("{:?} is unfit", self.name), cure));
        }
        if self.command.first().is_none_or(String::is_empty) {
            let cure = "begin with the program, as in [haproxy, -db]".into();
            return Err(("command", "no program is named".into(), cure));
        }
        if [0, super::INBOUND_PORT, super::OUTBOUND_PORT].contains(&self.ready.port) {
            let cure = "take another, such as 15021".into();
            return Err(("ready.port", format!("{} is taken", self.ready.port), cure));
        }
        if self.ready.path.as_ref().is_some_and(|path| {
            !path.starts_with('/') || path.contains(|c: char| c.is_ascii_control() || c == ' ')
        }) {
            let cure = "write one that begins with / and has no space".into();
            return Err(("ready.path", "it is no path of HTTP".into(), cure));
        }
        let outside = self.command.iter().map(|text| ("command", text, true));
        let environment = self
            .environment
            .values()
            .map(|text| ("environment", text, true));
        let inside = [("configuration", &self.configuration, false)];
        for (field, text, names_file) in outside.chain(environment).chain(inside) {
            let known = |name: &str| {
                let known = template::NAMES.contains(&name) || names_file && name == CONFIGURATION;
                known.then_some("")
            };
            if let Err(name) = template::fill(text, known) {
                let cause = format!("there is no placeholder {{{name}}}");
                let cure = format!("take one of {}", template::NAMES.join(", "));
                return Err((field, cause, cure));
            }
        }
        Ok(())
    }
}

/// HAProxy's adapter.
pub(super) fn haproxy() -> Adapter {
    built_in("haproxy.yaml", HAPROXY)
}

/// HAProxy's adapter for requests.
pub(super) fn haproxy_http() -> Adapter {
    built_in("haproxy-http.yaml", HAPROXY_HTTP)
}

/// Envoy's adapter.
pub(super) fn envoy() -> Adapter {
    built_in("envoy.yaml", ENVOY)
}

fn built_in(file: &str, text: &str) -> Adapter {
    match Adapter::parse_any(file, text) {
        Ok(adapter) => adapter,
        Err(error) => {
            unreachable!("the tests parse this file, which is part of the program: {error}")
        }
    }
}

#[cfg(test)]
mod tests;
