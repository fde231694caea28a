//! Texts with placeholders: `{name}`, of lower-case letters, digits and `_` alone.

use std::path::Path;

use serde_json::{Value, json};

use super::{
    INBOUND_PORT, OUTBOUND_PORT, USER,
    adapter::Adapter,
    rules::{INBOUND_SOURCE_V4, INBOUND_SOURCE_V6},
};
use crate::{Family, Pod, plan::Prefix};

/// Every name that has a value in a configuration. A command line has `configuration` as well.
pub(super) const NAMES: [&str; 17] = [
    "name",
    "identity",
    "app_address",
    "inbound_port",
    "outbound_port",
    "ready_port",
    "inbound_source_v4",
    "inbound_source_v6",
    "uid",
    "gid",
    "certificate",
    "key",
    "certificate_and_key",
    "ca",
    "mesh_networks_v4",
    "mesh_networks_v6",
    "mesh_prefix_ranges",
];
/// The file of the configuration.
pub(super) const CONFIGURATION: &str = "configuration";

/// What stands for placeholders in one pod.
#[derive(Debug)]
pub(super) struct Values {
    /// In the order of [`NAMES`].
    values: [String; NAMES.len()],
    configuration: String,
}

impl Values {
    /// For a pod whose files are in `directory`, under the names of the placeholders.
    pub(super) fn new(pod: &Pod, adapter: &Adapter, identity: &str, directory: &Path) -> Self {
        let file = |name: &str| directory.join(name).display().to_string();
        let networks = mesh_networks();
        let of_family = |v4: bool| {
            let own = networks.iter().filter(|own| own.address.is_ipv4() == v4);
            own.map(Prefix::to_string).collect::<Vec<_>>().join(" ")
        };
        let ranges: Vec<_> = networks
            .iter()
            .map(|own| json!({ "address_prefix": own.address, "prefix_len": own.length }))
            .collect();
        Self {
            values: [
                pod.name().to_owned(),
                identity.to_owned(),
                pod.address().to_string(),
                INBOUND_PORT.to_string(),
                OUTBOUND_PORT.to_string(),
                adapter.ready.port.to_string(),
                INBOUND_SOURCE_V4.to_owned(),
                INBOUND_SOURCE_V6.to_owned(),
                USER.to_string(),
                USER.to_string(),
                file("certificate"),
                file("key"),
                file("certificate_and_key"),
                file("ca"),
                of_family(true),
                of_family(false),
                Value::from(ranges).to_string(),
            ],
            configuration: file(CONFIGURATION),
        }
    }

    /// The value of a placeholder.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        if name == CONFIGURATION {
            return Some(&self.configuration);
        }
        let index = NAMES.iter().position(|known| *known == name)?;
        Some(&self.values[index])
    }
}

/// Where pods and services are, in every lab.
fn mesh_networks() -> Vec<Prefix> {
    let services = Family::Dual.service(0).into_iter().map(|address| Prefix {
        address,
        length: if address.is_ipv4() { 16 } else { 112 },
    });
    Family::Dual.pods().into_iter().chain(services).collect()
}

/// Puts values in the place of placeholders. Braces around anything else stay as they are, for
/// many a configuration language has its own use for them.
///
/// # Errors
/// The name of the first placeholder that has no value.
pub(super) fn fill<'a>(
    text: &str,
    value: impl Fn(&str) -> Option<&'a str>,
) -> Result<String, String> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        let (before, after) = rest.split_at(open + 1);
        let length = after.find(|c: char| !is_of_name(c)).unwrap_or(after.len());
        let (name, behind) = after.split_at(length);
        match behind.strip_prefix('}') {
            Some(behind) if !name.is_empty() => {
                filled += &before[..open];
                filled += value(name).ok_or_else(|| name.to_owned())?;
                rest = behind;
            }
            _ => {
                filled += before;
                rest = after;
            }
        }
    }
    Ok(filled + rest)
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn placeholders_are_filled_and_other_braces_stay() {
        let table = [
            ("a {uid} b{uid}", Ok("a 1337 b1337")),
            ("if { dst_port {uid} }", Ok("if { dst_port 1337 }")),
            ("{ \"a\": {uid}, b: {} }", Ok("{ \"a\": 1337, b: {} }")),
            ("{{uid}}", Ok("{1337}")),
            ("{uid", Ok("{uid")),
            ("{", Ok("{")),
            ("", Ok("")),
            ("{Uid}", Ok("{Uid}")),
            ("ü{uid}ü", Ok("ü1337ü")),
            ("{uid} {user_1}", Err("user_1")),
        ];
        for (text, expected) in table {
            let filled = fill(text, |name| (name == "uid").then_some("1337"));
            assert_eq!(
                filled.as_deref().map_err(String::as_str),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn values_are_not_filled_again() {
        let filled = fill("{a}", |_| Some("{a}"));
        assert_eq!(filled.as_deref(), Ok("{a}"));
    }

    proptest! {
        #[test]
        fn only_placeholders_change(text in "[{}a-b ü]{0,40}") {
            let filled = fill(&text, |_| Some("?")).unwrap();
            // Each `?` stands for a placeholder; nothing else is gone or new.
            let mut rest = text.as_str();
            for (number, kept) in filled.split('?').enumerate() {
                if number > 0 {
                    let end = rest.find('}').unwrap();
                    let mut inside = rest[1..end].chars();
                    prop_assert_eq!(&rest[..1], "{");
                    prop_assert!(inside.all(is_of_name));
                    rest = &rest[end + 1..];
                }
                rest = rest.strip_prefix(kept).unwrap();
            }
            prop_assert_eq!(rest, "");
        }
    }
}
