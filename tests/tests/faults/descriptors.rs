//! Processes that may open no more files.

use std::{collections::HashSet, fs, net::SocketAddr};

use lab::{Lab, Mesh, Node, Pod, Result, Way, eventually};

use crate::shop::{DEADLINE, pod, wrapped};

/// Connections that are tried while there are no descriptors.
const TRIES: usize = 4;
/// How long one of them waits to be accepted; the kernel has accepted it for the listener.
const PATIENCE: &str = "300";

/// Lets a process have none beyond those that it has.
fn exhaust(node: &Node, pid: u32) -> Result<()> {
    let open: HashSet<usize> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .collect();
    let next = (0..).find(|number| !open.contains(number)).unwrap();
    limit(node, pid, next)
}

/// Sets below which number all of a process's new file descriptors have to be.
fn limit(node: &Node, pid: u32, descriptors: usize) -> Result<()> {
    let (pid, limit) = (pid.to_string(), format!("--nofile={descriptors}:4096"));
    node.run("prlimit", ["--pid", &pid, &limit])?.success()?;
    Ok(())
}

/// Whether a connection is carried soon.
fn is_served(client: &Pod, server: SocketAddr) -> Result<bool> {
    let at = server.to_string();
    let told = client.peer(["echo-client", "--connect", &at, "--timeout-ms", PATIENCE])?;
    Ok(told["succeeded"] == 1)
}

#[test]
fn without_descriptors_what_is_open_goes_on_and_all_is_well_once_there_are_some() -> Result<()> {
    let lab = Lab::builder("nofile").build()?;
    lab.namespace("shop").enrolled()?;
    let (client, far) = (pod(&lab, "a", "client")?, pod(&lab, "b", "far")?);
    let mut served = far.echo(80)?;
    // As a service manager would have it: little, and more for who asks.
    let program = wrapped(&lab, "exec prlimit --nofile=256:4096 ambit \"$@\"")?;
    let control_metrics = SocketAddr::new(lab.node("a").address(), 15014);
    let mut mesh = Mesh::default()
        .program(&program)
        .control_arguments(&["--metrics-address", &control_metrics.to_string()])
        .start(&lab)?;
    let enough = "4096 open file descriptors are this process's limit, enough for 1664 connections";
    mesh.agent("a")
        .await_stderr(DEADLINE, |line| line.contains(enough))?;

    let mut open = client.hold(far.at(80))?;
    open.echo().unwrap();
    let node = lab.node("a");
    let errors = || node.metric("ambit_accept_errors_total", &[]).unwrap();
    let pid = mesh.agent("a").pid();
    for round in 1..=2 {
        let before = errors();
        // One that was about to be closed is free again.
        eventually("no descriptor to be left", DEADLINE, || {
            exhaust(node, pid).unwrap();
            !is_served(&client, far.at(80)).unwrap()
        });
        for _ in 0..TRIES {
            assert!(!is_served(&client, far.at(80))?);
            open.echo().unwrap();
        }
        // Programs can't be attached to a new pod's interface now, but are once that is possible.
        let newcomer = pod(&lab, "a", &format!("newcomer-{round}"))?;
        limit(node, pid, 4096)?;
        eventually("the new pod to be served", DEADLINE, || {
            newcomer
                .talk(&mut served, far.at(80))
                .is_ok_and(|way| way == Way::Carried)
        });
        eventually("connections to be carried again", DEADLINE, || {
            client.call(far.at(80)).is_ok_and(|told| told == "echoed")
        });
        assert!(errors() > before, "round {round}");
        // Neither spun in vain: each pause of a listener is 50 ms.
        assert!(errors() - before < 2000.0, "{} errors", errors() - before);
        open.echo().unwrap();
    }
    mesh.agent("a")
        .await_stderr(DEADLINE, |line| line.contains("cannot accept a connection"))?;

    // Control, which has to give a new pod's agent a certificate.
    let control = mesh.control().pid();
    let metrics = format!("http://{control_metrics}/metrics");
    // As above: one may be about to be closed.
    eventually("no descriptor of control to be left", DEADLINE, || {
        exhaust(node, control).unwrap();
        let asked = node.run("curl", ["-sS", "--max-time", "1", &metrics]);
        asked.unwrap().success().is_err()
    });
    let late = pod(&lab, "a", "late")?;
    eventually("its certificate to be asked for in vain", DEADLINE, || {
        let failures = node.metric(
            "ambit_certificate_renewal_failures_total",
            &[("identity", "spiffe://cluster.local/ns/shop/sa/late")],
        );
        failures.is_ok_and(|failures| failures > 0.0)
    });
    assert_eq!(client.call(far.at(80))?, "echoed");
    limit(node, control, 4096)?;
    eventually("it to be given", DEADLINE, || {
        late.call(far.at(80)).is_ok_and(|told| told == "echoed")
    });
    let page = node.fetch(&metrics)?;
    let counted = page.lines().find_map(|line| {
        let value = line.strip_prefix("ambit_accept_errors_total ")?;
        value.parse::<f64>().ok()
    });
    assert!(counted.is_some_and(|count| count > 0.0), "{counted:?}");
    Ok(())
}
