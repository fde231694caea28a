//! What agents tell: metrics, readiness, the access log, and what the eBPF programs log.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which clippy doesn't count as tests"
)]

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use lab::{Lab, Mesh, NODE_INTERFACE, Node, PodSpec, Result, Trio, eventually};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(30);

fn page(node: &Node) -> String {
    node.fetch("http://127.0.0.1:15020/metrics").unwrap()
}

/// The pods of the stories: a client of one account, a server of another behind a service.
fn pod(account: &str) -> PodSpec {
    let labels = [
        ("app", account),
        ("version", "v2"),
        ("service.istio.io/canonical-name", account),
    ];
    let spec = PodSpec::in_namespace("shop").service_account(account);
    labels
        .iter()
        .fold(spec, |spec, (name, value)| spec.label(name, value))
}

/// The labels of every istio_tcp metric, in Istio's order.
fn labels(reporter: &str, service: [&str; 3], flags: &str) -> String {
    let of = |end: &str, name: &str| {
        [
            ("workload", name),
            ("canonical_service", name),
            ("canonical_revision", "v2"),
            ("workload_namespace", "shop"),
            (
                "principal",
                &format!("spiffe://cluster.local/ns/shop/sa/{name}"),
            ),
            ("app", name),
            ("version", "v2"),
            ("cluster", "Kubernetes"),
        ]
        .map(|(label, value)| format!("{end}_{label}=\"{value}\""))
        .join(",")
    };
    let [host, namespace, name] = service;
    format!(
        "{{reporter=\"{reporter}\",{},destination_service=\"{host}\",\
         destination_service_namespace=\"{namespace}\",destination_service_name=\"{name}\",{},\
         request_protocol=\"tcp\",response_flags=\"{flags}\",\
         connection_security_policy=\"mutual_tls\"}}",
        of("source", "client"),
        of("destination", "server"),
    )
}

#[test]
fn connections_and_their_bytes_are_counted_under_istios_names() -> Result<()> {
    for server_node in ["a", "b"] {
        let lab = Lab::builder("counted").build()?;
        lab.namespace("shop").enrolled()?;
        let client = lab.node("a").pod("client", pod("client"))?;
        let server = lab.node(server_node).pod("server", pod("server"))?;
        let service = lab
            .service("shop", "web")
            .port(80, 8080)
            .endpoint(&server)
            .apply()?;
        let transfer = [
            "transfer-server",
            "--listen",
            "0.0.0.0:8080",
            "--bytes",
            "3000000",
        ];
        let _transfer = server.peer_server(transfer)?;
        let _echo = server.peer_server(["echo-server", "--listen", "0.0.0.0:8081"])?;
        let mut mesh = Mesh::default().start(&lab)?;

        let web = ["web.shop.svc.cluster.local", "shop", "web"];
        let nobody = ["unknown"; 3];
        // The server's agent isn't told of the service, unless it is the client's as well.
        let behind = if server_node == "a" { web } else { nobody };
        let at = service.at(80).to_string();
        let told = client.peer(["transfer-client", "--connect", &at, "--bytes", "1000000"])?;
        assert_eq!(told["received_bytes"], 3_000_000);
        let ends = [("a", "source", web), (server_node, "destination", behind)];
        for (node, reporter, service) in ends {
            let labels = labels(reporter, service, "-");
            let samples = [
                ("connections_opened", 1),
                ("connections_closed", 1),
                ("sent_bytes", 3_000_000),
                ("received_bytes", 1_000_000),
            ]
            .map(|(name, value)| format!("istio_tcp_{name}_total{labels} {value}\n"));
            let node = lab.node(node);
            eventually(
                &format!("{samples:#?} on {}", node.name()),
                DEADLINE,
                || {
                    let page = page(node);
                    samples.iter().all(|sample| page.contains(sample))
                },
            );
            let access = mesh.agent(node.name()).await_stderr(DEADLINE, |line| {
                line.contains("connection complete")
                    && line.contains("bytes_sent=3000000 bytes_recv=1000000")
            })?;
            assert!(access.contains("src.workload=\"client\""), "{access}");
        }

        // Open: counted as opened, with its bytes, and as closed only at its end.
        let at = server.at(8081).to_string();
        let mut idle =
            client.spawn_peer(["idle-client", "--connections", "2", "--connect", &at])?;
        idle.await_json("open", DEADLINE)?;
        let labels = labels("destination", nobody, "-");
        let node = lab.node(server_node);
        let count = |name: &str, value: u32| {
            let sample = format!("istio_tcp_{name}_total{labels} {value}\n");
            eventually(&sample, DEADLINE, || page(node).contains(&sample));
        };
        // Across nodes the transfer counts in the same series, since there is no service to tell.
        let (before, bytes) = if server_node == "a" {
            (0, 0)
        } else {
            (1, 1_000_000)
        };
        count("connections_opened", before + 2);
        count("received_bytes", bytes + 16);
        count("connections_closed", before);
        assert_eq!(
            node.metric("ambit_connections_open", &[("direction", "inbound")])?
                .to_bits(),
            2_f64.to_bits()
        );
        idle.kill();
        count("connections_closed", before + 2);
    }
    Ok(())
}

