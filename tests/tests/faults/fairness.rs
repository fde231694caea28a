//! One pod that floods, and others that go about their business.

use lab::{Flood, Harm, Lab, Mesh, Pod, Result, eventually};

use crate::shop::{DEADLINE, pod, refused, stranger};

/// Connections that an agent carries at most: three quarters of them are one pod's.
const MOST: u16 = 1000;
/// Of a flood, at once: more than there are places in all.
const FLOOD: u16 = 1500;
/// And in all.
const OPENS: u32 = 20_000;
/// Times that others connect meanwhile.
const TIMES: usize = 10;

#[test]
fn a_pod_that_floods_keeps_no_other_from_connecting() -> Result<()> {
    let lab = Lab::builder("flood").build()?;
    lab.namespace("shop").enrolled()?;
    let (flooder, quiet) = (pod(&lab, "a", "flooder")?, pod(&lab, "a", "quiet")?);
    let (near, far) = (pod(&lab, "a", "near")?, pod(&lab, "b", "far")?);
    let (outside, guest) = (
        stranger(&lab, "b", "outside")?,
        stranger(&lab, "b", "guest")?,
    );
    let _served = [near.echo(80)?, far.echo(80)?];
    let most = MOST.to_string();
    let mut mesh = Mesh::default()
        .agent_arguments(&["--max-connections", &most])
        .start(&lab)?;
    let (a, b) = (lab.node("a"), lab.node("b"));

    // To another node, through tunnels; and within the node, from pod to pod.
    for server in [&far, &near] {
        let before = refused(a, "pod_limit", "shop/flooder");
        let flood = Flood::start(&flooder, Harm::Silent, &[server.at(80)], FLOOD, OPENS)?;
        all_served(&quiet, &[&far, &near])?;
        assert!(refused(a, "pod_limit", "shop/flooder") > before);
        drop(flood);
        await_none_open(&lab, "a");
        assert_eq!(flooder.call(server.at(80))?, "echoed");
    }
    // In plaintext, where it isn't known who it is that floods: the server's share is used up.
    let flood = Flood::start(&outside, Harm::Silent, &[near.at(80)], FLOOD, OPENS)?;
    all_served(&quiet, &[&far, &near])?;
    all_served(&guest, &[&far])?;
    eventually("the flood to meet its limit", DEADLINE, || {
        refused(a, "pod_limit", "shop/near") > 0.0
    });
    drop(flood);
    await_none_open(&lab, "a");
    assert_eq!(guest.call(near.at(80))?, "echoed");

    for node in [a, b] {
        for pod in ["shop/quiet", "shop/far", "unknown"] {
            assert_eq!(refused(node, "pod_limit", pod), 0.0, "{pod}");
        }
        assert_eq!(
            node.metric(
                "ambit_connections_refused_total",
                &[("reason", "node_limit")]
            )?,
            0.0
        );
    }
    let told = mesh.agent("a").await_stderr(DEADLINE, |line| {
        line.contains("connection refused: it has") && line.contains("shop/flooder")
    })?;
    assert!(told.contains("--max-connections-per-pod"), "{told}");
    Ok(())
}

fn all_served(client: &Pod, servers: &[&Pod]) -> Result<()> {
    for server in servers.iter().cycle().take(TIMES) {
        assert_eq!(client.call(server.at(80))?, "echoed", "{}", server.name());
    }
    Ok(())
}

fn await_none_open(lab: &Lab, node: &str) {
    eventually("the flood's connections to be gone", DEADLINE, || {
        let open = lab.node(node).metric("ambit_connections_open", &[]);
        open.is_ok_and(|open| open == 0.0)
    });
}
