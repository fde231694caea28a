//! The lab itself: what is connected, what is seen, and that the host isn't touched.

use std::{process::Command, time::Duration};

use lab::{Family, Lab, PodNetwork, PodSpec, Result, Transport, eventually};

const DEADLINE: Duration = Duration::from_secs(20);

fn each_network(test: impl Fn(PodNetwork, Family) -> Result<()>) -> Result<()> {
    for network in [PodNetwork::Routed, PodNetwork::Bridged] {
        for family in [Family::V4, Family::V6, Family::Dual] {
            eprintln!("{network:?} {family:?}");
            test(network, family)?;
        }
    }
    Ok(())
}

fn lab(name: &str, network: PodNetwork, family: Family) -> Result<Lab> {
    Lab::builder(name).pods(network).family(family).build()
}

fn shop() -> PodSpec {
    PodSpec::in_namespace("shop")
}

const ANY: [&str; 4] = ["echo-server", "--listen", "[::]:8080", "--dual-stack"];

#[test]
fn a_pod_reaches_pods_of_its_own_node_and_of_another() -> Result<()> {
    each_network(|network, family| {
        let lab = lab("reach", network, family)?;
        let client = lab.node("a").pod("client", shop())?;
        let near = lab.node("a").pod("near", shop())?;
        let far = lab.node("b").pod("far", shop())?;
        for server in [&near, &far] {
            let mut echo = server.peer_server(ANY)?;
            for address in server.all_at(8080) {
                let told = client.peer(["echo-client", "--connect", &address.to_string()])?;
                assert_eq!(told["succeeded"], 1, "{address}: {told}");
            }
            let count = server.addresses().len();
            for (report, own) in echo
                .await_reports(count, DEADLINE)?
                .iter()
                .zip(client.addresses())
            {
                // The server sees the client's own address, as v4-mapped where it is IPv4.
                let peer: std::net::SocketAddr = report["peer"].as_str().unwrap().parse().unwrap();
                assert_eq!(peer.ip().to_canonical(), *own);
            }
        }
        Ok(())
    })
}

#[test]
fn the_node_reaches_its_pods_from_its_own_address() -> Result<()> {
    each_network(|network, family| {
        let lab = lab("probe", network, family)?;
        let pod = lab.node("a").pod("pod", shop())?;
        let mut echo = pod.peer_server(ANY)?;
        for address in pod.all_at(8080) {
            let told = lab
                .node("a")
                .peer(["echo-client", "--connect", &address.to_string()])?;
            assert_eq!(told["succeeded"], 1, "{told}");
        }
        if network == PodNetwork::Routed {
            let reports = echo.await_reports(pod.addresses().len(), DEADLINE)?;
            for (report, node) in reports.iter().zip(lab.node("a").addresses()) {
                let peer: std::net::SocketAddr = report["peer"].as_str().unwrap().parse().unwrap();
                assert_eq!(peer.ip().to_canonical(), *node);
            }
        }
        Ok(())
    })
}

#[test]
fn kube_proxy_leads_a_service_address_to_every_ready_endpoint() -> Result<()> {
    each_network(|network, family| {
        let lab = lab("vip", network, family)?;
        let node = lab.node("a");
        let client = node.pod("client", shop())?;
        let pods = [
            node.pod("near", shop())?,
            lab.node("b").pod("far", shop())?,
            lab.node("b").pod("unready", shop())?,
        ];
        let mut servers = Vec::new();
        for pod in &pods {
            servers.push(pod.peer_server(ANY)?);
        }
        let [near, far, unready] = &pods;
        let service = lab.service("shop", "web").port(80, 8080);
        let service = service
            .endpoint(near)
            .endpoint(far)
            .unready_endpoint(unready)
            .apply()?;
        node.kube_proxy(&service)?;
        for vip in service.addresses() {
            let at = std::net::SocketAddr::new(*vip, 80).to_string();
            // A pod, a pod that is its own endpoint (now and then), and the node itself.
            for place in [&**node, &*client, &**near] {
                let told = place.peer(["echo-client", "--connections", "40", "--connect", &at])?;
                assert_eq!(told["succeeded"], 40, "{at} {told}");
            }
        }
        let count = 120 * service.addresses().len();
        let seen = |server: &lab::PeerServer| server.reports().unwrap().len();
        eventually("all connections reported", DEADLINE, || {
            seen(&servers[0]) + seen(&servers[1]) == count
        });
        // By chance alone, none of 120 would go to one of two once in 2^120 times.
        assert!(seen(&servers[0]) > 0 && seen(&servers[1]) > 0);
        assert_eq!(seen(&servers[2]), 0);

        let service = service.without_endpoints().apply()?;
        node.kube_proxy(&service)?;
        let refused = client.peer(["observe-client", "--connect", &service.at(80).to_string()])?;
        assert_eq!(refused["end"], "refused");
        Ok(())
    })
}

