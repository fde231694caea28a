//! How the interface of a pod is found, and what doesn't make one another's.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which clippy doesn't count as tests"
)]

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use lab::{
    Family, Lab, Mesh, Node, Phase, Place, Pod, PodNetwork, PodSpec, Result, Way, eventually,
};

const DEADLINE: Duration = Duration::from_secs(30);
/// Longer than any test: who isn't known speaks to nobody.
const FOREVER: [&str; 2] = ["--hold", "10m"];

fn shop() -> PodSpec {
    PodSpec::in_namespace("shop")
}

fn bridged(name: &str) -> Result<Lab> {
    let lab = Lab::builder(name)
        .pods(PodNetwork::Bridged)
        .family(Family::V4)
        .build()?;
    lab.namespace("shop").enrolled()?;
    Ok(lab)
}

/// Runs commands of iproute2 in a place.
fn run(place: &Place, commands: &[&str]) -> Result<()> {
    for command in commands {
        let mut words = command.split_whitespace();
        let program = words.next().unwrap();
        place.run(program, words)?.success()?;
    }
    Ok(())
}

fn hardware_address(place: &Place, interface: &str) -> Result<String> {
    let shown = place
        .run("ip", ["-j", "link", "show", "dev", interface])?
        .json()?;
    Ok(shown[0]["address"].as_str().unwrap_or_default().into())
}

/// Why a node waits with a pod of namespace `shop`, if it does.
fn reason(node: &Node, pod: &str) -> Option<String> {
    let status = node.admin("/status").ok()?;
    let waiting = status["capture"]["waiting"].as_array()?.clone();
    let pod = waiting
        .iter()
        .find(|one| one["name"] == format!("shop/{pod}"))?;
    Some(pod["reason"].as_str()?.to_owned())
}

fn await_reason(node: &Node, pod: &str, parts: &[&str]) {
    eventually(&format!("{pod} waiting: {parts:?}"), DEADLINE, || {
        let reason = reason(node, pod).unwrap_or_default();
        parts.iter().all(|part| reason.contains(part))
    });
}

#[test]
fn an_address_on_an_inner_bridge_is_found_in_the_pods_namespace() -> Result<()> {
    let lab = bridged("inner")?;
    let node = lab.node("a");
    let server = lab.node("b").pod("server", shop())?;
    let mut echo = server.echo(8080)?;
    let pod = node.pod("inner", shop())?;
    let (address, gateway) = (pod.address(), gateway(&pod));
    run(
        &pod,
        &[
            "ip link add inner type bridge",
            &format!("ip address del {address}/24 dev eth0"),
            "ip link set eth0 master inner",
            &format!("ip address add {address}/24 dev inner"),
            "ip link set inner up",
            &format!("ip route add default via {gateway}"),
        ],
    )?;
    let mut own = pod.echo(8080)?;
    let _mesh = Mesh::default().agent_arguments(&FOREVER).start(&lab)?;
    assert_eq!(pod.talk(&mut echo, server.at(8080))?, Way::Carried);
    assert_eq!(server.talk(&mut own, pod.at(8080))?, Way::Carried);
    Ok(())
}

/// The namespace says nothing, as that of a pod with a machine of its own inside: the pod answers
/// for its address by a local route.
#[test]
fn a_pod_is_found_by_what_the_node_has_set_for_its_bridge_and_not_by_what_it_learned() -> Result<()>
{
    let lab = bridged("sticky")?;
    let node = lab.node("a");
    let server = lab.node("b").pod("server", shop())?;
    let mut echo = server.echo(8080)?;
    let pod = node.pod("mute", shop())?;
    let (address, gateway) = (pod.address(), gateway(&pod));
    run(
        &pod,
        &[
            "ip address flush dev eth0",
            &format!("ip route add local {address} dev lo"),
            &format!("ip route add default via {gateway} dev eth0 onlink src {address}"),
        ],
    )?;
    let mut own = pod.echo(8080)?;
    let _mesh = Mesh::default().agent_arguments(&FOREVER).start(&lab)?;
    let port = pod.host_interface();
    await_reason(node, "mute", &["none of the node's interfaces"]);
    reach(node, address)?;
    await_reason(node, "mute", &["learned from frames", port]);
    let talk = pod.begin_talk(&echo, server.at(8080))?;
    assert_eq!(echo.clients()?, [], "nobody got through");

    let mac = hardware_address(&pod, "eth0")?;
    run(
        node,
        &[
            &format!("ip neighbour replace {address} lladdr {mac} dev br0 nud permanent"),
            &format!("bridge fdb replace {mac} dev {port} master static sticky"),
        ],
    )?;
    assert_eq!(talk.end(&mut echo)?, Way::Carried);
    assert_eq!(server.talk(&mut own, pod.at(8080))?, Way::Carried);
    assert_eq!(reason(node, "mute"), None);
    Ok(())
}

