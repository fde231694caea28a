//! Who may do what, by Kubernetes' own rules.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::accounts::{User, service_account};
use crate::{Error, Result};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Roles and who is bound to them.
#[derive(Debug, Clone, Default)]
pub struct Rbac {
    grants: Vec<Grant>,
    /// What each ClusterRole allows.
    roles: BTreeMap<String, Vec<Rule>>,
}

/// What a binding gives to its subjects.
#[derive(Debug, Clone)]
struct Grant {
    subjects: Vec<Subject>,
    /// None: everywhere, and objects of the cluster too.
    namespace: Option<String>,
    rules: Vec<Rule>,
}

/// What is to be decided.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub(super) verb: &'a str,
    pub(super) group: &'a str,
    /// With its subresource: `pods/status`.
    pub(super) resource: &'a str,
    /// Empty: of the cluster, or in all namespaces.
    pub(super) namespace: &'a str,
    /// Empty: of all.
    pub(super) name: &'a str,
}

#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Subject {
    kind: String,
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default, rename = "apiGroup")]
    _group: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Rule {
    api_groups: Vec<String>,
    resources: Vec<String>,
    verbs: Vec<String>,
    resource_names: Vec<String>,
    /// Paths of no object are open to all here.
    #[serde(rename = "nonResourceURLs")]
    _paths: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    metadata: Metadata,
    #[serde(default)]
    rules: Option<Vec<Rule>>,
    #[serde(default)]
    aggregation_rule: Option<Aggregation>,
    #[serde(default)]
    subjects: Vec<Subject>,
    role_ref: Option<RoleRef>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
    namespace: String,
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Aggregation {
    cluster_role_selectors: Vec<LabelSelector>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LabelSelector {
    match_labels: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RoleRef {
    api_group: String,
    kind: String,
    name: String,
}

impl Rbac {
    /// Reads ClusterRoles, Roles, their bindings and ServiceAccounts; other kinds don't count.
    ///
    /// # Errors
    /// If one is malformed, or a binding names a role or a service account that isn't among them.
    pub fn new(objects: &[Value]) -> Result<Self> {
        let mut of: BTreeMap<&str, Vec<Object>> = BTreeMap::new();
        for object in objects {
            let kind = object["kind"].as_str().unwrap_or_default();
            let ours = object["apiVersion"] == format!("{GROUP}/v1").as_str();
            if ours || kind == "ServiceAccount" {
                let name = format!("{kind} {}", object["metadata"]["name"]);
                let read = Object::deserialize(object).map_err(|e| Error::malformed(name, e))?;
                of.entry(kind).or_default().push(read);
            }
        }
        let all = |kind: &str| of.get(kind).map_or(&[][..], Vec::as_slice);
        let mut grants = Vec::new();
        for kind in ["ClusterRoleBinding", "RoleBinding"] {
            for binding in all(kind) {
                let what = format!("{kind} {}", binding.metadata.name);
                let wrong = |cause: String| Error::malformed(&what, cause);
                let namespace = (kind == "RoleBinding").then(|| binding.metadata.namespace.clone());
                let role = binding.role_ref.as_ref();
                let role = role.ok_or_else(|| wrong("roleRef is missing".into()))?;
                if role.api_group != GROUP {
                    return Err(wrong(format!("roleRef.apiGroup is {:?}", role.api_group)));
                }
                let inside = namespace.as_deref().filter(|_| role.kind == "Role");
                let found = all(&role.kind).iter().find(|it| {
                    it.metadata.name == role.name
                        && inside.is_none_or(|namespace| it.metadata.namespace == namespace)
                });
                let found = found
                    .filter(|_| role.kind == "ClusterRole" || inside.is_some())
                    .ok_or_else(|| wrong(format!("there is no {} {}", role.kind, role.name)))?;
                for subject in &binding.subjects {
                    subject.check(all("ServiceAccount")).map_err(wrong)?;
                }
                grants.push(Grant {
                    subjects: binding.subjects.clone(),
                    namespace,
                    rules: found.all_rules(all("ClusterRole")),
                });
            }
        }
        let roles = all("ClusterRole").iter();
        let roles = roles
            .map(|role| {
                let rules = role.all_rules(all("ClusterRole"));
                (role.metadata.name.clone(), rules)
            })
            .collect();
        Ok(Self { grants, roles })
    }

    /// The same, and what these ClusterRoleBindings, which somebody may have changed since, give.
    pub(super) fn with<'a>(&self, bindings: impl Iterator<Item = &'a Value>) -> Self {
        let mut with = self.clone();
        let grants = bindings.filter_map(|binding| {
            let binding = Object::deserialize(binding).ok()?;
            Some(Grant {
                subjects: binding.subjects,
                namespace: None,
                rules: self.roles.get(&binding.role_ref?.name)?.clone(),
            })
        });
        with.grants.extend(grants);
        with
    }

    /// Whether a user may do everything that a ClusterRole allows.
    pub(super) fn covers(&self, user: &User, role: &str) -> bool {
        let rules = self.roles.get(role);
        rules.is_some_and(|rules| rules.iter().all(|rule| self.covers_rule(user, rule)))
    }

    fn covers_rule(&self, user: &User, rule: &Rule) -> bool {
        let any = [String::new()];
        let names = match rule.resource_names.as_slice() {
            [] => &any[..],
            names => names,
        };
        rule.api_groups.iter().all(|group| {
            rule.resources.iter().all(|resource| {
                rule.verbs.iter().all(|verb| {
                    names.iter().all(|name| {
                        let attempt = Attempt {
                            verb,
                            group,
                            resource,
                            namespace: "",
                            name,
                        };
                        self.allows(user, attempt)
                    })
                })
            })
        })
    }

    pub(super) fn allows(&self, user: &User, attempt: Attempt<'_>) -> bool {
        let applies = |grant: &&Grant| {
            let everywhere = grant.namespace.is_none();
            let here = grant.namespace.as_deref() == Some(attempt.namespace);
            (everywhere || (here && !attempt.namespace.is_empty()))
                && grant.subjects.iter().any(|subject| subject.is(user))
        };
        let mut rules = self
            .grants
            .iter()
            .filter(applies)
            .flat_map(|grant| &grant.rules);
        user.is_master() || rules.any(|rule| rule.allows(attempt))
    }
}

impl Object {
    /// A role's own rules, or those of the roles that it gathers by their labels.
    fn all_rules(&self, roles: &[Object]) -> Vec<Rule> {
        let Some(gathered) = &self.aggregation_rule else {
            return self.rules.clone().unwrap_or_default();
        };
        let selectors = &gathered.cluster_role_selectors;
        let selected = roles.iter().filter(|role| {
            let labels = &role.metadata.labels;
            selectors.iter().any(|selector| {
                let mut wanted = selector.match_labels.iter();
                wanted.all(|(name, value)| labels.get(name) == Some(value))
            })
        });
        selected
            .filter_map(|role| role.rules.clone())
            .flatten()
            .collect()
    }
}

impl Subject {
    fn check(&self, accounts: &[Object]) -> Result<(), String> {
        let mut accounts = accounts.iter().map(|account| &account.metadata);
        match self.kind.as_str() {
            "User" | "Group" => Ok(()),
            "ServiceAccount"
                if accounts.any(|it| it.name == self.name && it.namespace == self.namespace) =>
            {
                Ok(())
            }
            "ServiceAccount" => Err(format!(
                "there is no ServiceAccount {} in namespace {:?}",
                self.name, self.namespace
            )),
            other => Err(format!("a subject can't be a {other:?}")),
        }
    }

    fn is(&self, user: &User) -> bool {
        match self.kind.as_str() {
            "User" => user.name == self.name,
            "Group" => user.groups.contains(&self.name),
            _ => service_account(&user.name) == Some((&self.namespace, &self.name)),
        }
    }
}

impl Rule {
    fn allows(&self, attempt: Attempt<'_>) -> bool {
        let among = |list: &[String], value: &str| list.iter().any(|it| it == "*" || it == value);
        let subresource = attempt.resource.split_once('/');
        let of_any = subresource.map(|(_, below)| format!("*/{below}"));
        among(&self.verbs, attempt.verb)
            && among(&self.api_groups, attempt.group)
            && (among(&self.resources, attempt.resource)
                || of_any.is_some_and(|any| self.resources.contains(&any)))
            && (self.resource_names.is_empty()
                || self.resource_names.iter().any(|name| name == attempt.name))
    }
}

#[cfg(test)]
mod tests;
