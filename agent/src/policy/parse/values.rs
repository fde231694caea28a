//! Values that manifests write as strings, checked while they are read so that an error knows
//! their path.

use std::{
    collections::BTreeMap,
    fmt,
    marker::PhantomData,
    net::{IpAddr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net};
use jiff::Timestamp;
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::policy::model::{MtlsMode, Pattern, Selector};

/// A value with a textual form.
pub(super) trait Readable: Sized {
    /// Completes "expected ...".
    const EXPECTED: &'static str;

    /// Reads the value; the error says what was found and what to write.
    fn read(text: &str) -> Result<Self, String>;
}

/// A string that holds a `T`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Text<T>(pub(super) T);

impl<'de, T: Readable> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);
        impl<T: Readable> Visitor<'_> for Reader<T> {
            type Value = Text<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::EXPECTED)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                T::read(text).map(Text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Reader(PhantomData))
    }
}

/// A struct, read from an object alone: as derived, a list of its fields in their order would do
/// too.
#[derive(Debug, Default)]
pub(super) struct Fields<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Fields<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
            type Value = Fields<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("named fields")
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(fields)).map(Fields)
            }
        }
        deserializer.deserialize_map(Reader(PhantomData))
    }
}

/// A field that may be absent and may not be null: `action:` with nothing behind it is a slip, and
/// would mean ALLOW.
pub(super) fn not_null<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// A list that must have something in it if it is there at all.
#[derive(Debug)]
pub(super) struct List<T>(pub(super) Vec<T>);

impl<T> List<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T> List<Text<T>> {
    pub(super) fn values(self) -> Vec<T> {
        self.0.into_iter().map(|Text(value)| value).collect()
    }
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let items = Vec::deserialize(deserializer)?;
        if items.is_empty() {
            return Err(D::Error::custom(
                "the list is empty, which would be no constraint at all: \
                 list something, or leave the field out",
            ));
        }
        Ok(Self(items))
    }
}

impl Readable for String {
    const EXPECTED: &'static str = "a string that isn't empty";

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("the string is empty: write a value, or leave the field out".to_owned());
        }
        Ok(text.to_owned())
    }
}

impl Readable for bool {
    const EXPECTED: &'static str = "\"true\" or \"false\", in quotes";

    fn read(text: &str) -> Result<Self, String> {
        text.parse()
            .map_err(|_| format!("{text:?} is neither \"true\" nor \"false\""))
    }
}

impl Readable for Timestamp {
    const EXPECTED: &'static str = "a time such as \"2026-01-31T12:00:00Z\"";

    fn read(text: &str) -> Result<Self, String> {
        text.parse()
            .map_err(|error| format!("{text:?} is not a time as in RFC 3339: {error}"))
    }
}

/// A port. It has one spelling, so that two keys of a map can't mean the same port.
impl Readable for u16 {
    const EXPECTED: &'static str = "a port in quotes, such as \"8080\"";

    fn read(text: &str) -> Result<Self, String> {
        let canonical = text.starts_with(|c: char| matches!(c, '1'..='9'));
        text.parse()
            .ok()
            .filter(|_| canonical)
            .ok_or_else(|| format!("{text:?} is not a port: write a number from 1 to 65535"))
    }
}

impl Readable for IpNet {
    const EXPECTED: &'static str = "an address or a CIDR, such as \"10.0.0.0/8\"";

    fn read(text: &str) -> Result<Self, String> {
        let network = if text.contains('/') {
            text.parse().ok()
        } else {
            text.parse::<IpAddr>().ok().map(IpNet::from)
        };
        network.map(canonical).ok_or_else(|| {
            format!(
                "{text:?} is neither an address nor a CIDR: \
                 write for example 10.1.2.3, 10.0.0.0/8 or fd00::/8"
            )
        })
    }
}

/// IPv4 written as `::ffff:a.b.c.d/96+n` is IPv4, as it is in packets.
fn canonical(network: IpNet) -> IpNet {
    const MAPPED_BITS: u8 = 96;
    let mapped = |address: Ipv6Addr| address.to_ipv4_mapped();
    match network {
        IpNet::V6(v6) => v6
            .prefix_len()
            .checked_sub(MAPPED_BITS)
            .zip(mapped(v6.network()))
            .and_then(|(length, address)| Ipv4Net::new(address, length).ok())
            .map_or(network, IpNet::V4),
        IpNet::V4(_) => network,
    }
    .trunc()
}