/// Any pod may send frames, and answer for addresses, by the capabilities that containers have.
/// One whose own interface isn't known yet could be taken for the pod whose address it claims.
#[test]
fn a_pod_that_poisons_tables_isnt_taken_for_another() -> Result<()> {
    let lab = bridged("poison")?;
    let node = lab.node("a");
    let server = lab.node("b").pod("server", shop())?;
    let mut echo = server.echo(8080)?;
    let bystander = node.pod("bystander", shop())?;
    let attacker = node.pod("attacker", shop().unannounced())?;
    // It's announced, and its interface isn't there yet.
    let victim = node.schedule("victim", shop())?;
    victim.announce(Phase::Running)?;
    let address = address_of(&victim.manifest(Phase::Running)?);
    let _mesh = Mesh::default().agent_arguments(&FOREVER).start(&lab)?;
    let port = attacker.host_interface();

    // Both tables learn from the attacker.
    run(&attacker, &[&format!("ip address add {address}/32 dev lo")])?;
    reach(node, address)?;
    await_reason(node, "victim", &["learned from frames", port]);
    assert_unbound(node, &attacker, address, &server)?;

    // The node has set an entry for the victim's hardware address, and the attacker's frame moves it.
    let mac = "0a:58:0a:4d:01:63";
    run(
        node,
        &[
            &format!("ip neighbour replace {address} lladdr {mac} dev br0 nud permanent"),
            &format!(
                "bridge fdb replace {mac} dev {} master static",
                bystander.host_interface()
            ),
        ],
    )?;
    let own = hardware_address(&attacker, "eth0")?;
    run(&attacker, &[&format!("ip link set eth0 address {mac}")])?;
    reach(&attacker, server.address())?;
    let shown = node
        .run("bridge", ["-j", "fdb", "show", "dev", port])?
        .json()?;
    let entries = shown.as_array().unwrap();
    let moved = entries.iter().find(|entry| entry["mac"] == mac);
    assert_eq!(moved.unwrap()["state"], "static", "{shown}");
    await_reason(node, "victim", &["learned from frames", port]);
    assert_unbound(node, &attacker, address, &server)?;
    run(&attacker, &[&format!("ip link set eth0 address {own}")])?;

    // Nor does it keep the attacker from being known for what it is.
    attacker.announce()?;
    assert_eq!(attacker.talk(&mut echo, server.at(8080))?, Way::Carried);
    let dropped = node.packets("dropped_forged_source")?;
    forge(&attacker, address, &server)?;
    eventually("the forged packet dropped", DEADLINE, || {
        node.packets("dropped_forged_source")
            .is_ok_and(|now| now > dropped)
    });

    // The victim itself is found as ever.
    let victim = victim.start()?;
    run(node, &[&format!("ip neighbour del {address} dev br0")])?;
    assert_eq!(victim.talk(&mut echo, server.at(8080))?, Way::Carried);
    Ok(())
}

/// Nothing that the attacker sends in the name of the address gets anywhere.
fn assert_unbound(node: &Node, attacker: &Pod, address: IpAddr, server: &Pod) -> Result<()> {
    let held = node.packets("dropped_held")?;
    forge(attacker, address, server)?;
    eventually("the attacker's SYN held", DEADLINE, || {
        node.packets("dropped_held").is_ok_and(|now| now > held)
    });
    let status = node.admin("/status")?;
    // The bystander is.
    assert_eq!(status["capture"]["captured_pods"], 1, "{status}");
    Ok(())
}

/// Sends a SYN to a server's port 8080 in the name of an address.
fn forge(pod: &Pod, address: IpAddr, server: &Pod) -> Result<()> {
    let source = SocketAddr::new(address, 4444).to_string();
    let destination = server.at(8080).to_string();
    pod.peer([
        "forge-syn",
        "--source",
        &source,
        "--destination",
        &destination,
    ])
    .map(drop)
}

/// Sends a packet, for which the place must ask who has an address.
fn reach(place: &Place, address: IpAddr) -> Result<()> {
    place.in_namespace(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        socket.send_to(b"?", (address, 9)).unwrap();
    })
}

fn address_of(manifest: &str) -> IpAddr {
    let mut lines = manifest.lines();
    let address = lines.find_map(|line| line.trim().strip_prefix("podIP: "));
    address.unwrap().parse().unwrap()
}

/// The node's address on the pods' bridge.
fn gateway(pod: &Pod) -> IpAddr {
    let IpAddr::V4(address) = pod.address() else {
        panic!("{} has no IPv4 address", pod.name())
    };
    let [a, b, c, _] = address.octets();
    Ipv4Addr::new(a, b, c, 1).into()
}
