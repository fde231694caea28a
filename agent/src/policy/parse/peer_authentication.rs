//! The spec of a PeerAuthentication.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

use super::values::{Fields, SelectorField, Text, not_null};
use crate::{
    discovery::model::ObjectName,
    policy::model::{MtlsMode, PeerAuthentication, Selector},
};

/// A spec in which every value is good by itself and with its neighbours.
#[derive(Deserialize, Default)]
#[serde(try_from = "Fields<SpecFields>")]
pub(super) struct Spec {
    selector: Selector,
    mode: MtlsMode,
    ports: BTreeMap<u16, MtlsMode>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SpecFields {
    #[serde(default)]
    selector: Fields<SelectorField>,
    #[serde(default)]
    mtls: Fields<MtlsFields>,
    #[serde(default)]
    port_level_mtls: BTreeMap<Text<u16>, Fields<MtlsFields>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct MtlsFields {
    #[serde(default, deserialize_with = "not_null")]
    mode: Option<Text<MtlsMode>>,
}

impl MtlsFields {
    fn mode(self) -> MtlsMode {
        self.mode.map_or(MtlsMode::Unset, |Text(mode)| mode)
    }
}

impl TryFrom<Fields<SpecFields>> for Spec {
    type Error = &'static str;

    fn try_from(Fields(fields): Fields<SpecFields>) -> Result<Self, Self::Error> {
        let selector = Selector::from(fields.selector.0);
        if selector.is_empty() && !fields.port_level_mtls.is_empty() {
            return Err("portLevelMtls needs a selector: \
                        add matchLabels that select the workloads whose ports these are");
        }
        let ports = fields.port_level_mtls.into_iter();
        Ok(Self {
            selector,
            mode: fields.mtls.0.mode(),
            ports: ports
                .map(|(Text(port), Fields(mtls))| (port, mtls.mode()))
                .collect(),
        })
    }
}

impl Spec {
    pub(super) fn policy(self, name: ObjectName, created: Option<Timestamp>) -> PeerAuthentication {
        PeerAuthentication {
            name,
            selector: self.selector,
            mode: self.mode,
            ports: self.ports,
            created,
        }
    }
}
