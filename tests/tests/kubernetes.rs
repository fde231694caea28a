//! A mesh on a real API: labels start and end capture, and what goes wrong with the API server ends nothing.

use std::{sync::Arc, time::Duration};

use lab::{
    ApiServer, Lab, Mesh, PeerServer, Pod, PodSpec, Rbac, Result, Way, deploy::kustomize,
    eventually,
};
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(60);

/// A client and a server on two nodes, in a namespace of which the API server knows the labels.
struct Shop {
    api: Arc<ApiServer>,
    client: Pod,
    server: Pod,
    till: PeerServer,
}

impl Shop {
    fn open(lab: &Lab) -> Result<Self> {
        lab.namespace("shop").enrolled()?;
        let pod = |node, name| lab.node(node).pod(name, PodSpec::in_namespace("shop"));
        let (client, server) = (pod("a", "client")?, pod("b", "server")?);
        Ok(Self {
            api: installed(lab)?,
            till: server.echo(8080)?,
            client,
            server,
        })
    }

    fn talk(&mut self) -> Result<Way> {
        self.client.talk(&mut self.till, self.server.at(8080))
    }
}

/// A server that grants what the manifests of an installation grant, and nothing else.
fn installed(lab: &Lab) -> Result<Arc<ApiServer>> {
    let api = ApiServer::start(lab)?;
    api.authorize(Rbac::new(&kustomize("deploy")?)?);
    Ok(Arc::new(api))
}

fn namespace(name: &str, labels: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

/// Nobody may connect to a pod of the namespace.
fn deny() -> Value {
    json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"namespace": "shop", "name": "deny"},
        "spec": {},
    })
}

#[test]
fn a_label_starts_capture_and_its_removal_ends_it() -> Result<()> {
    let lab = Lab::builder("label").build()?;
    let mut shop = Shop::open(&lab)?;
    shop.api.apply(namespace("shop", &json!({})))?;
    let _mesh = Mesh::default().in_cluster(&lab, &shop.api)?.start(&lab)?;
    assert_eq!(shop.talk()?, Way::Direct);
    shop.api
        .apply(namespace("shop", &json!({"ambit.dev/mesh": "enabled"})))?;
    eventually("connections to be carried", DEADLINE, || {
        shop.talk().is_ok_and(|way| way == Way::Carried)
    });
    shop.api.apply(deny())?;
    eventually("a policy to refuse them", DEADLINE, || {
        shop.talk().is_ok_and(|way| way == Way::reset())
    });
    shop.api.delete("AuthorizationPolicy", "shop", "deny")?;
    eventually("its deletion to allow them", DEADLINE, || {
        shop.talk().is_ok_and(|way| way == Way::Carried)
    });
    shop.api.apply(namespace("shop", &json!({})))?;
    eventually("connections to be left alone", DEADLINE, || {
        shop.talk().is_ok_and(|way| way == Way::Direct)
    });
    Ok(())
}

#[test]
fn what_is_known_serves_while_the_api_server_is_away_and_changes_are_caught_up_with() -> Result<()>
{
    let lab = Lab::builder("away").build()?;
    let mut shop = Shop::open(&lab)?;
    let mut mesh = Mesh::default().in_cluster(&lab, &shop.api)?.start(&lab)?;
    assert_eq!(shop.talk()?, Way::Carried);
    shop.api.stop_answering();
    mesh.agent("a")
        .await_stderr(DEADLINE, |line| line.contains("pods can't be followed"))?;
    assert_eq!(shop.talk()?, Way::Carried);
    shop.api.apply(deny())?;
    assert_eq!(shop.talk()?, Way::Carried);
    shop.api.resume()?;
    eventually("what changed meanwhile to be in force", DEADLINE, || {
        shop.talk().is_ok_and(|way| way == Way::reset())
    });
    // Watches that can't go on from where they were begin anew.
    shop.api.expire_watches();
    shop.api.delete("AuthorizationPolicy", "shop", "deny")?;
    eventually("a deletion that no event tells of", DEADLINE, || {
        shop.talk().is_ok_and(|way| way == Way::Carried)
    });
    let faults: [fn(&ApiServer); 3] = [
        ApiServer::cut_watches,
        ApiServer::expire_watches_by_status,
        |api| api.break_json("AuthorizationPolicy"),
    ];
    for fault in faults {
        fault(&shop.api);
        shop.api.apply(deny())?;
        eventually("a watch that broke to go on", DEADLINE, || {
            shop.talk().is_ok_and(|way| way == Way::reset())
        });
        shop.api.delete("AuthorizationPolicy", "shop", "deny")?;
        eventually("the same for a deletion", DEADLINE, || {
            shop.talk().is_ok_and(|way| way == Way::Carried)
        });
        shop.api.heal()?;
    }
    eventually("nothing to be wrong any more", DEADLINE, || {
        let problems = lab.node("a").admin("/problems");
        problems.is_ok_and(|problems| problems == json!([]))
    });
    Ok(())
}

#[test]
fn policies_are_in_force_as_soon_as_the_cluster_has_their_kind() -> Result<()> {
    let lab = Lab::builder("crds").build()?;
    let mut shop = Shop::open(&lab)?;
    for kind in ["AuthorizationPolicy", "PeerAuthentication"] {
        shop.api.hide(kind);
    }
    let _mesh = Mesh::default().in_cluster(&lab, &shop.api)?.start(&lab)?;
    assert_eq!(shop.talk()?, Way::Carried);
    shop.api.show("AuthorizationPolicy");
    shop.api.apply(deny())?;
    eventually("the policy to be in force", DEADLINE, || {
        shop.talk().is_ok_and(|way| way == Way::reset())
    });
    Ok(())
}

#[test]
fn an_object_that_cannot_be_used_is_told_of_and_everything_else_works() -> Result<()> {
    let lab = Lab::builder("wrong").build()?;
    let mut shop = Shop::open(&lab)?;
    let mut mesh = Mesh::default().in_cluster(&lab, &shop.api)?.start(&lab)?;
    let mut policy = deny();
    policy["spec"] = json!({"rules": [{"to": [{"operation": {"ports": ["0"]}}]}]});
    shop.api.apply(policy)?;
    mesh.agent("b").await_stderr(DEADLINE, |line| {
        line.contains("API server: AuthorizationPolicy shop/deny")
            && line.contains("spec.rules[0].to[0].operation.ports[0]")
    })?;
    assert_eq!(shop.talk()?, Way::Carried);
    Ok(())
}

#[test]
fn the_authority_keeps_its_key_in_the_cluster_and_signs_for_the_agents_of_its_nodes() -> Result<()>
{
    let lab = Lab::builder("secret").build()?;
    let mut shop = Shop::open(&lab)?;
    let mut mesh = Mesh::default().in_cluster(&lab, &shop.api)?.start(&lab)?;
    let secret = || shop.api.object("Secret", "ambit-system", "ambit-ca");
    let made = secret().map(|secret| secret["data"].clone());
    assert!(
        made.as_ref()
            .is_some_and(|data| data["tls.key"].is_string())
    );
    // Another replica, or the same after a restart, has the same root.
    mesh.kill_control();
    mesh.start_control()?;
    assert_eq!(secret().map(|secret| secret["data"].clone()), made);
    assert_eq!(shop.talk()?, Way::Carried);
    Ok(())
}
