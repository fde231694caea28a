//! AuthorizationPolicy, as the agent of the server's node enforces it.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which clippy doesn't count as tests"
)]

use std::time::Duration;

use lab::{
    Child, Family, Lab, Mesh, PeerServer, Pod, PodNetwork, PodSpec, Result, RunningMesh, eventually,
};

const DEADLINE: Duration = Duration::from_secs(30);
const FRIEND: &str = "cluster.local/ns/shop/sa/friend";
const STRANGER: &str = "cluster.local/ns/street/sa/stranger";
const FILE: &str = "policies.yaml";

/// Two clients on node a, and the same server on either node, with two ports.
struct Shop {
    friend: Pod,
    stranger: Pod,
    /// One beside the clients, one on the other node.
    servers: [Pod; 2],
    /// Of each server in turn, one for each port.
    listening: Vec<PeerServer>,
}

const PORTS: [u16; 2] = [8080, 8081];

impl Shop {
    fn open(lab: &Lab) -> Result<Shop> {
        lab.namespace("shop").enrolled()?;
        lab.namespace("street").enrolled()?;
        let (a, b) = (lab.node("a"), lab.node("b"));
        let client = |namespace, account| PodSpec::in_namespace(namespace).service_account(account);
        let server = |account| client("shop", account).label("app", "till");
        let shop = Shop {
            friend: a.pod("friend", client("shop", "friend"))?,
            stranger: a.pod("stranger", client("street", "stranger"))?,
            servers: [a.pod("near", server("near"))?, b.pod("far", server("far"))?],
            listening: Vec::new(),
        };
        let mut listening = Vec::new();
        for server in &shop.servers {
            for port in PORTS {
                let listen = format!("[::]:{port}");
                let echo = ["echo-server", "--dual-stack", "--listen", &listen];
                listening.push(server.peer_server(echo)?);
            }
        }
        Ok(Shop { listening, ..shop })
    }

    /// For either client `+` for each port of a server that it may talk to, `-` for each at which
    /// it is reset.
    fn admitted(&self, server: &Pod) -> Result<String> {
        let mut admitted = String::new();
        for client in [&self.friend, &self.stranger] {
            for port in PORTS {
                admitted.push(match client.call(server.at(port))?.as_str() {
                    "echoed" => '+',
                    "reset" | "broken pipe" => '-',
                    other => panic!("{}, port {port}: {other}", server.name()),
                });
            }
        }
        Ok(admitted)
    }
}

/// A policy's manifest; `spec` in YAML's flow style.
fn policy(name: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    let (name, annotations) = match name.strip_suffix("?") {
        Some(name) => (name, r#"{istio.io/dry-run: "true"}"#),
        None => (name, "{}"),
    };
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: {name}, namespace: {namespace}, annotations: {annotations}}}\n\
         spec: {spec}\n"
    )
}

fn policies<'a>(all: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let manifests = all.into_iter().map(|(name, spec)| policy(name, spec));
    manifests.collect::<Vec<_>>().join("---\n")
}

fn from(source: &str) -> String {
    format!("rules: [{{from: [{{source: {{{source}}}}}]}}]")
}

/// Waits until a metric has counted as much.
fn counted(lab: &Lab, node: &str, name: &str, labels: &[(&str, &str)], least: f64) {
    let what = format!("{least} of {name} {labels:?} on {node}");
    eventually(&what, DEADLINE, || {
        lab.node(node).metric(name, labels).unwrap() >= least
    });
}

fn logged(mesh: &mut RunningMesh<'_>, node: &str, words: &[&str]) -> Result<String> {
    let agent: &mut Child = mesh.agent(node);
    agent.await_stderr(DEADLINE, |line| {
        words.iter().all(|word| line.contains(word))
    })
}