#[test]
fn an_agent_shows_metrics_of_its_own() -> Result<()> {
    let lab = Lab::builder("own").build()?;
    lab.namespace("shop").enrolled()?;
    lab.node("a").pod("client", pod("client"))?;
    let _mesh = Mesh::default().start(&lab)?;
    let identity = "identity=\"spiffe://cluster.local/ns/shop/sa/client\"";
    let certified = format!("ambit_certificate_expiry_timestamp_seconds{{{identity}}} ");
    eventually("a certificate", DEADLINE, || {
        page(lab.node("a")).contains(&certified)
    });
    let page = page(lab.node("a"));
    for sample in [
        "ambit_build_info{version=\"",
        "ambit_capture_packets_total{reason=\"captured_new\"} ",
        "ambit_capture_packets_total{reason=\"dropped_without_agent\"} ",
        &format!("ambit_certificate_renewal_failures_total{{{identity}}} 0"),
        "ambit_connections_open{direction=\"inbound\"} 0",
        "ambit_connections_open{direction=\"outbound\"} 0",
        "ambit_inbound_tunnels_open 0",
        "ambit_log_lines_dropped_total 0",
        "ambit_manifest_problems 0",
        "ambit_outbound_tunnels_open 0",
        "ambit_traffic_series ",
        "process_cpu_seconds_total ",
        "process_resident_memory_bytes ",
    ] {
        assert!(
            page.lines().any(|line| line.starts_with(sample)),
            "{sample} in {page}"
        );
    }
    Ok(())
}

#[test]
fn ready_is_said_only_when_pods_are_captured() -> Result<()> {
    let lab = Lab::builder("ready").build()?;
    lab.namespace("shop").enrolled()?;
    let client = lab.node("b").pod("client", pod("client"))?;
    let server = lab.node("a").pod("server", pod("server"))?;
    let _echo = server.peer_server(["echo-server", "--listen", "0.0.0.0:8080"])?;
    let wire = lab.wire_capture()?;
    let started = AtomicBool::new(false);
    let _mesh = thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let ask = [
                "-s",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "http://127.0.0.1:15021/healthz/ready",
            ];
            while !started.load(Ordering::Relaxed) {
                match lab.node("b").run("curl", ask).unwrap().text().as_str() {
                    "200" => return Some(client.call(server.at(8080)).unwrap()),
                    // Nobody listens, or not yet.
                    "000" | "503" => {}
                    other => panic!("{other}"),
                }
            }
            None
        });
        let mesh = Mesh::default().start(&lab);
        let called = asking.join().unwrap();
        started.store(true, Ordering::Relaxed);
        assert_eq!(called.as_deref(), Some("echoed"));
        mesh
    })?;
    let plain = |packet: &lab::Packet| packet.has_port(8080);
    assert!(!wire.stop()?.iter().any(plain));
    Ok(())
}

#[test]
fn a_line_of_the_access_log_has_its_keys_as_text_and_as_json() -> Result<()> {
    let keys = [
        "src.addr",
        "src.workload",
        "src.namespace",
        "src.identity",
        "dst.addr",
        "dst.hbone_addr",
        "dst.service",
        "dst.workload",
        "dst.namespace",
        "dst.identity",
        "direction",
        "bytes_sent",
        "bytes_recv",
        "rtt",
        "retransmits",
        "duration",
    ];
    for format in ["text", "json"] {
        let lab = Lab::builder("access").build()?;
        lab.namespace("shop").enrolled()?;
        let client = lab.node("a").pod("client", pod("client"))?;
        let server = lab.node("b").pod("server", pod("server"))?;
        let service = lab
            .service("shop", "web")
            .port(80, 8080)
            .endpoint(&server)
            .apply()?;
        let _echo = server.peer_server(["echo-server", "--listen", "0.0.0.0:8080"])?;
        let mut mesh = Mesh::default()
            .agent_arguments(&["--log-format", format])
            .start(&lab)?;
        assert_eq!(client.call(service.at(80))?, "echoed");
        for (node, without) in [("a", vec![]), ("b", vec!["dst.hbone_addr", "dst.service"])] {
            let keys: Vec<&str> = keys
                .into_iter()
                .filter(|key| !without.contains(key))
                .collect();
            let line = mesh
                .agent(node)
                .await_stderr(DEADLINE, |line| line.contains("connection complete"))?;
            if format == "json" {
                let line: Value = serde_json::from_str(&line).unwrap();
                assert!(keys.iter().all(|key| !line[key].is_null()), "{line}");
                assert_eq!(
                    (&line["target"], &line["bytes_recv"]),
                    (&"ambit::access".into(), &64.into())
                );
            } else {
                let found = line
                    .split(' ')
                    .filter_map(|word| Some(word.split_once('=')?.0));
                assert_eq!(found.collect::<Vec<_>>(), keys, "{line}");
            }
        }
    }
    Ok(())
}

