//! PeerAuthentication: whether plaintext from outside the mesh reaches a pod.

use std::time::Duration;

use lab::{Family, Lab, Mesh, PodNetwork, PodSpec, Result, ambit_program};
use serde_json::json;

const DEADLINE: Duration = Duration::from_secs(30);
const FILE: &str = "peer-authentication.yaml";

fn manifest(namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
         metadata: {{name: of-{namespace}-{}, namespace: {namespace}}}\nspec: {spec}\n---\n",
        spec.len()
    )
}

#[test]
fn plaintext_gets_where_the_narrowest_mode_lets_it() -> Result<()> {
    let till = "selector: {matchLabels: {app: till}}";
    let strict = "{mtls: {mode: STRICT}}";
    type Policies<'a> = Vec<(&'a str, String)>;
    let table: Vec<(Policies<'_>, [&str; 2])> = vec![
        (vec![], ["echoed", "echoed"]),
        (vec![("shop", strict.into())], ["reset", "reset"]),
        (
            vec![("shop", "{mtls: {mode: PERMISSIVE}}".into())],
            ["echoed", "echoed"],
        ),
        (vec![("ambit-system", strict.into())], ["reset", "reset"]),
        (
            vec![
                ("ambit-system", strict.into()),
                ("shop", "{mtls: {mode: DISABLE}}".into()),
            ],
            ["echoed", "echoed"],
        ),
        (
            vec![(
                "shop",
                format!(
                    "{{{till}, mtls: {{mode: STRICT}}, portLevelMtls: {{8081: {{mode: PERMISSIVE}}}}}}"
                ),
            )],
            ["reset", "echoed"],
        ),
        (
            vec![
                ("shop", strict.into()),
                (
                    "shop",
                    format!(
                        "{{{till}, mtls: {{mode: PERMISSIVE}}, portLevelMtls: {{8081: {{mode: STRICT}}}}}}"
                    ),
                ),
            ],
            ["echoed", "reset"],
        ),
        (vec![("street", strict.into())], ["echoed", "echoed"]),
    ];
    for (network, family) in [
        (PodNetwork::Routed, Family::V6),
        (PodNetwork::Bridged, Family::V4),
    ] {
        let lab = Lab::builder("peerauth")
            .pods(network)
            .family(family)
            .build()?;
        lab.namespace("shop").enrolled()?;
        lab.namespace("street").not_enrolled()?;
        let (a, b) = (lab.node("a"), lab.node("b"));
        let server = || PodSpec::in_namespace("shop").label("app", "till");
        let servers = [a.pod("near", server())?, b.pod("far", server())?];
        let outside = a.pod("outside", PodSpec::in_namespace("street"))?;
        let member = a.pod("member", PodSpec::in_namespace("shop"))?;
        let mut listening = Vec::new();
        for server in &servers {
            for port in ["[::]:8080", "[::]:8081"] {
                listening.push(server.peer_server([
                    "echo-server",
                    "--dual-stack",
                    "--listen",
                    port,
                ])?);
            }
        }
        let mut mesh = Mesh::default().start(&lab)?;

        for (written, expected) in &table {
            let text: String = written
                .iter()
                .map(|(ns, spec)| manifest(ns, spec))
                .collect();
            mesh.apply(FILE, &text)?;
            for server in &servers {
                let ends = [
                    outside.call(server.at(8080))?,
                    outside.call(server.at(8081))?,
                ];
                assert_eq!(ends, *expected, "{network:?} {}: {text}", server.name());
                assert_eq!(member.call(server.at(8080))?, "echoed", "{text}");
            }
        }

        // What is refused is told, and STRICT ends plaintext that is open.
        for (server, node) in servers.iter().zip(["a", "b"]) {
            let refused = |line: &str| {
                line.contains("demands mutual TLS") && line.contains(&server.at(8080).to_string())
            };
            let line = mesh.agent(node).await_stderr(DEADLINE, refused)?;
            assert!(!line.contains("src.identity"), "{line}");
        }
        let at = servers[1].at(8080).to_string();
        let mut idle = outside.spawn_peer(["idle-client", "--connect", &at])?;
        idle.await_json("open", DEADLINE)?;
        mesh.apply(FILE, &manifest("shop", strict))?;
        assert_eq!(idle.await_json("ends", DEADLINE)?["ends"], json!(["reset"]));

        // A policy sees no identity in plaintext.
        let anyone = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                      metadata: {name: known, namespace: shop}\n\
                      spec: {rules: [{from: [{source: {principals: ['*']}}]}]}\n";
        mesh.apply(FILE, anyone)?;
        for server in &servers {
            assert_eq!(outside.call(server.at(8080))?, "reset");
            assert_eq!(member.call(server.at(8080))?, "echoed");
        }
    }
    Ok(())
}

#[test]
fn whom_strict_would_break_is_known_before() -> Result<()> {
    let lab = Lab::builder("readiness").build()?;
    lab.namespace("shop").enrolled()?;
    lab.namespace("street").not_enrolled()?;
    let pod = |node: &str, namespace: &str, name: &str| {
        lab.node(node).pod(name, PodSpec::in_namespace(namespace))
    };
    let (till, web) = (pod("a", "shop", "till")?, pod("b", "shop", "web")?);
    let out = pod("b", "street", "out")?;
    let _echo = till.echo(8080)?;
    let _mesh = Mesh::default().start(&lab)?;
    let readiness = || {
        let command = lab.node("a").command(ambit_program()?);
        command.args(["status", "--readiness"]).run()?.success()
    };
    assert_eq!(web.call(till.at(8080))?, "echoed");
    assert!(readiness()?.starts_with("No client has spoken plaintext to a pod of node a"));

    for _ in 0..2 {
        assert_eq!(out.call(till.at(8080))?, "echoed");
    }
    let address = lab.node("b").address();
    assert_eq!(lab.node("b").call(till.at(8080))?, "echoed");
    let told = readiness()?;
    eprintln!("{told}");
    let line = |client: &str| {
        let mut lines = told.lines();
        let line = lines.find(|line| line.contains(client)).expect(client);
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let of_pod = line("street/out");
    let expected = [
        "shop/till",
        "8080",
        "PERMISSIVE",
        "street/out",
        &out.address().to_string(),
        "2",
    ];
    assert_eq!(of_pod[..6], expected);
    assert!(told.contains("label namespace street ambit.dev/mesh=enabled"));
    assert!(line(&address.to_string()).contains(&"portLevelMtls".to_owned()));
    Ok(())
}
