//! Which pods of an API server's objects are captured, when they aren't the ordinary ones.

use std::{sync::Arc, time::Duration};

use lab::{ApiServer, Lab, Mesh, Pod, PodSpec, Rbac, Result, Way, deploy::kustomize, eventually};
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(30);

fn shop(account: &str) -> PodSpec {
    PodSpec::in_namespace("shop").service_account(account)
}

fn installed(lab: &Lab) -> Result<Arc<ApiServer>> {
    lab.namespace("shop").enrolled()?;
    lab.namespace("street").not_enrolled()?;
    let api = ApiServer::start(lab)?;
    api.authorize(Rbac::new(&kustomize("deploy")?)?);
    Ok(Arc::new(api))
}

/// The pod of a job stays as an object, address included, when its processes have ended.
#[test]
fn a_pod_that_has_ended_leaves_its_address_to_another() -> Result<()> {
    for phase in ["Succeeded", "Failed"] {
        let lab = Lab::builder("job").build()?;
        let api = installed(&lab)?;
        let node = lab.node("a");
        let server = lab.node("b").pod("server", shop("server"))?;
        let mut echo = server.echo(8080)?;
        let job = node.pod("job", shop("job"))?;
        let mut mesh = Mesh::default().in_cluster(&lab, &api)?.start(&lab)?;
        assert_eq!(job.talk(&mut echo, server.at(8080))?, Way::Carried);

        let mut ended = api.object("Pod", "shop", "job").unwrap_or_default();
        ended["status"]["phase"] = json!(phase);
        let addresses = job.addresses().to_vec();
        api.apply(ended.clone())?;
        eventually("the agent to let go of it", DEADLINE, || {
            let status = node.admin("/status");
            status.is_ok_and(|status| status["capture"]["captured_pods"] == 0)
        });
        // The lab's object goes with its interface; that of a job stays.
        job.delete()?;
        eventually("the lab to forget it", DEADLINE, || {
            api.object("Pod", "shop", "job").is_none()
        });
        api.apply(ended)?;
        let heir = node.pod("heir", shop("heir").addresses(&addresses))?;
        assert_eq!(heir.addresses(), addresses);
        let way = heir.talk(&mut echo, server.at(8080))?;
        assert_eq!(way, Way::Carried, "{phase}");
        let identity = "src.identity=spiffe://cluster.local/ns/shop/sa/heir";
        mesh.await_access("b", &[identity, "connection complete"])?;
        let kept = api.object("Pod", "shop", "job").unwrap_or_default();
        assert_eq!(kept["status"]["phase"], phase, "{kept}");
        let status = node.admin("/status")?;
        assert_eq!(status["capture"]["captured_pods"], 1, "{status}");
        assert_eq!(status["capture"]["waiting"], json!([]), "{status}");
    }
    Ok(())
}

#[test]
fn a_pod_in_its_nodes_network_is_left_alone() -> Result<()> {
    let lab = Lab::builder("host").build()?;
    let api = installed(&lab)?;
    let node = lab.node("a");
    let member = node.pod("member", shop("member"))?;
    let passer = lab
        .node("b")
        .pod("passer", PodSpec::in_namespace("street"))?;
    let mut to_passer = passer.echo(8080)?;
    let mut to_host = node.peer_server(["echo-server", "--listen", "0.0.0.0:7070"])?;
    api.apply(host_pod(&member))?;
    let _mesh = Mesh::default().in_cluster(&lab, &api)?.start(&lab)?;
    let pods = || -> Result<Value> { Ok(node.admin("/status")?["capture"].clone()) };
    eventually("the pod to be captured", DEADLINE, || {
        pods().is_ok_and(|pods| pods["captured_pods"] == 1)
    });
    assert_eq!(pods()?["enrolled_pods"], 1, "{}", pods()?);
    assert_eq!(pods()?["waiting"], json!([]));
    let at = to_host.address().port();
    let host = std::net::SocketAddr::new(node.address(), at);
    assert_eq!(node.talk(&mut to_passer, passer.at(8080))?, Way::Direct);
    assert_eq!(passer.talk(&mut to_host, host)?, Way::Direct);
    assert_eq!(member.talk(&mut to_host, host)?, Way::Direct);
    Ok(())
}

/// On a member's node, in its namespace.
fn host_pod(member: &Pod) -> Value {
    let address = member.node().address();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": "shop", "name": "host", "uid": "uid-of-host"},
        "spec": {
            "nodeName": member.node().name(),
            "hostNetwork": true,
            "serviceAccountName": "host",
            "containers": [{"name": "main", "image": "lab"}],
        },
        "status": {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "hostIP": address,
            "hostIPs": [{"ip": address}],
        },
    })
}
