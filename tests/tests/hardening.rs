//! What a process of Ambit has given up, and what it tells nobody.

use std::{fs, time::Duration};

use lab::{Lab, Mesh, Pod, PodSpec, Result, RunningMesh, children, eventually, of_threads};

const DEADLINE: Duration = Duration::from_secs(30);
/// A mode of /proc/PID/status: system calls are filtered.
const FILTERED: &str = "2";

/// Agents, control and a waypoint, which is a child of an agent.
fn processes(mesh: &mut RunningMesh<'_>) -> Result<Vec<(&'static str, u32)>> {
    let agent = mesh.agent("a").pid();
    let mut all = vec![("agent", agent), ("control", mesh.control().pid())];
    all.extend(
        children(agent)?
            .into_iter()
            .map(|child| ("waypoint", child)),
    );
    Ok(all)
}

/// A server on node b and its client on node a, enrolled.
fn pair(lab: &Lab) -> Result<(Pod, Pod)> {
    lab.namespace("shop").enrolled()?;
    let pod = |node: &str, name| lab.node(node).pod(name, PodSpec::in_namespace("shop"));
    Ok((pod("a", "client")?, pod("b", "server")?))
}

#[test]
fn no_role_can_do_more_than_it_needs_and_none_leaves_a_core() -> Result<()> {
    let lab = Lab::builder("hardening").build()?;
    let (client, server) = pair(&lab)?;
    let _echo = server.echo(8080)?;
    lab.announce_nodes()?;
    let labels = [
        ("ambit.dev/mesh", "enabled"),
        ("ambit.dev/use-waypoint", "w"),
    ];
    lab.namespace("shop").labelled(&labels)?;
    let service = lab.service("shop", "server").port(80, 8080);
    let service = service.endpoint(&server).apply()?;
    let mut mesh = Mesh::default().start(&lab)?;
    eventually("the waypoint", DEADLINE, || {
        client.call(service.at(80)).unwrap() == "echoed"
    });

    let processes = processes(&mut mesh)?;
    assert!(
        processes.iter().any(|(role, _)| *role == "waypoint"),
        "{processes:?}"
    );
    for (role, pid) in processes {
        for (field, expected) in [("Seccomp", FILTERED), ("NoNewPrivs", "1")] {
            let statuses = of_threads(pid, "status")?;
            assert!(!statuses.is_empty(), "{role}");
            let value = |status: &String| {
                let line = status.lines().find_map(|line| line.strip_prefix(field));
                line.map(|line| line.trim_start_matches(':').trim().to_owned())
            };
            let values: Vec<String> = statuses.iter().filter_map(value).collect();
            assert!(
                values.iter().all(|value| value == expected),
                "{role} {field} {values:?}"
            );
        }
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let mut core = limits
            .lines()
            .filter(|line| line.starts_with("Max core file size"));
        let words: Vec<_> = core.next().unwrap().split_whitespace().collect();
        assert_eq!(words[4..6], ["1", "1"], "{role}");
    }
    Ok(())
}

#[test]
fn nothing_that_is_told_has_a_secret_in_it() -> Result<()> {
    let lab = Lab::builder("secrets").build()?;
    let (client, server) = pair(&lab)?;
    let _echo = server.echo(8080)?;
    let mut mesh = Mesh::default()
        .agent_arguments(&["--log-level", "trace"])
        .start(&lab)?;
    assert_eq!(client.call(server.at(8080))?, "echoed");

    let tokens = fs::read_to_string(lab.directory().join("node-tokens")).unwrap();
    let tokens = tokens.lines().filter_map(|line| line.split_once(','));
    let mut secrets: Vec<String> = tokens.map(|(token, _)| token.to_owned()).collect();
    assert!(!secrets.is_empty());
    secrets.push("PRIVATE KEY".to_owned());
    let node = lab.node("a");
    let mut told = mesh.agent("a").stderr();
    for path in [
        "status",
        "connections",
        "workloads",
        "services",
        "policies",
        "certificates",
        "problems",
        "plaintext",
        "explain?source=shop/client&destination=shop/server:8080",
        "logging",
    ] {
        let page = node.fetch(&format!("http://127.0.0.1:15000/{path}"))?;
        assert!(!page.is_empty(), "{path}");
        told += &page;
    }
    told += &node.fetch("http://127.0.0.1:15020/metrics")?;
    assert!(told.contains("TRACE") || told.contains("\"level\":\"TRACE\""));
    for secret in secrets {
        assert!(!told.contains(&secret), "a secret is told: {secret}");
    }
    Ok(())
}
