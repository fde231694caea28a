//! A namespace goes from classic sidecars to the mesh and back, as docs/migration.md tells.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which clippy doesn't count as tests"
)]

use std::time::Duration;

use lab::{
    Lab, Mesh, Pod, PodSpec, Result, ambit_program, eventually,
    sidecar::{Fleet, Kind},
};
use serde_json::json;

const DEADLINE: Duration = Duration::from_secs(30);
const STRICT: &str = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
    metadata: {name: strict, namespace: shop}\nspec: {mtls: {mode: STRICT}}\n";

fn is_served(client: &Pod, server: &Pod) -> bool {
    client.call(server.at(8080)).unwrap() == "echoed"
}

/// Waits until the mesh knows who both ends of a held connection are, or that it has none of it.
fn await_carried(lab: &Lab, client: &Pod, server: &Pod, expected: bool) {
    eventually("connections to be the mesh's, or not", DEADLINE, || {
        // While both nodes are still being told, one may take what the other doesn't.
        let Ok(mut held) = client.hold(server.at(8080)) else {
            return false;
        };
        if held.echo().is_err() {
            return false;
        }
        let open = lab.node("b").admin("/connections").unwrap();
        let by = json!("spiffe://cluster.local/ns/shop/sa/default");
        let mut open = open.as_array().unwrap().iter();
        open.any(|connection| connection["source_identity"] == by) == expected
    });
}

#[test]
fn a_namespace_goes_from_sidecars_to_the_mesh_and_back() -> Result<()> {
    let lab = Lab::builder("migration").build()?;
    lab.namespace("shop").not_enrolled()?;
    lab.namespace("street").not_enrolled()?;
    let pod = |node: &str, namespace: &str, name: &str| {
        lab.node(node).pod(name, PodSpec::in_namespace(namespace))
    };
    let (client, server) = (pod("a", "shop", "client")?, pod("b", "shop", "server")?);
    let late = pod("a", "street", "late")?;
    let _echo = server.echo(8080)?;
    let mut fleet = Fleet::start(&lab, &Kind::HaProxy, &[&client, &server])?;
    let _mesh = Mesh::default().start(&lab)?;
    assert!(is_served(&client, &server), "by sidecars");

    // The label, while the pods still have their sidecars: what those say to each other is carried as it is.
    lab.namespace("shop").enrolled()?;
    await_carried(&lab, &client, &server, true);
    assert!(is_served(&client, &server), "by sidecars, in the mesh");
    fleet.remove(&client);
    fleet.remove(&server);
    await_carried(&lab, &client, &server, true);

    // Who isn't there yet is served, named, and then moved, before STRICT would break it.
    assert!(is_served(&late, &server), "in plaintext");
    let readiness = || {
        let command = lab.node("b").command(ambit_program().unwrap());
        command
            .args(["status", "--readiness"])
            .run()
            .unwrap()
            .success()
            .unwrap()
    };
    assert!(readiness().contains("street/late"), "{}", readiness());
    lab.apply("strict.yaml", STRICT)?;
    eventually("STRICT to hold", DEADLINE, || !is_served(&late, &server));
    lab.namespace("street").enrolled()?;
    eventually("the latecomer to be in the mesh", DEADLINE, || {
        is_served(&late, &server)
    });
    assert!(is_served(&client, &server));

    // And back.
    lab.remove("strict.yaml")?;
    lab.namespace("shop").not_enrolled()?;
    await_carried(&lab, &client, &server, false);
    fleet.add(&client)?;
    fleet.add(&server)?;
    assert!(is_served(&client, &server), "by sidecars again");
    Ok(())
}
