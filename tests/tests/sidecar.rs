//! The benchmark's rival at work: real HAProxy processes, as sidecars.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which clippy doesn't count as tests"
)]

use std::{
    collections::HashSet,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use lab::{
    Family, Lab, Packet, Pod, PodSpec, Result, Transport, eventually,
    sidecar::{Adapter, Fleet, Kind},
};

const DEADLINE: Duration = Duration::from_secs(20);
/// How each request of the lab's echo client begins.
const MARKER: &str = "0/0 0/0 0/0 0/0 ";
/// Whom Istio's address for the inbound half of a sidecar, and ours, makes an application see.
const INBOUND_HALF: &str = "127.0.0.6";

fn shop() -> PodSpec {
    PodSpec::in_namespace("shop")
}

fn haproxy_by_adapter_file() -> Kind {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/bench/example.yaml");
    Kind::Adapter(Adapter::read(&path).unwrap())
}

/// Has `client` talk to an echo server on a port of `server`; 20 requests on a connection.
fn echoes(client: &Pod, server: &Pod, port: u16) -> Result<bool> {
    let at = server.at(port).to_string();
    let told = client.peer(["echo-client", "--connect", &at, "--requests", "20"])?;
    Ok(told["succeeded"] == 1)
}

#[test]
fn pods_talk_by_both_proxies_and_the_wire_shows_only_tls() -> Result<()> {
    for kind in [Kind::HaProxy, haproxy_by_adapter_file()] {
        let lab = Lab::builder("sidecar").build()?;
        let client = lab.node("a").pod("client", shop().service_account("web"))?;
        let near = lab.node("b").pod("near", shop())?;
        let server = lab.node("b").pod("server", shop())?;
        let mut echo = server.echo(8080)?;
        let wire = lab.wire_capture()?;
        assert!(echoes(&client, &server, 8080)?);
        let clear = wire.stop()?;
        assert!(clear.iter().any(|packet| packet.contains(MARKER)));

        let wire = lab.wire_capture()?;
        let fleet = Fleet::start(&lab, &kind, &[&client, &near, &server])?;
        assert!(fleet.pids().len() >= 3);
        for pid in fleet.pids() {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            assert!(status.contains("Uid:\t1337\t1337\t1337\t1337"), "{status}");
        }

        assert!(echoes(&client, &server, 8080)?, "{}", kind.mode());
        assert!(echoes(&near, &server, 8080)?, "{}: same node", kind.mode());
        echo.await_reports(3, DEADLINE)?;
        let half: IpAddr = INBOUND_HALF.parse().unwrap();
        let seen: Vec<IpAddr> = echo.clients()?.iter().map(|client| client.ip()).collect();
        assert_eq!(seen, [client.address(), half, half]);
        only_tls(&wire.stop()?);
    }
    Ok(())
}

/// Checks that each direction of each connection begins as TLS does, and shows no marker.
fn only_tls(packets: &[Packet]) {
    let mut begun = HashSet::new();
    for packet in packets.iter().filter(|packet| packet.is_tcp()) {
        assert!(!packet.contains(MARKER), "in clear on the wire: {packet}");
        let direction = (packet.source, packet.destination, ports(packet));
        if !packet.payload.is_empty() && begun.insert(direction) {
            assert_eq!(packet.payload[..2], [0x16, 0x03], "no TLS: {packet}");
        }
    }
    assert_eq!(begun.len(), 2, "one connection, both directions: {begun:?}");
}

fn ports(packet: &Packet) -> (u16, u16) {
    match packet.transport {
        Transport::Tcp {
            source,
            destination,
            ..
        } => (source, destination),
        _ => unreachable!("only TCP is asked for"),
    }
}

#[test]
fn requests_are_routed_as_the_benchmarks_waypoint_routes_them() -> Result<()> {
    let lab = Lab::builder("sidecar-http").build()?;
    let client = lab.node("a").pod("client", shop())?;
    let server = lab.node("b").pod("server", shop())?;
    let _serve = server.peer_server(["http-server", "--listen", "0.0.0.0:8080"])?;
    let _fleet = Fleet::start(&lab, &Kind::HaProxyHttp, &[&client, &server])?;
    let canary = &["-H", "x-canary: yes"][..];
    for (path, arguments, asked, route) in [
        ("/", &[][..], "\"/\"", "default"),
        ("/", canary, "\"/\"", "canary"),
        ("/old/thing?a=b", canary, "\"/new/thing", "old"),
        ("/older", &[], "\"/older\"", "default"),
    ] {
        let url = format!("http://{}{path}", server.at(8080));
        let command = client.command("curl").args(["-sS", "-m", "10"]);
        let seen = command.args(arguments).arg(url).run()?.success()?;
        let is_seen = seen.contains(asked) && seen.contains(&format!("\"{route}\""));
        assert!(is_seen, "{path} {arguments:?}: {seen}");
    }
    Ok(())
}

#[test]
fn whoever_has_no_certificate_is_refused() -> Result<()> {
    let lab = Lab::builder("stranger").build()?;
    let member = lab.node("a").pod("member", shop())?;
    let stranger = lab.node("a").pod("stranger", shop())?;
    let server = lab.node("b").pod("server", shop())?;
    let echo = server.echo(8080)?;
    let fleet = Fleet::start(&lab, &Kind::HaProxy, &[&member, &server])?;
    assert!(!echoes(&stranger, &server, 8080)?, "in plaintext");
    let url = format!("https://{}/", server.at(8080));
    let without = stranger.run("curl", ["-sSk", "--max-time", "10", &url])?;
    let refusal = "certificate required";
    assert!(without.stderr.contains(refusal), "{}", without.stderr);
    // Neither does a certificate of another fleet's authority help.
    let other = Fleet::start(&lab, &Kind::HaProxy, &[&stranger])?;
    assert!(!echoes(&stranger, &server, 8080)?, "of another authority");
    assert_eq!(echo.clients()?, [], "the server saw none of them");

    assert!(echoes(&member, &server, 8080)?, "a member is served");
    drop((fleet, other));
    assert!(
        echoes(&stranger, &server, 8080)?,
        "without sidecars as ever"
    );
    Ok(())
}

#[test]
fn a_restart_cuts_open_connections_and_serves_new_ones() -> Result<()> {
    let lab = Lab::builder("restart").build()?;
    let client = lab.node("a").pod("client", shop())?;
    let server = lab.node("b").pod("server", shop())?;
    let _echo = server.echo(8080)?;
    let mut fleet = Fleet::start(&lab, &Kind::HaProxy, &[&client, &server])?;
    let before: HashSet<u32> = fleet.pids().into_iter().collect();
    let mut held = client.hold(server.at(8080))?;
    held.echo().unwrap();

    fleet.restart(&server)?;
    // By FIN or by RST: the application has lost it.
    assert!(held.echo().is_err());
    let after: HashSet<u32> = fleet.pids().into_iter().collect();
    assert_eq!((after.len(), after.intersection(&before).count()), (2, 1));
    assert!(echoes(&client, &server, 8080)?);
    Ok(())
}

#[test]
fn a_fleet_changes_pods_and_leaves_nothing_behind() -> Result<()> {
    let lab = Lab::builder("fleet").build()?;
    let server = lab.node("b").pod("server", shop())?;
    let client = lab.node("a").pod("client", shop())?;
    let mut echo = server.echo(8080)?;
    let rules = |pod: &Pod| -> Result<String> { pod.run("nft", ["list", "ruleset"])?.success() };
    let mut fleet = Fleet::start(&lab, &Kind::HaProxy, &[&server])?;
    let first = fleet.pids();
    fleet.add(&client)?;
    assert!(echoes(&client, &server, 8080)?, "one that came later");
    let again = fleet.add(&client).unwrap_err().to_string();
    assert!(again.contains("client has a sidecar already"), "{again}");
    for pod in [&client, &server] {
        let rules = rules(pod)?;
        for port in ["15001", "15006"] {
            assert!(rules.contains(port), "{rules}");
        }
    }
    let all = fleet.pids();
    fleet.remove(&client);
    assert_eq!((fleet.pids(), rules(&client)?.as_str()), (first, ""));
    assert!(!echoes(&client, &server, 8080)?, "the server wants TLS");

    assert_eq!(sidecar_files(&lab).len(), 1);
    drop(fleet);
    assert_eq!(rules(&server)?, "");
    assert_eq!(sidecar_files(&lab), Vec::<PathBuf>::new());
    eventually("no proxy", DEADLINE, || {
        all.iter()
            .all(|pid| !Path::new(&format!("/proc/{pid}")).exists())
    });
    assert!(echoes(&client, &server, 8080)?);
    echo.await_reports(2, DEADLINE)?;
    let last = echo.clients()?.last().unwrap().ip();
    assert_eq!(last, client.address(), "nobody in between");
    Ok(())
}

fn sidecar_files(lab: &Lab) -> Vec<PathBuf> {
    let entries = fs::read_dir(lab.directory()).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let of_sidecar = |path: &PathBuf| {
        path.file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("sidecar-")
    };
    paths.filter(of_sidecar).collect()
}

#[test]
fn what_cannot_be_a_sidecar_says_why() -> Result<()> {
    let lab = Lab::builder("unfit").family(Family::Dual).build()?;
    let pod = lab.node("a").pod("client", shop())?;
    let adapter = |text: &str| Kind::Adapter(Adapter::parse("own.yaml", text).unwrap());
    let table = [
        (Kind::HaProxy, "fd00:77:0:1::2"),
        (Kind::Linkerd, "identity and destination controllers"),
        (
            adapter("{name: own, command: [no-such-proxy], ready: {port: 15021}}"),
            "no-such-proxy isn't on PATH: install it",
        ),
        (
            adapter("{name: own, command: ['false'], ipv6: true, ready: {port: 15021}}"),
            "it has ended",
        ),
    ];
    for (kind, why) in table {
        let error = Fleet::start(&lab, &kind, &[&pod]).unwrap_err().to_string();
        assert!(error.contains(why), "{error:?} lacks {why:?}");
        assert_eq!(sidecar_files(&lab), Vec::<PathBuf>::new());
        assert_eq!(pod.run("nft", ["list", "ruleset"])?.success()?, "");
    }
    assert_eq!(Kind::HaProxy.mode(), "sidecar-haproxy");
    assert_eq!(haproxy_by_adapter_file().mode(), "sidecar-example");
    Ok(())
}
