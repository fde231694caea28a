//! An agent that accepts tunnels: port 15008 of a node, and of a pod.

use std::{net::SocketAddr, path::Path, time::Duration};

use ambit::identity::{Identity, tls};
use http::{Method, StatusCode};
use lab::{Family, Lab, Mesh, Node, Output, Pod, PodNetwork, PodSpec, Result, RunningMesh};

use crate::{
    credentials::{Forger, Life, account},
    hbone::Client,
};

const DEADLINE: Duration = Duration::from_secs(20);

fn pod(lab: &Lab, node: &str, name: &str) -> Result<Pod> {
    lab.node(node)
        .pod(name, PodSpec::in_namespace("shop").service_account(name))
}

/// The mesh's own root in the test's hands, which makes what the authority wouldn't.
fn thief(lab: &Lab, mesh: &RunningMesh<'_>, trust_domain: &str) -> Forger {
    let directory = lab.directory().join(format!("thief-{trust_domain}"));
    Forger::with_root_of(mesh.state_directory(), &directory, trust_domain)
}

fn tunnel_port(node: &Node) -> SocketAddr {
    SocketAddr::new(node.address(), 15008)
}

#[test]
fn a_client_without_a_good_certificate_gets_no_tunnel_and_the_log_says_why() -> Result<()> {
    let lab = Lab::builder("clients").build()?;
    lab.namespace("shop").enrolled()?;
    let (_buyer, till) = (pod(&lab, "a", "buyer")?, pod(&lab, "b", "till")?);
    let mut echo = till.peer_server(["echo-server", "--listen", "0.0.0.0:80"])?;
    let mut mesh = Mesh::default().start(&lab)?;
    let ours = thief(&lab, &mesh, "cluster.local");
    let theirs = thief(&lab, &mesh, "elsewhere.example");
    let foreign = Forger::foreign(&lab.directory().join("foreign"));
    let (buyers, tills) = (account("buyer"), account("till"));
    let elsewhere = Identity::new("elsewhere.example", "shop", "buyer");
    let (node, to) = (lab.node("a"), tunnel_port(lab.node("b")));
    let at = till.at(80).to_string();

    let valid = ours.certificate(&buyers, Life::Valid, &ours);
    // Whether a client hears of the refusal by an alert or by the end of the connection depends
    // on how far it has come with what it sends; the log says it all.
    let table = [
        (
            Client::new(
                node,
                to,
                &foreign.certificate(&buyers, Life::Valid, &ours),
                &tills,
            ),
            "signed by no root that this mesh trusts",
        ),
        (
            Client::new(
                node,
                to,
                &ours.certificate(&buyers, Life::Expired, &ours),
                &tills,
            ),
            "the peer's certificate has expired",
        ),
        (
            Client::new(
                node,
                to,
                &theirs.certificate(&elsewhere, Life::Valid, &ours),
                &tills,
            ),
            "is not of trust domain cluster.local",
        ),
        // A good certificate, and nobody here whom it asks for.
        (
            Client::new(node, to, &valid, &account("absent")),
            "no workload of this node has the identity that the client asks for",
        ),
        (
            Client::new(node, to, &valid, &tills).without_name(),
            "the client named no server",
        ),
    ];
    for (client, cause) in table {
        client.connect(&at)?.expect_err(cause);
        mesh.agent("b").await_stderr(DEADLINE, |line| {
            line.contains("tunnel refused") && line.contains(cause)
        })?;
    }
    // What has nothing of this mesh but its trust bundle, seen from outside.
    let bundle = mesh.state_directory().join("trust-bundle.pem");
    for (options, told, cause) in [
        (
            ["-tls1_3", "-alpn", "h2"],
            "certificate required",
            "the peer presented no certificate",
        ),
        (
            ["-tls1_2", "-alpn", "h2"],
            "protocol version",
            "SupportedVersionsExtensionRequired",
        ),
        (
            ["-tls1_3", "-alpn", "http/1.1"],
            "no application protocol",
            "no common ALPN",
        ),
    ] {
        let output = openssl(node, to, &bundle, &tills, &options)?;
        let said = format!("{} {}", output.text(), output.stderr).to_lowercase();
        assert!(
            said.contains("alert") && said.contains(told),
            "{options:?}: {said}"
        );
        mesh.agent("b").await_stderr(DEADLINE, |line| {
            line.contains("tunnel refused") && line.contains(cause)
        })?;
    }

    // None of them was let through; and it wasn't for anything else that they were refused.
    assert_eq!(echo.reports()?, [] as [serde_json::Value; 0]);
    let good = Client::new(node, to, &valid, &tills);
    assert_eq!(good.connect(&at)?, Ok(StatusCode::OK));
    echo.await_reports(1, DEADLINE)?;
    Ok(())
}

