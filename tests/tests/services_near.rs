//! Services with an endpoint on the client's own node: past the agent, as if the pod had been named, and
//! nobody sees a difference.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lab::{
    Family, Held, Lab, LoadServer, Mesh, PeerServer, PodSpec, Result, Service, Trio, Way,
    eventually, load_program, on_each_network,
};
use serde_json::json;

const DEADLINE: Duration = Duration::from_secs(30);

/// The near server behind a VIP, which maps its port 80 to 8080.
struct Till {
    pods: Trio,
    service: Service,
    server: PeerServer,
}

impl Till {
    fn open(lab: &Lab, client: PodSpec) -> Result<Self> {
        let pods = Trio::start_client(lab, client)?;
        let service = lab.service("shop", "till").port(80, 8080);
        Ok(Self {
            server: pods.near.echo(8080)?,
            service: service.endpoint(&pods.near).apply()?,
            pods,
        })
    }

    fn talk(&mut self) -> Result<Way> {
        self.pods.client.talk(&mut self.server, self.service.at(80))
    }
}

fn shop() -> PodSpec {
    PodSpec::in_namespace("shop")
}

/// Nobody may connect to the near server.
const DENY: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                    metadata: {name: deny, namespace: shop}\nspec: {}\n";

#[test]
fn a_service_is_reached_past_the_agent_and_only_the_server_knows() -> Result<()> {
    on_each_network("vippass", |lab| {
        let mut till = Till::open(lab, shop())?;
        let _mesh = Mesh::default().start(lab)?;
        assert_eq!(till.talk()?, Way::Carried);
        let vip = till.service.at(80);
        // An IPv6 socket may be connected to an IPv4 address too.
        let mapped = match vip.ip() {
            IpAddr::V4(address) => Some(SocketAddr::new(address.to_ipv6_mapped().into(), 80)),
            IpAddr::V6(_) => None,
        };
        for at in [Some(vip), mapped].into_iter().flatten() {
            let before = till.server.clients()?.len();
            let connect = at.to_string();
            let told = till.pods.client.peer([
                "transfer-client",
                "--connect",
                &connect,
                "--bytes",
                "1000",
            ])?;
            assert_eq!(told["peer"], json!(connect), "{told}");
            let clients = till.server.await_reports(before + 1, DEADLINE)?;
            let local: SocketAddr = told["local"].as_str().unwrap().parse().unwrap();
            let seen: SocketAddr = clients[before]["peer"].as_str().unwrap().parse().unwrap();
            assert_eq!(
                (seen.ip().to_canonical(), seen.port()),
                (local.ip().to_canonical(), local.port()),
                "{told}"
            );
        }
        let service = ("destination_service", "till.shop.svc.cluster.local");
        let all = if mapped.is_some() { 3.0 } else { 2.0 };
        for reporter in ["source", "destination"] {
            let labels = [service, ("reporter", reporter)];
            eventually("each to be told of as the service's", DEADLINE, || {
                let told = lab
                    .node("a")
                    .metric("istio_tcp_connections_closed_total", &labels);
                (told.unwrap() - all).abs() < 0.1
            });
        }

        // A policy ends what is open and lets nothing more pass.
        let mut held = held(&till)?;
        lab.manifests().write("deny.yaml", DENY)?;
        let ends = held.await_json("ends", DEADLINE)?;
        assert_eq!(ends["ends"], json!(["reset"]));
        assert_eq!(till.talk()?, Way::reset());
        Ok(())
    })
}

/// A connection to the service that stays open.
fn held(till: &Till) -> Result<lab::Child> {
    let at = till.service.at(80).to_string();
    let arguments = ["idle-client", "--connections", "1", "--connect", &at];
    let mut idle = till.pods.client.spawn_peer(arguments)?;
    idle.await_json("open", DEADLINE)?;
    Ok(idle)
}