#[test]
fn what_tcp_measures_is_told_of_each_connection_that_has_a_way_to_go() -> Result<()> {
    let lab = Lab::builder("path").build()?;
    let pods = Trio::start(&lab)?;
    let [mut near, mut far] = pods.servers().map(|pod| pod.echo(8080).unwrap());
    let mut mesh = Mesh::default().start(&lab)?;
    let node = lab.node("a");
    let measured = || {
        let metric = "ambit_tcp_round_trip_seconds_count";
        node.metric(metric, &[("direction", "outbound")]).unwrap()
    };
    // Carried to a pod of this node it has none; from pod to pod it has, as between nodes.
    pods.client.talk(&mut near, pods.near.at(8080))?;
    mesh.await_access("a", &["dst.workload=\"near\""])?;
    assert_eq!(measured(), 0.0);
    pods.client.talk(&mut near, pods.near.at(8080))?;
    pods.client.talk(&mut far, pods.far.at(8080))?;
    for server in ["near", "far"] {
        let workload = format!("dst.workload=\"{server}\"");
        mesh.await_access("a", &[&workload, "rtt=", "retransmits="])?;
    }
    eventually("both to be counted", DEADLINE, || measured() == 2.0);

    // A way on which not everything has room is told by both agents, each of what it sends. What comes back has
    // less room than what it answers: at the same rate all of it might have room.
    for (node, rate) in [("a", "4mbit"), ("b", "1mbit")] {
        let narrow = ["qdisc", "replace", "dev", NODE_INTERFACE, "root", "tbf"];
        let narrow = narrow
            .into_iter()
            .chain(["rate", rate, "burst", "10kb", "latency", "20ms"]);
        lab.node(node).run("tc", narrow)?.success()?;
    }
    pods.client.talk(&mut far, pods.far.at(8080))?;
    for (node, direction) in [("a", "outbound"), ("b", "inbound")] {
        let metric = "ambit_tcp_retransmitted_segments_total";
        let labels = [("direction", direction)];
        eventually("segments that were sent again", DEADLINE, || {
            lab.node(node).metric(metric, &labels).unwrap() > 0.0
        });
    }
    Ok(())
}

#[test]
fn the_programs_log_what_they_drop_at_debug_level_and_only_there() -> Result<()> {
    for (level, logs) in [("info", false), ("info,ambit_ebpf=debug", true)] {
        let lab = Lab::builder("log").build()?;
        lab.namespace("shop").enrolled()?;
        let forger = lab.node("a").pod("forger", pod("client"))?;
        let server = lab.node("a").pod("server", pod("server"))?;
        let _echo = server.peer_server(["echo-server", "--listen", "0.0.0.0:8080"])?;
        let mut mesh = Mesh::default()
            .agent_arguments(&["--log-level", level])
            .start(&lab)?;
        let (source, destination) = ("10.9.9.9:999", server.at(8080).to_string());
        forger.peer([
            "forge-syn",
            "--source",
            source,
            "--destination",
            &destination,
        ])?;
        eventually("a drop", DEADLINE, || {
            lab.node("a").packets("dropped_forged_source").unwrap() >= 1.0
        });
        let of_program = |line: &str| {
            line.contains("DEBUG ambit_ebpf") && line.contains("dropped_forged_source")
        };
        if logs {
            mesh.agent("a").await_stderr(DEADLINE, of_program)?;
        } else {
            // What it would have logged would be before this.
            forger.call(server.at(8080))?;
            mesh.agent("a")
                .await_stderr(DEADLINE, |line| line.contains("connection complete"))?;
            assert!(!mesh.agent("a").stderr().lines().any(of_program));
        }
    }
    Ok(())
}