#[test]
fn a_forged_source_arrives_where_no_mesh_is_there() -> Result<()> {
    each_network(|network, family| {
        let lab = lab("forge", network, family)?;
        let forger = lab.node("a").pod("forger", shop())?;
        let victim = lab.node("a").pod("victim", shop())?;
        let server = lab.node("b").pod("server", shop())?;
        let sockets = victim.all_at(4444).into_iter().zip(server.all_at(80));
        for (source, destination) in sockets {
            let mut capture = server.capture("eth0", "tcp or ip6")?;
            let (source_text, destination_text) = (source.to_string(), destination.to_string());
            forger.peer([
                "forge-syn",
                "--source",
                &source_text,
                "--destination",
                &destination_text,
                "--count",
                "3",
            ])?;
            // The answers, resets, say that all three have arrived.
            let mut packets = Vec::new();
            eventually("three answers", DEADLINE, || {
                packets = capture.packets().unwrap();
                packets.iter().filter(|packet| packet.is_reset()).count() == 3
            });
            let forged = packets.iter().filter(|packet| {
                let tcp = Transport::Tcp {
                    source: 4444,
                    destination: 80,
                    flags: 2,
                };
                packet.source == source.ip() && packet.transport == tcp
            });
            assert_eq!(forged.count(), 3);
        }
        Ok(())
    })
}

#[test]
fn a_capture_has_every_packet_that_came_before_its_stop() -> Result<()> {
    for nodes in [&["a", "b"][..], &["a", "b", "c"]] {
        let lab = Lab::builder("wire").nodes(nodes).build()?;
        let client = lab.node("a").pod("client", shop())?;
        let server = lab.node("b").pod("server", shop())?;
        let _sink = server.peer_server(["sink-server", "--listen", "0.0.0.0:80"])?;
        let capture = lab.wire_capture()?;
        let at = server.at(80).to_string();
        let told = client.peer(["transfer-client", "--connect", &at, "--bytes", "3000000"])?;
        assert_eq!(
            (&told["sent_bytes"], &told["end"]),
            (&3_000_000.into(), &"eof".into())
        );
        let packets = capture.stop()?;
        let from_client = packets
            .iter()
            .filter(|packet| packet.source == client.address());
        let bytes: usize = from_client.map(|packet| packet.payload.len()).sum();
        assert!(bytes >= 3_000_000, "{bytes} of 3000000 bytes captured");
        assert!(
            packets
                .iter()
                .filter(|packet| packet.is_tcp())
                .all(|packet| packet.has_port(80))
        );
    }
    Ok(())
}

#[test]
fn a_capture_may_begin_in_the_middle_of_traffic() -> Result<()> {
    let lab = Lab::builder("midway").build()?;
    let client = lab.node("a").pod("client", shop())?;
    let server = lab.node("b").pod("server", shop())?;
    let _sink = server.peer_server(["sink-server", "--listen", "0.0.0.0:80"])?;
    let at = server.at(80).to_string();
    let load = client.spawn_peer([
        "transfer-client",
        "--connect",
        &at,
        "--bytes",
        "50000000000",
    ])?;
    for _ in 0..3 {
        // What comes before the kernel has the filter is counted, and never written.
        let packets = server.capture("eth0", "udp port 9")?.stop()?;
        assert!(packets.is_empty(), "{packets:?}");
    }
    load.kill();
    Ok(())
}

#[test]
fn labs_with_the_same_addresses_live_side_by_side() -> Result<()> {
    let labs = [
        lab("twin", PodNetwork::Routed, Family::Dual)?,
        lab("twin", PodNetwork::Routed, Family::Dual)?,
    ];
    let mut servers = Vec::new();
    let mut clients = Vec::new();
    for lab in &labs {
        let server = lab.node("b").pod("server", shop())?;
        servers.push(server.peer_server(ANY)?);
        clients.push((lab.node("a").pod("client", shop())?, server.at(8080)));
    }
    assert_eq!(clients[0].1, clients[1].1, "the same address in both");
    let (client, at) = &clients[0];
    let at = at.to_string();
    assert_eq!(
        client.peer(["echo-client", "--connect", &at])?["succeeded"],
        1
    );
    servers[0].await_reports(1, DEADLINE)?;
    assert_eq!(
        servers[1].reports()?.len(),
        0,
        "the other lab's server saw nothing"
    );
    Ok(())
}

