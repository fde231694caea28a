//! Services by their virtual addresses, whether kube-proxy's rules are there or not.

use std::{net::SocketAddr, time::Duration};

use lab::{Lab, Mesh, PeerServer, Pod, PodSpec, Result, Service, Way, eventually, on_each_network};

const DEADLINE: Duration = Duration::from_secs(30);

fn shop() -> PodSpec {
    PodSpec::in_namespace("shop")
}

/// Applies a service, and has kube-proxy on each node know it if there is one.
fn apply(lab: &Lab, service: Service, kube_proxy: bool) -> Result<Service> {
    let service = service.apply()?;
    if kube_proxy {
        for node in lab.nodes() {
            node.kube_proxy(&service)?;
        }
    }
    Ok(service)
}

/// A client, a server on each node, and one outside the mesh on each node.
struct Stage {
    client: Pod,
    near: (Pod, PeerServer),
    far: (Pod, PeerServer),
    outside_near: (Pod, PeerServer),
    outside_far: (Pod, PeerServer),
}

impl Stage {
    fn set(lab: &Lab) -> Result<Self> {
        lab.namespace("shop").enrolled()?;
        lab.namespace("street").not_enrolled()?;
        let outside = || PodSpec::in_namespace("street");
        let serving = |node: &str, name: &str, spec: PodSpec| -> Result<(Pod, PeerServer)> {
            let pod = lab.node(node).pod(name, spec)?;
            let server = pod.echo(8080)?;
            Ok((pod, server))
        };
        Ok(Self {
            client: lab.node("a").pod("client", shop())?,
            near: serving("a", "near", shop())?,
            far: serving("b", "far", shop())?,
            outside_near: serving("a", "street-near", outside())?,
            outside_far: serving("b", "street-far", outside())?,
        })
    }
}

fn vips_lead_to_their_endpoints(lab: &Lab, kube_proxy: bool) -> Result<()> {
    let mut stage = Stage::set(lab)?;
    let to = |name: &str, pod: &Pod| -> Result<SocketAddr> {
        let service = lab.service("shop", name).port(80, 8080).endpoint(pod);
        Ok(apply(lab, service, kube_proxy)?.at(80))
    };
    let vips = [
        to("near", &stage.near.0)?,
        to("far", &stage.far.0)?,
        to("street-near", &stage.outside_near.0)?,
        to("street-far", &stage.outside_far.0)?,
        to("itself", &stage.client)?,
    ];
    let mut own = stage.client.echo(8080)?;
    let headless = lab.service("shop", "headless").headless().port(8080, 8080);
    apply(lab, headless.endpoint(&stage.far.0), kube_proxy)?;
    let mut mesh = Mesh::default().start(lab)?;

    let client = &stage.client;
    let servers = [
        &mut stage.near.1,
        &mut stage.far.1,
        &mut stage.outside_near.1,
        &mut stage.outside_far.1,
    ];
    for (vip, server) in vips.iter().zip(servers) {
        assert_eq!(
            client.talk(server, *vip)?,
            Way::Carried,
            "{vip}, kube-proxy: {kube_proxy}"
        );
    }
    // From then on the kernel takes the endpoint of the same node.
    let passed = [
        "direction=\"inbound\"",
        "dst.service=\"near.shop.svc.cluster.local\"",
    ];
    assert_eq!(
        client.talk(&mut stage.near.1, vips[0])?,
        Way::Direct,
        "kube-proxy: {kube_proxy}"
    );
    assert_eq!(client.talk(&mut stage.far.1, vips[1])?, Way::Carried);
    eventually("both connections to be logged", DEADLINE, || {
        let log = mesh.agent("a").stderr();
        let told = |line: &&str| passed.iter().all(|part| line.contains(part));
        log.lines().filter(told).count() == 2
    });
    for (node, service, direction) in [
        ("a", "near", "inbound"),
        ("a", "far", "outbound"),
        ("a", "street-near", "outbound"),
        ("a", "street-far", "outbound"),
    ] {
        let host = format!("dst.service=\"{service}.shop.svc.cluster.local\"");
        let direction = format!("direction=\"{direction}\"");
        mesh.await_access(node, &[&host, &direction, "connection complete"])?;
    }
    // A pod's kernel takes no packet from its own address: another stands in.
    let itself = client.talk(&mut own, vips[4])?;
    assert!(
        matches!(itself, Way::Replaced(_)),
        "a pod reaches itself by a VIP: {itself:?}"
    );
    let headless = client.talk(&mut stage.far.1, stage.far.0.at(8080))?;
    assert_eq!(headless, Way::Carried, "a headless service's pod");
    Ok(())
}

#[test]
fn virtual_addresses_lead_to_their_endpoints() -> Result<()> {
    on_each_network("vip", |lab| vips_lead_to_their_endpoints(lab, false))
}

