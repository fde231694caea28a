//! Between a pod and its node's agent there is no link, and nothing waits for a timer to send.

use std::{net::SocketAddr, time::Duration};

use lab::{Child, Lab, Mesh, Pod, PodSpec, Result};

/// The congestion control of the pod's established connections with a port, at its end.
fn congestion_control(pod: &Pod, port: u16) -> Result<Vec<String>> {
    let filter = format!("( sport = :{port} or dport = :{port} )");
    let told = pod.run("ss", ["-Htin", "state", "established", &filter])?;
    let mut found: Vec<String> = told
        .success()?
        .lines()
        .filter(|line| line.starts_with(char::is_whitespace))
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect();
    found.dedup();
    Ok(found)
}

/// A connection of the pod's own that stays open.
fn keep(pod: &Pod, at: SocketAddr) -> Result<Child> {
    let connect = at.to_string();
    let arguments = [
        "persistent-client",
        "--text",
        "hello",
        "--connect",
        &connect,
    ];
    let mut client = pod.spawn_peer(arguments)?;
    client.await_json("echoing", Duration::from_secs(30))?;
    Ok(client)
}

#[test]
fn only_connections_with_the_agent_lose_their_pacing() -> Result<()> {
    let lab = Lab::builder("pacing").family(lab::Family::Dual).build()?;
    lab.namespace("shop").enrolled()?;
    let client = lab.node("a").pod("client", PodSpec::in_namespace("shop"))?;
    let server = lab.node("b").pod("server", PodSpec::in_namespace("shop"))?;
    let stranger = lab
        .node("b")
        .pod("stranger", PodSpec::in_namespace("legacy"))?;
    for pod in [&client, &server, &stranger] {
        let chosen = pod.run("sysctl", ["-w", "net.ipv4.tcp_congestion_control=bbr"])?;
        chosen.success()?;
    }
    let _mesh = Mesh::default().start(&lab)?;
    let _echo = server.echo(8080)?;
    let _other = stranger.echo(8081)?;

    for (at, far) in server.all_at(8080).into_iter().zip(stranger.all_at(8081)) {
        let _meshed = keep(&client, at)?;
        let _plain = keep(&client, far)?;
        assert_eq!(congestion_control(&client, 8080)?, ["reno"], "{at}");
        assert_eq!(congestion_control(&server, 8080)?, ["reno"], "{at}");
        assert_eq!(congestion_control(&client, 8081)?, ["bbr"], "{far}");
        assert_eq!(congestion_control(&stranger, 8081)?, ["bbr"], "{far}");
    }
    Ok(())
}