#[test]
fn a_process_and_its_sockets_are_in_the_pods_namespace_and_cgroup() -> Result<()> {
    let lab = lab("place", PodNetwork::Routed, Family::V4)?;
    let pod = lab.node("a").pod("pod", shop())?;
    let told = pod.run(
        "sh",
        ["-c", "cat /proc/self/cgroup; readlink /proc/self/ns/net"],
    )?;
    let told = told.success()?;
    let name = lab.name();
    assert!(told.contains(&format!("0::/{name}/a/pod\n")), "{told}");
    let inside = pod.in_namespace(|| std::fs::read_link("/proc/thread-self/ns/net").unwrap())?;
    assert!(told.contains(&*inside.to_string_lossy()), "{told}");
    assert_ne!(inside, std::fs::read_link("/proc/self/ns/net").unwrap());
    let failed = pod
        .run("sh", ["-c", "echo why >&2; exit 3"])?
        .success()
        .unwrap_err();
    assert!(failed.to_string().contains("why"), "{failed}");
    Ok(())
}

#[test]
fn a_deleted_pods_address_serves_another() -> Result<()> {
    each_network(|network, family| {
        let lab = lab("reuse", network, family)?;
        let client = lab.node("a").pod("client", shop())?;
        let first = lab.node("a").pod("first", shop().service_account("one"))?;
        let addresses = first.addresses().to_vec();
        let at = first.at(8080).to_string();
        let server = first.peer_server(ANY)?;
        assert_eq!(
            client.peer(["echo-client", "--connect", &at])?["succeeded"],
            1
        );
        let wanted = shop().service_account("two").addresses(&addresses);
        let refused = lab.node("a").pod("second", wanted.clone()).unwrap_err();
        assert!(
            refused.to_string().contains("another pod has it"),
            "{refused}"
        );

        let manifest = lab.manifests().directory().join("pod-shop-first.yaml");
        assert!(manifest.exists());
        let cgroup = first.cgroup().to_owned();
        first.delete()?;
        assert!(!manifest.exists() && !cgroup.exists());
        drop(server);

        let second = lab.node("a").pod("second", wanted)?;
        let _server = second.peer_server(ANY)?;
        assert_eq!(
            client.peer(["echo-client", "--connect", &at])?["succeeded"],
            1
        );
        Ok(())
    })
}

#[test]
fn a_pod_may_be_announced_before_it_starts_or_after() -> Result<()> {
    let lab = lab("order", PodNetwork::Routed, Family::V4)?;
    let read = |pod: &str| {
        std::fs::read_to_string(
            lab.manifests()
                .directory()
                .join(format!("pod-shop-{pod}.yaml")),
        )
    };
    let early = lab.node("a").schedule("early", shop())?;
    early.announce(lab::Phase::Pending)?;
    assert!(!read("early").unwrap().contains("podIP"));
    early.announce(lab::Phase::Running)?;
    assert!(read("early").unwrap().contains("podIP: 10.77.1.2"));
    early.start()?.delete()?;

    let late = lab.node("a").pod("late", shop().unannounced())?;
    assert!(read("late").is_err());
    late.announce()?;
    assert_eq!(read("late").unwrap(), late.manifest()?);
    Ok(())
}

#[test]
fn the_host_is_as_it_was() -> Result<()> {
    let state = || {
        let run = |program: &str, args: &[&str]| {
            let output = Command::new(program).args(args).output().unwrap();
            assert!(output.status.success(), "{program}");
            String::from_utf8(output.stdout).unwrap()
        };
        [
            run("ip", &["-o", "address"]),
            run("ip", &["route", "show", "table", "all"]),
            run("ip", &["rule"]),
            run("nft", &["list", "tables"]),
        ]
    };
    let before = state();
    let lab = lab("host", PodNetwork::Bridged, Family::Dual)?;
    let pod = lab.node("a").pod("pod", shop())?;
    let service = lab
        .service("shop", "web")
        .port(80, 8080)
        .endpoint(&pod)
        .apply()?;
    lab.node("a").kube_proxy(&service)?;
    assert_eq!(state(), before);
    Ok(())
}