#[test]
fn policies_admit_whom_they_say_from_this_node_and_the_other() -> Result<()> {
    for (network, family) in [
        (PodNetwork::Routed, Family::V4),
        (PodNetwork::Bridged, Family::V6),
    ] {
        let lab = Lab::builder("admit").pods(network).family(family).build()?;
        let shop = Shop::open(&lab)?;
        let mesh = Mesh::default().start(&lab)?;
        let friend_address = format!("{:?}", shop.friend.address().to_string());
        let allow = |rules: &str| format!("{{action: ALLOW, {rules}}}");
        let deny = |rules: &str| format!("{{action: DENY, {rules}}}");
        let to = |operation: &str| format!("rules: [{{to: [{{operation: {{{operation}}}}}]}}]");
        let friend = from(&format!("principals: [{FRIEND}]"));
        let stranger = from(&format!("principals: [{STRANGER}]"));

        // Friend at 8080 and 8081, stranger at 8080 and 8081.
        let table: Vec<(Vec<(&str, String)>, &str)> = vec![
            (vec![], "++++"),
            (vec![("shop/principal", allow(&friend))], "++--"),
            (vec![("shop/nobody", "{}".into())], "----"),
            (
                vec![("shop/namespace", allow(&from("namespaces: [street]")))],
                "--++",
            ),
            (
                vec![("shop/account", allow(&from("serviceAccounts: [friend]")))],
                "++--",
            ),
            (
                vec![
                    ("shop/all", allow("rules: [{}]")),
                    ("shop/but", deny(&friend)),
                ],
                "--++",
            ),
            (
                vec![("shop/ports", allow(&to("ports: [\"8080\"]")))],
                "+-+-",
            ),
            (
                vec![("shop/not-ports", deny(&to("notPorts: [\"8081\"]")))],
                "-+-+",
            ),
            (
                vec![(
                    "shop/address",
                    allow(&from(&format!("ipBlocks: [{friend_address}]"))),
                )],
                "++--",
            ),
            (
                vec![(
                    "shop/not-address",
                    deny(&from(&format!("notIpBlocks: [{friend_address}]"))),
                )],
                "++--",
            ),
            (
                vec![("shop/or", allow(&friend)), ("shop/else", allow(&stranger))],
                "++++",
            ),
            (
                vec![(
                    "shop/http",
                    allow("rules: [{to: [{operation: {methods: [GET]}}]}]"),
                )],
                "----",
            ),
            (
                vec![(
                    "shop/others",
                    "{selector: {matchLabels: {app: bank}}}".into(),
                )],
                "++++",
            ),
            (
                vec![("shop/till", "{selector: {matchLabels: {app: till}}}".into())],
                "----",
            ),
            (vec![("street/elsewhere", "{}".into())], "++++"),
            (vec![("ambit-system/mesh", deny(&stranger))], "++--"),
            (vec![("shop/dry?", deny(&friend))], "++++"),
            (
                vec![(
                    "shop/when",
                    deny(&format!(
                        "rules: [{{when: [{{key: source.principal, values: [{FRIEND}]}}]}}]"
                    )),
                )],
                "--++",
            ),
        ];
        for (written, expected) in &table {
            let written = written.iter().map(|(name, spec)| (*name, spec.as_str()));
            let text = policies(written);
            mesh.apply(FILE, &text)?;
            for server in &shop.servers {
                let admitted = shop.admitted(server)?;
                assert_eq!(admitted, *expected, "{network:?} {}: {text}", server.name());
            }
        }
    }
    Ok(())
}