#[test]
fn bytes_to_a_service_go_past_tcp() -> Result<()> {
    let lab = Lab::builder("vipsplice").build()?;
    let pods = Trio::start(&lab)?;
    let service = lab.service("shop", "till").port(80, 8080);
    let at = service.endpoint(&pods.near).apply()?.at(80).to_string();
    let _serving = LoadServer::start(&pods.near, 8080)?;
    let _mesh = Mesh::default().start(&lab)?;
    let node = lab.node("a");
    let redirected = || {
        let event = [("event", "redirected")];
        node.metric("ambit_splice_events_total", &event).unwrap()
    };
    let mut before = 0.0;
    for way in ["captured_new", "passed_new"] {
        let load = ["round-trip", "--connections", "1", "--time-ms", "500"];
        let load = load.into_iter().chain(["--connect", &at]);
        let program = load_program()?;
        let (told, counted) = node.counting(way, || {
            let load = pods.client.command(program).args(load);
            load.deadline(DEADLINE).run()?.json()
        })?;
        assert!(counted >= 1.0, "{way}: {told}");
        let after = redirected();
        assert!(after - before > 100.0, "{way}: {before} {after} {told}");
        before = after;
    }
    Ok(())
}

#[test]
fn each_endpoint_has_its_share_whoever_chooses() -> Result<()> {
    const COUNT: usize = 300;
    let lab = Lab::builder("vipshare").build()?;
    let till = Till::open(&lab, shop())?;
    let far = till.pods.far.echo(8080)?;
    let service = till.service.clone().endpoint(&till.pods.far).apply()?;
    let _mesh = Mesh::default().start(&lab)?;
    let seen = || [&till.server, &far].map(|server| server.clients().unwrap().len());
    let at = service.at(80);
    // The first to either teach the kernel.
    eventually("both to have been reached", DEADLINE, || {
        assert_eq!(till.pods.client.call(at).unwrap(), "echoed");
        seen().iter().all(|clients| *clients > 0)
    });
    let before = seen();
    // One after the other, so that nobody is busier than the other.
    for _ in 0..COUNT {
        assert_eq!(till.pods.client.call(at)?, "echoed");
    }
    let mut share = [0; 2];
    eventually("every connection to be reported", DEADLINE, || {
        let after = seen();
        share = [after[0] - before[0], after[1] - before[1]];
        share.iter().sum::<usize>() >= COUNT
    });
    // A third in place of a half: six times the standard deviation.
    assert!(share.iter().all(|share| *share >= COUNT / 3), "{share:?}");

    // A process that isn't in the pods' cgroup, for which the kernel draws nothing, reaches both too.
    let held: Result<Vec<Held>> = (0..10).map(|_| till.pods.client.hold(at)).collect();
    let mut held = held?;
    let before = seen();
    for held in &mut held {
        held.echo().unwrap();
    }
    drop(held);
    eventually("both to have been reached", DEADLINE, || {
        let after = seen();
        after[0] > before[0] && after[1] > before[1]
    });
    Ok(())
}

#[test]
fn what_a_pod_excluded_is_not_chosen_for_it() -> Result<()> {
    let lab = Lab::builder("vipexcluded").family(Family::V4).build()?;
    let excluded = "ambit.dev/exclude-outbound-ports";
    // The endpoint's port; it is the VIP's that is of the mesh.
    let mut till = Till::open(&lab, shop().annotation(excluded, "8080"))?;
    let _mesh = Mesh::default().start(&lab)?;
    for _ in 0..3 {
        assert_eq!(till.talk()?, Way::Carried);
    }
    Ok(())
}

#[test]
fn without_an_agent_a_service_is_reached_for_a_while_and_then_no_more() -> Result<()> {
    let lab = Lab::builder("viporphan").build()?;
    let mut till = Till::open(&lab, shop())?;
    let mut mesh = Mesh::default()
        .agent_arguments(&["--pass-for", "4s"])
        .start(&lab)?;
    assert_eq!(till.talk()?, Way::Carried);
    let mut held = held(&till)?;
    mesh.kill_agent("a");
    assert_eq!(till.talk()?, Way::Direct);
    let at = till.service.at(80);
    eventually("the kernel to choose no more", DEADLINE, || {
        till.pods.client.call(at).unwrap() == "timeout"
    });
    // The next agent knows of which service it is.
    mesh.start_agent(lab.node("a"))?;
    eventually("the connection to be shown", DEADLINE, || {
        let open = lab.node("a").admin("/connections").unwrap();
        open.to_string().contains("shop/till")
    });
    lab.manifests().write("deny.yaml", DENY)?;
    let ends = held.await_json("ends", DEADLINE)?;
    assert_eq!(ends["ends"], json!(["reset"]));
    Ok(())
}