fn openssl(
    node: &Node,
    to: SocketAddr,
    bundle: &Path,
    server: &Identity,
    options: &[&str],
) -> Result<Output> {
    let (to, name) = (to.to_string(), tls::identity_sni(server));
    node.command("openssl")
        .args([
            "s_client",
            "-connect",
            &to,
            "-servername",
            &name.to_str(),
            "-ign_eof",
        ])
        .arg("-CAfile")
        .arg(bundle)
        .args(options)
        .run()
}

#[test]
fn only_workloads_of_the_node_may_be_asked_for_by_connect() -> Result<()> {
    let lab = Lab::builder("authority").build()?;
    lab.namespace("shop").enrolled()?;
    lab.namespace("legacy").not_enrolled()?;
    let (buyer, till, other) = (
        pod(&lab, "a", "buyer")?,
        pod(&lab, "b", "till")?,
        pod(&lab, "b", "other")?,
    );
    let outside = lab
        .node("b")
        .pod("outside", PodSpec::in_namespace("legacy"))?;
    let mut servers = Vec::new();
    for pod in [&buyer, &till, &other, &outside] {
        servers.push(pod.peer_server(["echo-server", "--listen", "0.0.0.0:80"])?);
    }
    let mut mesh = Mesh::default().start(&lab)?;
    let ours = thief(&lab, &mesh, "cluster.local");
    let certificate = ours.certificate(&account("buyer"), Life::Valid, &ours);
    let to = tunnel_port(lab.node("b"));
    let client = Client::new(lab.node("a"), to, &certificate, &account("till"));

    let till_address = till.address();
    for (asked, cause) in [
        (
            buyer.at(80).to_string(),
            "no enrolled workload of this node",
        ),
        (
            outside.at(80).to_string(),
            "no enrolled workload of this node",
        ),
        (
            format!("{}:80", lab.node("b").address()),
            "no enrolled workload of this node",
        ),
        (
            "127.0.0.1:15000".into(),
            "no enrolled workload of this node",
        ),
        ("[::1]:80".into(), "no enrolled workload of this node"),
        (till.at(15001).to_string(), "port 15001 is the agent's own"),
        (till.at(15006).to_string(), "port 15006 is the agent's own"),
        (till.at(15008).to_string(), "port 15008 is the agent's own"),
        (
            "till.shop.svc.cluster.local:80".into(),
            "is a name, and no waypoint",
        ),
        (
            other.at(80).to_string(),
            "the tunnel was opened to spiffe://",
        ),
        // What isn't an authority at all is logged at debug level only.
        (till_address.to_string(), ""),
        (format!("{till_address}:0"), ""),
        (format!("root@{till_address}:80"), ""),
        ("10.77.300.1:80".into(), ""),
        ("-x-:80".into(), ""),
    ] {
        assert_eq!(
            client.connect(&asked)?,
            Ok(StatusCode::BAD_REQUEST),
            "{asked}"
        );
        mesh.agent("b").await_stderr(DEADLINE, |line| {
            cause.is_empty() || line.contains(cause) && line.contains("connection failed")
        })?;
    }
    for method in [Method::GET, Method::POST, Method::OPTIONS] {
        let uri = format!("https://{}/", till.at(80));
        let answer = client.call(method.clone(), &uri, None, "")?;
        assert_eq!(answer, Ok(StatusCode::METHOD_NOT_ALLOWED), "{method}");
    }

    for server in &servers {
        assert_eq!(server.reports()?, [] as [serde_json::Value; 0]);
    }
    assert_eq!(
        client.connect(&till.at(80).to_string())?,
        Ok(StatusCode::OK)
    );
    Ok(())
}