#[test]
fn a_refusal_and_a_dry_run_are_told_by_log_and_metrics() -> Result<()> {
    let lab = Lab::builder("told").build()?;
    let shop = Shop::open(&lab)?;
    let mut mesh = Mesh::default().start(&lab)?;
    let only_friend = format!("{{{}}}", from(&format!("principals: [{FRIEND}]")));
    let no_friend = format!(
        "{{action: DENY, {}}}",
        from(&format!("principals: [{FRIEND}]"))
    );
    let text = policies([
        ("shop/only-friend", only_friend.as_str()),
        ("shop/trial?", &no_friend),
    ]);
    mesh.apply(FILE, &text)?;
    for (server, node) in shop.servers.iter().zip(["a", "b"]) {
        assert_eq!(shop.admitted(server)?, "++--");
        let at = server.at(8080).to_string();
        let refusal = logged(
            &mut mesh,
            node,
            &[
                "connection denied",
                "shop/only-friend",
                &at,
                "direction=\"inbound\"",
                STRANGER,
            ],
        )?;
        assert!(refusal.contains("src.workload=\"stranger\""), "{refusal}");
        let (friend, stranger) = (shop.friend.address(), shop.stranger.address());
        let trial = [
            "dry run",
            "refused",
            "shop/trial rules[0]",
            &format!("source={friend}"),
        ];
        logged(&mut mesh, node, &trial)?;
        let on_trial = |line: &&str| line.contains("shop/trial");
        let log = mesh.agent(node).stderr();
        assert!(
            !log.lines()
                .filter(on_trial)
                .any(|line| line.contains(&stranger.to_string()))
        );

        let principal = format!("spiffe://{STRANGER}");
        let labels = [
            ("reporter", "destination"),
            ("response_flags", "DENY"),
            ("source_principal", principal.as_str()),
            ("destination_workload", server.name()),
        ];
        counted(
            &lab,
            node,
            "istio_tcp_connections_closed_total",
            &labels,
            2.0,
        );
        // The client's agent knows as well why.
        let labels = [("reporter", "source"), labels[1], labels[2], labels[3]];
        counted(
            &lab,
            "a",
            "istio_tcp_connections_closed_total",
            &labels,
            2.0,
        );
        counted(
            &lab,
            node,
            "ambit_policy_denials_total",
            &[("policy", "shop/only-friend")],
            2.0,
        );
    }
    Ok(())
}

#[test]
fn a_change_ends_the_connections_that_it_denies_and_no_others() -> Result<()> {
    let lab = Lab::builder("change").build()?;
    let mut shop = Shop::open(&lab)?;
    let mut mesh = Mesh::default().start(&lab)?;
    let mut idle = Vec::new();
    for client in [&shop.friend, &shop.stranger] {
        for server in &shop.servers {
            let at = server.at(8080).to_string();
            let mut child =
                client.spawn_peer(["idle-client", "--connections", "3", "--connect", &at])?;
            child.await_json("open", DEADLINE)?;
            idle.push(child);
        }
    }
    let [_, _, near, far] = idle.as_mut_slice() else {
        unreachable!()
    };
    let street = policy(
        "shop/no-street",
        &format!("{{action: DENY, {}}}", from("namespaces: [street]")),
    );
    mesh.apply(FILE, &street)?;
    for child in [near, far] {
        assert_eq!(
            child.await_json("ends", DEADLINE)?["ends"],
            serde_json::json!(["reset", "reset", "reset"])
        );
    }
    let stranger = shop.stranger.address();
    for (index, node) in [(0, "a"), (2, "b")] {
        for report in shop.listening[index].await_reports(3, DEADLINE)? {
            let peer: std::net::SocketAddr = report["peer"].as_str().unwrap().parse().unwrap();
            assert_eq!(
                (peer.ip().to_canonical(), &report["end"]),
                (stranger, &"reset".into())
            );
        }
        let words = [
            "connection denied",
            "closed by a policy change",
            "shop/no-street rules[0]",
        ];
        logged(&mut mesh, node, &words[..1])?;
        logged(&mut mesh, node, &words[1..])?;
    }
    // The friend's are open, at both agents and at both ends.
    let open = |node: &str| {
        let connections = lab.node(node).admin("/connections").unwrap();
        let sources = connections.as_array().unwrap().iter();
        sources
            .map(|c| c["source"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    eventually("only the friend's connections", DEADLINE, || {
        open("a") == ["shop/friend"; 6] && open("b") == ["shop/friend"; 3]
    });
    assert!(idle[0].is_running() && idle[1].is_running());
    assert!(shop.listening[0].reports()?.len() == 3 && shop.listening[2].reports()?.len() == 3);

    // Without the policy all is as before.
    mesh.apply(FILE, "")?;
    assert_eq!(shop.admitted(&shop.servers[1])?, "++++");
    Ok(())
}
