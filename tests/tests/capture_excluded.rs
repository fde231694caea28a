//! What pods and namespaces exclude by annotation is left alone, and counted.

use std::{net::SocketAddr, time::Duration};

use lab::{Lab, Mesh, Packet, Pod, PodSpec, Result, Way, eventually, on_each_network};

const DEADLINE: Duration = Duration::from_secs(30);
const OUTBOUND_PORTS: &str = "ambit.dev/exclude-outbound-ports";
const INBOUND_PORTS: &str = "ambit.dev/exclude-inbound-ports";
const OUTBOUND_CIDRS: &str = "ambit.dev/exclude-outbound-cidrs";
/// A port that is captured, and two that one side or both exclude.
const PLAIN: u16 = 8080;
const OUT: u16 = 8081;
const BOTH: u16 = 8082;

/// What is expected of a connection: how it arrives, and what the client's node counts, the
/// server's node counts, for its SYN.
struct Case<'a> {
    client: &'a Pod,
    port: u16,
    way: Way,
    at_client: Option<&'static str>,
    at_server: Option<&'static str>,
}

fn check(lab: &Lab, server: &Pod, case: &Case<'_>) -> Result<()> {
    let Case {
        client, port, way, ..
    } = case;
    let name = format!("{} to {} {port}", client.name(), server.name());
    let mut echo = server.echo(*port)?;
    let (a, b) = (lab.node("a"), lab.node("b"));
    let count = || -> Result<[f64; 2]> {
        let none = "excluded_port";
        Ok([
            a.packets(case.at_client.unwrap_or(none))?,
            b.packets(case.at_server.unwrap_or(none))?,
        ])
    };
    let before = count()?;
    let seen = client.talk(&mut echo, SocketAddr::new(server.address(), *port))?;
    let after = count()?;
    assert_eq!(seen, *way, "{name}");
    let moved = [after[0] > before[0], after[1] > before[1]];
    let expected = [case.at_client.is_some(), case.at_server.is_some()];
    assert_eq!(
        moved, expected,
        "{name}: counted by the client's node, the server's node"
    );

    Ok(())
}

/// Whether the packets of a case were seen between the nodes as the pods sent them.
fn passed_in_clear(wire: &[Packet], server: &Pod, case: &Case<'_>) -> bool {
    let ends = [case.client.address(), server.address()];
    wire.iter()
        .any(|packet| packet.has_port(case.port) && ends.iter().all(|end| packet.has_address(*end)))
}

#[test]
fn excluded_ports_and_networks_are_left_alone() -> Result<()> {
    on_each_network("excluded", |lab| {
        let (out, inward) = (format!("{OUT}, {BOTH}"), BOTH.to_string());
        lab.namespace("shop").enrolled()?;
        let enrolled = [("ambit.dev/mesh", "enabled")];
        lab.namespace("market")
            .write(&enrolled, &[(OUTBOUND_PORTS, &out)])?;
        lab.namespace("depot")
            .write(&enrolled, &[(INBOUND_PORTS, &inward)])?;
        lab.namespace("street").not_enrolled()?;

        let shop = || PodSpec::in_namespace("shop");
        let (a, b) = (lab.node("a"), lab.node("b"));
        let by_pod = b.pod("by-pod", shop().annotation(INBOUND_PORTS, &inward))?;
        let by_namespace = b.pod("by-namespace", PodSpec::in_namespace("depot"))?;
        let length = if by_pod.address().is_ipv4() {
            "24"
        } else {
            "64"
        };
        let network = format!("{}/{length}", by_pod.address());
        let clients = [
            a.pod("plain", shop())?,
            a.pod("ports", shop().annotation(OUTBOUND_PORTS, &out))?,
            a.pod("market", PodSpec::in_namespace("market"))?,
            a.pod("cidr", shop().annotation(OUTBOUND_CIDRS, &network))?,
            a.pod("outsider", PodSpec::in_namespace("street"))?,
        ];
        let [plain, ports, market, cidr, outsider] = &clients;
        let _mesh = Mesh::default().start(lab)?;

        let (port, network) = (Some("excluded_port"), Some("excluded_network"));
        let outside = Some("not_enrolled");
        let case = |client, port, way, at_client, at_server| Case {
            client,
            port,
            way,
            at_client,
            at_server,
        };
        let mut cases = vec![
            // A tunnel, which no inbound exclusion is meant for.
            case(plain, PLAIN, Way::Carried, None, None),
            case(plain, BOTH, Way::Carried, None, None),
            // In plaintext from the client's node on, and left alone by the server's node too, or
            // carried by its agent, which decides about plaintext.
            case(cidr, PLAIN, Way::Carried, network, None),
            case(cidr, BOTH, Way::Direct, network, port),
            case(outsider, PLAIN, Way::Carried, outside, None),
            case(outsider, BOTH, Way::Direct, outside, port),
        ];
        for client in [ports, market] {
            cases.push(case(client, PLAIN, Way::Carried, None, None));
            cases.push(case(client, OUT, Way::Carried, port, None));
            cases.push(case(client, BOTH, Way::Direct, port, port));
        }
        let others = [
            case(outsider, BOTH, Way::Direct, outside, port),
            case(outsider, PLAIN, Way::Carried, outside, None),
        ];
        let by_pod = cases.iter().map(|case| (&by_pod, case));
        let all: Vec<_> = by_pod
            .chain(others.iter().map(|case| (&by_namespace, case)))
            .collect();

        let wire = lab.wire_capture()?;
        for (server, case) in &all {
            check(lab, server, case)?;
        }
        let wire = wire.stop()?;
        for (server, case) in all {
            let left = passed_in_clear(&wire, server, case);
            let name = format!("{} to {} {}", case.client.name(), server.name(), case.port);
            assert_eq!(
                left,
                case.at_client.is_some(),
                "{name}: left the node as it was"
            );
        }
        Ok(())
    })
}

#[test]
fn an_exclusion_ends_with_its_annotation() -> Result<()> {
    on_each_network("withdrawn", |lab| {
        let enrolled = [("ambit.dev/mesh", "enabled")];
        let port = OUT.to_string();
        let both = [(OUTBOUND_PORTS, &*port), (INBOUND_PORTS, &port)];
        lab.namespace("shop").write(&enrolled, &both)?;
        let client = lab.node("a").pod("client", PodSpec::in_namespace("shop"))?;
        let near = lab.node("a").pod("near", PodSpec::in_namespace("shop"))?;
        let far = lab.node("b").pod("far", PodSpec::in_namespace("shop"))?;
        let _mesh = Mesh::default().start(lab)?;
        let mut servers = [
            (near.echo(OUT)?, near.at(OUT)),
            (far.echo(OUT)?, far.at(OUT)),
        ];
        for (echo, at) in &mut servers {
            assert_eq!(client.talk(echo, *at)?, Way::Direct, "{at}");
        }
        lab.namespace("shop").enrolled()?;
        for (echo, at) in &mut servers {
            eventually("new connections are captured", DEADLINE, || {
                client.talk(echo, *at).is_ok_and(|way| way == Way::Carried)
            });
        }
        Ok(())
    })
}
