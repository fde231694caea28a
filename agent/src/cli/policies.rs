//! `ambit policies`.

use anyhow::Result;

use super::{
    operator::AskOf,
    table::{self, NOTHING, Table},
};
use crate::admin::PolicyView;

pub(super) async fn run(AskOf { ask, of }: AskOf) -> Result<()> {
    let mut policies: Vec<PolicyView> = ask.agent().ask("policies").await?;
    policies.retain(|policy| of.selects(&policy.name));
    policies
        .sort_by(|a, b| table::compare_names(&a.name, &b.name).then_with(|| a.kind.cmp(&b.kind)));
    ask.show_list(&policies, table, || {
        format!("the agent knows no policies{}", of.words())
    })
}

fn table(policies: &[PolicyView]) -> Table<9> {
    let headers = [
        "NAMESPACE",
        "NAME",
        "KIND",
        "SCOPE",
        "SELECTS",
        "EFFECT",
        "RULES",
        "HTTP",
        "DRY-RUN",
    ];
    let row = |policy: &PolicyView| {
        let (namespace, name) = table::split_name(&policy.name);
        let is_dry = match policy.action {
            Some(_) => table::yes_or_no(policy.dry_run),
            None => NOTHING.to_owned(),
        };
        [
            namespace.to_owned(),
            name.to_owned(),
            policy.kind.clone(),
            policy.scope.clone(),
            selection(policy),
            effect(policy),
            table::list(policy.rules),
            table::list(&policy.http),
            is_dry,
        ]
    };
    Table::new(headers, policies.iter().map(row))
}

/// `app=till,tier=front`, or `Service/web`.
fn selection(policy: &PolicyView) -> String {
    let labels = policy.selector.iter();
    let labels = labels.map(|(key, value)| format!("{key}={value}"));
    table::list(labels.chain(policy.targets.iter().cloned()))
}

/// `DENY`, or `STRICT,8080=PERMISSIVE`, or the issuers whose tokens are trusted.
fn effect(policy: &PolicyView) -> String {
    let ports = policy.ports.iter();
    let ports = ports.map(|(port, mode)| format!("{port}={mode}"));
    let all = policy.action.iter().chain(&policy.mode).cloned();
    table::list(all.chain(ports).chain(policy.issuers.iter().cloned()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn authorization(name: &str) -> PolicyView {
        PolicyView {
            name: name.into(),
            kind: "AuthorizationPolicy".into(),
            scope: "workloads".into(),
            selector: BTreeMap::new(),
            targets: Vec::new(),
            action: Some("DENY".into()),
            rules: Some(2),
            http: Vec::new(),
            issuers: Vec::new(),
            dry_run: false,
            mode: None,
            ports: BTreeMap::new(),
        }
    }

    #[test]
    fn a_policy_is_shown_with_its_reach_and_its_effect() {
        let labels = [("app", "till"), ("tier", "front")];
        let policies = [
            PolicyView {
                selector: labels.map(|(key, value)| (key.into(), value.into())).into(),
                dry_run: true,
                ..authorization("shop/few")
            },
            PolicyView {
                scope: "waypoints".into(),
                targets: vec!["Service/web".into(), "Gateway/way".into()],
                http: vec!["methods".into(), "paths".into()],
                ..authorization("shop/http")
            },
            PolicyView {
                kind: "RequestAuthentication".into(),
                scope: "namespace".into(),
                action: None,
                rules: Some(1),
                issuers: vec!["https://issuer".into()],
                ..authorization("shop/who")
            },
            PolicyView {
                kind: "PeerAuthentication".into(),
                scope: "mesh".into(),
                action: None,
                rules: None,
                mode: Some("STRICT".into()),
                ports: [(80, "PERMISSIVE".into()), (8080, "DISABLE".into())].into(),
                ..authorization("ambit-system/all")
            },
        ];
        let expected = "\
NAMESPACE      NAME   KIND                    SCOPE       SELECTS                   EFFECT                              RULES   HTTP            DRY-RUN
shop           few    AuthorizationPolicy     workloads   app=till,tier=front       DENY                                2       -               yes
shop           http   AuthorizationPolicy     waypoints   Service/web,Gateway/way   DENY                                2       methods,paths   no
shop           who    RequestAuthentication   namespace   -                         https://issuer                      1       -               -
ambit-system   all    PeerAuthentication      mesh        -                         STRICT,80=PERMISSIVE,8080=DISABLE   -       -               -
";
        assert_eq!(table(&policies).to_string(), expected);
    }
}