impl Readable for Pattern {
    const EXPECTED: &'static str = "a string such as \"abc\", \"abc*\", \"*abc\" or \"*\"";

    fn read(text: &str) -> Result<Self, String> {
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(format!(
                "{text:?} would never match: take the white space out"
            ));
        }
        Self::of(text)
    }
}

impl Pattern {
    /// Whatever is in it.
    pub(super) fn of(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("the string is empty: write a value, or leave the field out".to_owned());
        }
        let pattern = match (text.strip_prefix('*'), text.strip_suffix('*')) {
            (Some(""), _) => Self::Present,
            (Some(suffix), _) => Self::Suffix(suffix.to_owned()),
            (None, Some(prefix)) => Self::Prefix(prefix.to_owned()),
            (None, None) => Self::Exact(text.to_owned()),
        };
        match &pattern {
            Self::Exact(rest) | Self::Prefix(rest) | Self::Suffix(rest) if rest.contains('*') => {
                Err(format!(
                    "{text:?} would never match: * may stand at the beginning or at the end, \
                     and once"
                ))
            }
            _ => Ok(pattern),
        }
    }
}

/// A pattern for SPIFFE ids, which policies write without their scheme.
#[derive(Debug)]
pub(super) struct Principal(pub(super) Pattern);

impl Readable for Principal {
    const EXPECTED: &'static str =
        "a principal such as \"cluster.local/ns/default/sa/web\", \"*/sa/web\" or \"*\"";

    fn read(text: &str) -> Result<Self, String> {
        match text.strip_prefix("spiffe://") {
            Some(rest) => Err(format!("{text:?} would never match: write {rest:?}")),
            None => Pattern::read(text).map(Self),
        }
    }
}

/// `namespace/name`, or `name` for one of the policy's own namespace.
#[derive(Debug)]
pub(super) struct AccountName {
    pub(super) namespace: Option<String>,
    pub(super) name: String,
}

impl Readable for AccountName {
    const EXPECTED: &'static str = "a service account such as \"default/web\" or \"web\"";

    fn read(text: &str) -> Result<Self, String> {
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, text),
        };
        let valid = |part: &str| {
            let odd = |c: char| matches!(c, '/' | '*') || c.is_whitespace() || c.is_control();
            !part.is_empty() && !part.contains(odd)
        };
        if !valid(name) || !namespace.is_none_or(valid) {
            return Err(format!(
                "{text:?} is not a service account: write namespace/name or name, \
                 without wildcards"
            ));
        }
        Ok(Self {
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
        })
    }
}

impl Readable for MtlsMode {
    const EXPECTED: &'static str = "a mode such as \"STRICT\"";

    fn read(text: &str) -> Result<Self, String> {
        [Self::Unset, Self::Disable, Self::Permissive, Self::Strict]
            .into_iter()
            .find(|mode| mode.to_string() == text)
            .ok_or_else(|| {
                format!("{text:?} is not a mode: write UNSET, DISABLE, PERMISSIVE or STRICT")
            })
    }
}

/// `selector`, as both kinds have it.
#[derive(Deserialize, Debug, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct SelectorField {
    #[serde(default)]
    match_labels: BTreeMap<Text<LabelKey>, Text<LabelValue>>,
}

impl From<SelectorField> for Selector {
    fn from(field: SelectorField) -> Self {
        let labels = field.match_labels.into_iter();
        Self(labels.map(|(key, value)| (key.0.0, value.0.0)).collect())
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct LabelKey(String);

impl Readable for LabelKey {
    const EXPECTED: &'static str = "a label";

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a label without a name: write its name".to_owned());
        }
        LabelValue::read(text).map(|LabelValue(key)| Self(key))
    }
}

/// May be empty, as the values of labels may.
#[derive(Debug)]
struct LabelValue(String);

impl Readable for LabelValue {
    const EXPECTED: &'static str = "the value of a label, in quotes if it is a number";

    fn read(text: &str) -> Result<Self, String> {
        if text.contains('*') {
            return Err(format!(
                "{text:?}: labels take no wildcards, write it in full"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}