#[test]
fn virtual_addresses_lead_to_their_endpoints_past_kube_proxy() -> Result<()> {
    on_each_network("vipnat", |lab| vips_lead_to_their_endpoints(lab, true))
}

#[test]
fn a_service_that_nobody_serves_resets_at_once_and_the_log_names_it() -> Result<()> {
    on_each_network("nobody", |lab| {
        let stage = Stage::set(lab)?;
        let none = lab
            .service("shop", "none")
            .port(80, 8080)
            .unready_endpoint(&stage.near.0);
        let local = lab
            .service("shop", "local")
            .port(80, 8080)
            .endpoint(&stage.far.0)
            .spec("internalTrafficPolicy", "Local");
        let services = [apply(lab, none, true)?, apply(lab, local, true)?];
        let mut mesh = Mesh::default().start(lab)?;
        let reasons = [
            "shop/none has no ready endpoint",
            "internalTrafficPolicy: Local",
        ];
        for (service, reason) in services.iter().zip(reasons) {
            let at = service.at(80).to_string();
            let told = stage.client.peer(["observe-client", "--connect", &at])?;
            assert_eq!(told["end"], "reset", "{told}");
            mesh.await_access("a", &["connection failed", &at, reason])?;
        }

        // A port that the service doesn't have is nobody's business.
        let node = lab.node("a");
        let other = SocketAddr::new(services[0].addresses()[0], 81).to_string();
        let captured = node.packets("captured_new")?;
        let (told, left_alone) = node.counting("not_mesh", || {
            let arguments = ["observe-client", "--connect", &other, "--timeout-ms", "500"];
            stage.client.peer(arguments)
        })?;
        assert_eq!(told["connected"], false, "{told}");
        assert!(left_alone >= 1.0, "{left_alone}");
        assert_eq!(node.packets("captured_new")?, captured);
        Ok(())
    })
}

/// Opens connections that are all open at once, and returns how many went to each server.
fn spread<const N: usize>(
    client: &Pod,
    at: SocketAddr,
    count: usize,
    servers: [&PeerServer; N],
) -> Result<[usize; N]> {
    let seen = || servers.map(|server| server.clients().map_or(0, |clients| clients.len()));
    let before = seen();
    let (at, connections) = (at.to_string(), count.to_string());
    let told = client.peer([
        "echo-client",
        "--connect",
        &at,
        "--connections",
        &connections,
    ])?;
    assert_eq!(told["succeeded"], count, "{told}");
    let mut share = [0; N];
    eventually("every connection is reported", DEADLINE, || {
        let after = seen();
        share = std::array::from_fn(|server| after[server] - before[server]);
        share.iter().sum::<usize>() == count
    });
    Ok(share)
}

#[test]
fn connections_spread_over_endpoints_as_the_service_asks() -> Result<()> {
    const COUNT: usize = 120;
    on_each_network("spread", |lab| {
        let stage = Stage::set(lab)?;
        let third = lab.node("b").pod("third", shop())?;
        let third = (third.echo(8080)?, third);
        let service = |name: &str| {
            let service = lab.service("shop", name).port(80, 8080);
            service
                .endpoint(&stage.near.0)
                .endpoint(&stage.far.0)
                .endpoint(&third.1)
        };
        let local = ("internalTrafficPolicy", "Local");
        let prefer = ("trafficDistribution", "PreferSameNode");
        let any = service("any").apply()?;
        let local = service("local").spec(local.0, local.1).apply()?;
        let preferred = service("preferred").spec(prefer.0, prefer.1).apply()?;
        let _mesh = Mesh::default().start(lab)?;
        let servers = [&stage.near.1, &stage.far.1, &third.0];

        // One of each is allowed first.
        spread(&stage.client, any.at(80), 10, servers)?;
        let [near, far, third] = spread(&stage.client, any.at(80), COUNT, servers)?;
        // Of the two, the agent takes the less busy; chance alone would keep them as close only now
        // and then.
        let shares = format!("{near} {far} {third}");
        assert!(far.abs_diff(third) <= COUNT / 10, "{shares}");
        // The kernel takes the one on this node by chance: six times the standard deviation.
        assert!(near.abs_diff(COUNT / 3) <= 31, "{shares}");
        for service in [&local, &preferred] {
            assert_eq!(
                spread(&stage.client, service.at(80), 20, servers)?,
                [20, 0, 0]
            );
        }

        // Preferred isn't required.
        let preferred = preferred
            .without_endpoints()
            .unready_endpoint(&stage.near.0)
            .endpoint(&stage.far.0)
            .apply()?;
        eventually(
            "the node's own endpoint is out of service",
            DEADLINE,
            || spread(&stage.client, preferred.at(80), 1, servers).is_ok_and(|to| to == [0, 1, 0]),
        );
        assert_eq!(
            spread(&stage.client, preferred.at(80), 20, servers)?,
            [0, 20, 0]
        );
        Ok(())
    })
}