#[test]
fn a_client_address_is_believed_only_where_it_is_the_proven_identitys() -> Result<()> {
    let lab = Lab::builder("forwarded").build()?;
    lab.namespace("shop").enrolled()?;
    let (buyer, till, other) = (
        pod(&lab, "a", "buyer")?,
        pod(&lab, "b", "till")?,
        pod(&lab, "a", "other")?,
    );
    let mut echo = till.peer_server(["echo-server", "--listen", "0.0.0.0:80"])?;
    let mesh = Mesh::default().start(&lab)?;
    let ours = thief(&lab, &mesh, "cluster.local");
    let certificate = ours.certificate(&account("buyer"), Life::Valid, &ours);
    let to = tunnel_port(lab.node("b"));
    let client = Client::new(lab.node("a"), to, &certificate, &account("till"));

    let node = lab.node("b").address();
    let at = till.at(80).to_string();
    for (count, (claimed, seen)) in (1..).zip([
        // The buyer's own.
        (format!("for=\"{}\"", buyer.at(4000)), buyer.address()),
        // A pod that the caller isn't, nobody's, an address outside, and none.
        (format!("for=\"{}\"", other.at(4000)), node),
        (format!("for=\"{}\"", till.at(4000)), node),
        ("for=\"192.0.2.1:4000\"".into(), node),
        ("for=unknown".into(), node),
    ]) {
        let answer = client.call(Method::CONNECT, &at, Some(&claimed), "hello")?;
        assert_eq!(answer, Ok(StatusCode::OK), "{claimed}");
        let report = echo.await_reports(count, DEADLINE)?.remove(count - 1);
        let peer: SocketAddr = report["peer"].as_str().unwrap().parse().unwrap();
        assert_eq!(peer.ip(), seen, "{claimed}");
    }
    Ok(())
}

#[test]
fn a_tunnel_to_a_pods_own_address_is_captured_and_needs_no_server_name() -> Result<()> {
    for network in [PodNetwork::Routed, PodNetwork::Bridged] {
        for family in [Family::V4, Family::V6] {
            eprintln!("{network:?} {family:?}");
            let lab = Lab::builder("podtunnel")
                .pods(network)
                .family(family)
                .build()?;
            lab.namespace("shop").enrolled()?;
            let (_buyer, till, other) = (
                pod(&lab, "a", "buyer")?,
                pod(&lab, "b", "till")?,
                pod(&lab, "b", "other")?,
            );
            let listen = ["echo-server", "--listen", "[::]:80", "--dual-stack"];
            let _echo = [till.peer_server(listen)?, other.peer_server(listen)?];
            let mut mesh = Mesh::default().start(&lab)?;
            let ours = thief(&lab, &mesh, "cluster.local");
            let certificate = ours.certificate(&account("buyer"), Life::Valid, &ours);
            let to = till.at(15008);
            let at = till.at(80).to_string();

            // Without a name, or with the right one.
            let client = || Client::new(lab.node("a"), to, &certificate, &account("till"));
            assert_eq!(client().without_name().connect(&at)?, Ok(StatusCode::OK));
            assert_eq!(client().connect(&at)?, Ok(StatusCode::OK));
            // It leads to that pod only, whatever is asked for.
            let answer = client().without_name().connect(&other.at(80).to_string())?;
            assert_eq!(answer, Ok(StatusCode::BAD_REQUEST));
            let wrong = Client::new(lab.node("a"), to, &certificate, &account("other"));
            wrong.connect(&at)?.expect_err("another's name");
            mesh.agent("b").await_stderr(DEADLINE, |line| {
                line.contains("the client asks for another identity than")
            })?;
        }
    }
    Ok(())
}
