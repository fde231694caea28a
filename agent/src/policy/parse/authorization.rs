//! The spec of an AuthorizationPolicy.

use std::sync::Arc;

use ipnet::IpNet;
use serde::Deserialize;

use super::{
    condition::When,
    http::Method,
    target::{Reference, target},
    values::{AccountName, Fields, List, Principal, Readable, SelectorField, Text, not_null},
};
use crate::{
    discovery::model::ObjectName,
    policy::model::{
        Action, AuthorizationPolicy, Condition, Criteria, HostPattern, Operation, PathPattern,
        Pattern, Rule, ServiceAccount, Source, Target,
    },
};

/// A spec in which every value is good by itself and with its neighbours.
#[derive(Deserialize)]
#[serde(try_from = "Fields<SpecFields>")]
pub(super) struct Spec {
    target: Target,
    action: Action,
    rules: Vec<Fields<RuleFields>>,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            target: Target::Workloads(<_>::default()),
            action: Action::Allow,
            rules: Vec::new(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SpecFields {
    #[serde(default, deserialize_with = "not_null")]
    selector: Option<Fields<SelectorField>>,
    #[serde(default, deserialize_with = "not_null")]
    target_ref: Option<Reference>,
    #[serde(default)]
    target_refs: List<Reference>,
    #[serde(default, deserialize_with = "not_null")]
    action: Option<Text<Action>>,
    #[serde(default)]
    rules: Vec<Fields<RuleFields>>,
}

impl TryFrom<Fields<SpecFields>> for Spec {
    type Error = &'static str;

    fn try_from(Fields(fields): Fields<SpecFields>) -> Result<Self, Self::Error> {
        Ok(Self {
            target: target(fields.selector, fields.target_ref, fields.target_refs)?,
            action: fields.action.map_or(Action::Allow, |Text(action)| action),
            rules: fields.rules,
        })
    }
}

impl Spec {
    pub(super) fn policy(self, name: ObjectName, dry_run: bool) -> AuthorizationPolicy {
        let rules = self.rules.into_iter();
        AuthorizationPolicy {
            action: self.action,
            target: self.target,
            rules: rules
                .map(|Fields(rule)| rule.rule(&name.namespace))
                .collect(),
            name,
            dry_run,
        }
    }
}

impl Readable for Action {
    const EXPECTED: &'static str = "an action such as \"DENY\"";

    fn read(text: &str) -> Result<Self, String> {
        if text == "CUSTOM" {
            return Err("CUSTOM asks an external service, which is not supported: \
                        write ALLOW or DENY"
                .to_owned());
        }
        [Self::Allow, Self::Deny, Self::Audit]
            .into_iter()
            .find(|action| action.to_string() == text)
            .ok_or_else(|| format!("{text:?} is not an action: write ALLOW, DENY or AUDIT"))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFields {
    #[serde(default)]
    from: List<Fields<FromFields>>,
    #[serde(default)]
    to: List<Fields<ToFields>>,
    #[serde(default)]
    when: List<When>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FromFields {
    source: CheckedSource,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToFields {
    operation: CheckedOperation,
}

impl RuleFields {
    /// `own` is the policy's namespace.
    fn rule(self, own: &Arc<str>) -> Rule {
        let mut rule = Rule::default();
        for (index, Fields(FromFields { source })) in self.from.0.into_iter().enumerate() {
            let http = source.http_fields();
            rule.http_fields
                .extend(http.map(|field| format!("from[{index}].source.{field}")));
            rule.from.push(source.source(own));
        }
        for (index, Fields(ToFields { operation })) in self.to.0.into_iter().enumerate() {
            let http = operation.http_fields();
            rule.http_fields
                .extend(http.map(|field| format!("to[{index}].operation.{field}")));
            rule.to.push(operation.operation());
        }
        for (index, when) in self.when.0.into_iter().enumerate() {
            match when {
                When::Plain(condition) => rule.when.push(condition),
                When::ServiceAccount(names) => rule
                    .when
                    .push(Condition::SourceServiceAccount(accounts(names, own))),
                When::Http(key, condition) => {
                    rule.http_fields.push(format!("when[{index}].key {key}"));
                    rule.when.push(condition);
                }
            }
        }
        rule
    }
}

#[derive(Deserialize)]
#[serde(try_from = "Fields<SourceFields>")]
struct CheckedSource(SourceFields);

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct SourceFields {
    principals: List<Text<Principal>>,
    not_principals: List<Text<Principal>>,
    request_principals: List<Text<Pattern>>,
    not_request_principals: List<Text<Pattern>>,
    namespaces: List<Text<Pattern>>,
    not_namespaces: List<Text<Pattern>>,
    service_accounts: List<Text<AccountName>>,
    not_service_accounts: List<Text<AccountName>>,
    trust_domains: List<Text<Pattern>>,
    not_trust_domains: List<Text<Pattern>>,
    ip_blocks: List<Text<IpNet>>,
    not_ip_blocks: List<Text<IpNet>>,
    remote_ip_blocks: List<Text<IpNet>>,
    not_remote_ip_blocks: List<Text<IpNet>>,
}

impl TryFrom<Fields<SourceFields>> for CheckedSource {
    type Error = &'static str;

    fn try_from(Fields(fields): Fields<SourceFields>) -> Result<Self, Self::Error> {
        let source = Self(fields);
        let fields = &source.0;
        let accounts =
            !(fields.service_accounts.is_empty() && fields.not_service_accounts.is_empty());
        let names = !(fields.principals.is_empty()
            && fields.not_principals.is_empty()
            && fields.namespaces.is_empty()
            && fields.not_namespaces.is_empty());
        let rest = !(fields.trust_domains.is_empty()
            && fields.not_trust_domains.is_empty()
            && fields.ip_blocks.is_empty()
            && fields.not_ip_blocks.is_empty()
            && fields.remote_ip_blocks.is_empty()
            && fields.not_remote_ip_blocks.is_empty());
        if accounts && names {
            return Err(
                "serviceAccounts can't be combined with principals or namespaces: \
                        the account says its namespace, so leave the others out",
            );
        }
        if !(accounts || names || rest || source.http_fields().next().is_some()) {
            return Err("the source is empty and would match everyone: \
                        name someone, or leave `from` out");
        }
        Ok(source)
    }
}

impl CheckedSource {
    fn http_fields(&self) -> impl Iterator<Item = &'static str> + use<> {
        present([
            ("requestPrincipals", !self.0.request_principals.is_empty()),
            (
                "notRequestPrincipals",
                !self.0.not_request_principals.is_empty(),
            ),
        ])
    }

    fn source(self, own: &Arc<str>) -> Source {
        let fields = self.0;
        Source {
            principals: criteria(fields.principals, fields.not_principals)
                .map(|Principal(pattern)| pattern),
            namespaces: criteria(fields.namespaces, fields.not_namespaces),
            service_accounts: accounts(
                criteria(fields.service_accounts, fields.not_service_accounts),
                own,
            ),
            trust_domains: criteria(fields.trust_domains, fields.not_trust_domains),
            ip_blocks: criteria(fields.ip_blocks, fields.not_ip_blocks),
            remote_ip_blocks: criteria(fields.remote_ip_blocks, fields.not_remote_ip_blocks),
            request_principals: criteria(fields.request_principals, fields.not_request_principals),
        }
    }
}

#[derive(Deserialize)]
#[serde(try_from = "Fields<OperationFields>")]
struct CheckedOperation(OperationFields);

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct OperationFields {
    ports: List<Text<u16>>,
    not_ports: List<Text<u16>>,
    hosts: List<Text<HostPattern>>,
    not_hosts: List<Text<HostPattern>>,
    methods: List<Text<Method>>,
    not_methods: List<Text<Method>>,
    paths: List<Text<PathPattern>>,
    not_paths: List<Text<PathPattern>>,
}

impl TryFrom<Fields<OperationFields>> for CheckedOperation {
    type Error = &'static str;

    fn try_from(Fields(fields): Fields<OperationFields>) -> Result<Self, Self::Error> {
        let operation = Self(fields);
        let ports = !(operation.0.ports.is_empty() && operation.0.not_ports.is_empty());
        if !(ports || operation.http_fields().next().is_some()) {
            return Err("the operation is empty and would match everything: \
                        name something, or leave `to` out");
        }
        Ok(operation)
    }
}

impl CheckedOperation {
    fn http_fields(&self) -> impl Iterator<Item = &'static str> + use<> {
        present([
            ("hosts", !self.0.hosts.is_empty()),
            ("notHosts", !self.0.not_hosts.is_empty()),
            ("methods", !self.0.methods.is_empty()),
            ("notMethods", !self.0.not_methods.is_empty()),
            ("paths", !self.0.paths.is_empty()),
            ("notPaths", !self.0.not_paths.is_empty()),
        ])
    }

    fn operation(self) -> Operation {
        Operation {
            ports: criteria(self.0.ports, self.0.not_ports),
            hosts: criteria(self.0.hosts, self.0.not_hosts),
            methods: criteria(self.0.methods, self.0.not_methods).map(|Method(method)| method),
            paths: criteria(self.0.paths, self.0.not_paths),
        }
    }
}

/// The names of the fields that are there.
fn present<const N: usize>(
    fields: [(&'static str, bool); N],
) -> impl Iterator<Item = &'static str> + use<N> {
    let named = fields.map(|(name, is_there)| is_there.then_some(name));
    named.into_iter().flatten()
}

fn criteria<T>(any_of: List<Text<T>>, none_of: List<Text<T>>) -> Criteria<T> {
    Criteria {
        any_of: any_of.values(),
        none_of: none_of.values(),
    }
}

fn accounts(names: Criteria<AccountName>, own: &Arc<str>) -> Criteria<ServiceAccount> {
    names.map(|account| ServiceAccount {
        namespace: account.namespace.map_or_else(|| own.clone(), Arc::from),
        name: account.name.into(),
    })
}
