//! Who is refused what.

use k8s_openapi::api::{
    core::v1::{ConfigMap, Pod, Secret},
    rbac::v1::ClusterRoleBinding,
};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use lab::{ApiServer, Lab, Rbac, Result};
use serde_json::{Value, json};

use crate::client::{Inside, NODE, refused};

#[test]
fn what_no_rule_allows_is_forbidden() -> Result<()> {
    let lab = Lab::builder("rbac").build()?;
    let server = ApiServer::start(&lab)?;
    let inside = Inside::new(&lab, &server, NODE)?;
    let subjects = json!([
        { "kind": "ServiceAccount", "name": "ambit-node", "namespace": "ambit-system" },
    ]);
    server.authorize(Rbac::new(&[
        json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": { "name": "ambit-node", "namespace": "ambit-system" },
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": { "name": "ambit-node" },
            "rules": [
                { "apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"] },
                { "apiGroups": [""], "resources": ["configmaps"], "verbs": ["patch"] },
            ],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": { "name": "ambit-node" },
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                "name": "ambit-node",
            },
            "subjects": subjects,
        }),
    ])?);
    inside.run(async |client| {
        let pods: Api<Pod> = Api::all(client.clone());
        pods.list(&Default::default()).await.unwrap();
        let secrets: Api<Secret> = Api::namespaced(client.clone(), "default");
        let Err(kube::Error::Api(status)) = secrets.get("ca").await else {
            panic!("no rule is about secrets");
        };
        assert_eq!((status.code, status.reason.as_str()), (403, "Forbidden"));
        assert_eq!(
            status.message,
            r#"secrets "ca" is forbidden: User "system:serviceaccount:ambit-system:ambit-node" cannot get resource "secrets" in API group "" in the namespace "default""#
        );
        // To apply what isn't there is to create it.
        let maps: Api<ConfigMap> = Api::namespaced(client, "default");
        let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "x" } });
        let by = PatchParams::apply("ambit");
        let applied = maps.patch("x", &by, &Patch::Apply(&map)).await;
        assert_eq!(refused(applied), (403, "Forbidden".into()));
    });
    let administrator = Inside::new(&lab, &server, "system:admin")?;
    let list = async |client| Api::<Secret>::all(client).list(&Default::default()).await;
    assert!(administrator.run(list).is_ok());
    Ok(())
}

/// What a service account may do that has these rules; there is a role besides that allows to read Secrets.
fn rights(rules: &Value) -> Rbac {
    let role = |name: &str, rules: &Value| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": { "name": name }, "rules": rules,
        })
    };
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": { "name": "ambit-node", "namespace": "ambit-system" },
    });
    let secrets = json!([{ "apiGroups": [""], "resources": ["secrets"], "verbs": ["get"] }]);
    let own = binding("ambit-node", &[("ambit-system", "ambit-node")]);
    let objects = [
        account,
        role("ambit-node", rules),
        role("readers", &secrets),
        own,
    ];
    Rbac::new(&objects).unwrap()
}

fn binding(role: &str, accounts: &[(&str, &str)]) -> Value {
    let subject = |(namespace, name): &(&str, &str)| json!({ "kind": "ServiceAccount", "namespace": namespace, "name": name });
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": { "name": role },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
        "subjects": accounts.iter().map(subject).collect::<Vec<_>>(),
    })
}

#[test]
fn who_changes_a_binding_must_have_what_it_gives_or_the_right_to_bind() -> Result<()> {
    let lab = Lab::builder("bind").build()?;
    let server = ApiServer::start(&lab)?;
    let inside = Inside::new(&lab, &server, NODE)?;
    let bindings = json!({
        "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterrolebindings"],
        "verbs": ["get", "update"],
    });
    let may_bind = |role: &str| {
        json!({
            "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"],
            "resourceNames": [role], "verbs": ["bind"],
        })
    };
    let secrets = json!({ "apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list"] });
    server.apply(binding("readers", &[]))?;
    for (rules, is_allowed) in [
        (json!([bindings]), false),
        (json!([bindings, may_bind("others")]), false),
        (json!([bindings, may_bind("readers")]), true),
        (json!([bindings, secrets]), true),
    ] {
        server.apply(binding("readers", &[]))?;
        server.authorize(rights(&rules));
        let changed = inside.run(async |client| {
            let bindings: Api<ClusterRoleBinding> = Api::all(client.clone());
            let mut found = bindings.get("readers").await.unwrap();
            let wanted: ClusterRoleBinding =
                serde_json::from_value(binding("readers", &[("ambit-system", "ambit-node")]))
                    .unwrap();
            found.subjects = wanted.subjects;
            let changed = bindings
                .replace("readers", &PostParams::default(), &found)
                .await?;
            let mut other = changed.clone();
            other.role_ref.name = "ambit-node".into();
            let other = bindings
                .replace("readers", &PostParams::default(), &other)
                .await;
            assert_eq!(refused(other), (422, "Invalid".into()));
            // What the binding gives counts at once.
            Api::<Secret>::namespaced(client, "default")
                .get_opt("ca")
                .await?;
            Ok(changed)
        });
        match changed {
            Ok(_) => assert!(is_allowed, "{rules}"),
            failed => assert_eq!(
                (refused(failed), is_allowed),
                ((403, "Forbidden".into()), false)
            ),
        }
    }
    Ok(())
}

#[test]
fn who_has_an_owner_wait_must_have_the_right_to_its_finalizers() -> Result<()> {
    let lab = Lab::builder("finalizers").build()?;
    let server = ApiServer::start(&lab)?;
    let inside = Inside::new(&lab, &server, NODE)?;
    let gateway = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": { "namespace": "default", "name": "w" },
    });
    server.apply(gateway.clone())?;
    let made = server.object("Gateway", "default", "w").unwrap();
    let maps = json!({ "apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"] });
    let finalizers = json!({
        "apiGroups": ["gateway.networking.k8s.io"], "resources": ["gateways/finalizers"],
        "verbs": ["update"],
    });
    for (name, waits, rules, is_allowed) in [
        ("a", false, json!([maps]), true),
        ("b", true, json!([maps]), false),
        ("b", true, json!([maps, finalizers]), true),
    ] {
        server.authorize(rights(&rules));
        let owned: ConfigMap = serde_json::from_value(json!({
            "metadata": { "name": name, "ownerReferences": [{
                "apiVersion": gateway["apiVersion"], "kind": "Gateway", "name": "w",
                "uid": made["metadata"]["uid"], "blockOwnerDeletion": waits,
            }] },
        }))
        .unwrap();
        let created = inside.run(async move |client| {
            let maps: Api<ConfigMap> = Api::namespaced(client, "default");
            maps.create(&PostParams::default(), &owned).await
        });
        assert_eq!(created.is_ok(), is_allowed, "{name} {rules}");
    }
    Ok(())
}

#[test]
fn a_token_that_was_replaced_is_unauthorized() -> Result<()> {
    let lab = Lab::builder("tokens").build()?;
    let server = ApiServer::start(&lab)?;
    let list = async |client| Api::<Pod>::all(client).list(&Default::default()).await;
    let before = Inside::new(&lab, &server, NODE)?;
    assert!(before.run(list).is_ok());
    server.rotate_token(NODE)?;
    // kube reads the file again within a minute.
    assert_eq!(refused(before.run(list)), (401, "Unauthorized".into()));
    let after = Inside::new(&lab, &server, NODE)?;
    assert!(after.run(list).is_ok());
    Ok(())
}
