//! Who is refused what.

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use lab::{ApiServer, Lab, Rbac, Result};
use serde_json::json;

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
