//! Between pods of one node: once the agent has allowed a kind of connection, the kernel lets more of
//! it pass, and the agent still knows, tells and ends them.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which clippy doesn't count as tests"
)]

use std::time::Duration;

use ambit_common::{map::FlowKey, passed::Passed};
use aya::maps::{HashMap as BpfMap, Map, MapData};
use lab::{
    Held, Lab, Mesh, PeerServer, Pod, PodSpec, Result, Way, eventually, on_each_network,
    peer_program,
};
use serde_json::json;

const DEADLINE: Duration = Duration::from_secs(30);
const FILE: &str = "policies.yaml";

/// Two clients of different accounts and a server, all on node a.
struct Shop {
    friend: Pod,
    stranger: Pod,
    server: Pod,
    till: PeerServer,
}

impl Shop {
    fn open(lab: &Lab) -> Result<Self> {
        lab.namespace("shop").enrolled()?;
        let pod = |name| {
            let spec = PodSpec::in_namespace("shop").service_account(name);
            lab.node("a").pod(name, spec.label("app", name))
        };
        let server = pod("till")?;
        Ok(Self {
            friend: pod("friend")?,
            stranger: pod("stranger")?,
            till: server.echo(8080)?,
            server,
        })
    }

    fn talk(&mut self) -> Result<Way> {
        self.friend.talk(&mut self.till, self.server.at(8080))
    }

    /// A connection of the friend's that passes. One before it has been allowed.
    fn pass(&mut self) -> Result<Held> {
        self.talk()?;
        let mut held = self.friend.hold(self.server.at(8080))?;
        held.echo().unwrap();
        Ok(held)
    }
}

/// Only the stranger is refused.
fn deny(account: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: deny, namespace: shop}}\n\
         spec:\n  action: DENY\n  selector: {{matchLabels: {{app: till}}}}\n  \
         rules: [{{from: [{{source: {{principals: [cluster.local/ns/shop/sa/{account}]}}}}]}}]\n"
    )
}

fn passed(lab: &Lab) -> f64 {
    let reason = [("reason", "passed_new")];
    let node = lab.node("a");
    node.metric("ambit_capture_packets_total", &reason).unwrap()
}

/// How many connections that pass the kernel of node a knows.
fn remembered(lab: &Lab) -> usize {
    let pin = lab.node("a").bpf_directory().join("ambit/maps/PASSED");
    let map = Map::HashMap(MapData::from_pin(pin).unwrap());
    let passed = BpfMap::<_, FlowKey, Passed>::try_from(map).unwrap();
    passed.keys().count()
}

#[test]
fn the_first_of_a_kind_is_carried_and_the_others_pass_and_all_are_told_of() -> Result<()> {
    on_each_network("pass", |lab| {
        let mut shop = Shop::open(lab)?;
        let _mesh = Mesh::default().start(lab)?;
        assert_eq!(shop.talk()?, Way::Carried);
        for _ in 0..3 {
            assert_eq!(shop.talk()?, Way::Direct);
        }
        assert!((passed(lab) - 3.0).abs() < 0.1, "{}", passed(lab));
        // Another account hasn't been allowed yet.
        let at = shop.server.at(8080);
        assert_eq!(shop.stranger.talk(&mut shop.till, at)?, Way::Carried);

        let node = lab.node("a");
        for (metric, each) in [
            ("istio_tcp_connections_opened_total", 5.0),
            ("istio_tcp_connections_closed_total", 5.0),
            ("istio_tcp_sent_bytes_total", 500_000.0),
            ("istio_tcp_received_bytes_total", 500_000.0),
        ] {
            for reporter in ["source", "destination"] {
                let labels = [("reporter", reporter)];
                eventually(metric, DEADLINE, || {
                    (node.metric(metric, &labels).unwrap() - each).abs() < 0.1
                });
            }
        }
        Ok(())
    })
}

#[test]
fn a_policy_ends_what_passes_and_lets_nothing_more_pass() -> Result<()> {
    on_each_network("revoke", |lab| {
        let mut shop = Shop::open(lab)?;
        let _mesh = Mesh::default().start(lab)?;
        // One of a process outside the pods' cgroup, of which no program is told.
        let mut untold = shop.pass()?;
        let connect = shop.server.at(8080).to_string();
        let arguments = ["idle-client", "--connections", "1", "--connect", &connect];
        let mut idle = shop.friend.spawn_peer(arguments)?;
        idle.await_json("open", DEADLINE)?;
        lab.manifests().write(FILE, &deny("friend"))?;
        // Nobody sends anything on them.
        let ends = idle.await_json("ends", DEADLINE)?;
        assert_eq!(ends["ends"], json!(["reset"]));
        let end = untold.await_end().unwrap_err();
        assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
        eventually("the server to see it", DEADLINE, || {
            shop.till.clients().unwrap().len() == 3
        });
        let before = passed(lab);
        assert_eq!(shop.talk()?, Way::reset());
        assert!((passed(lab) - before).abs() < 0.1);
        // And again once the policy is about somebody else.
        lab.manifests().write(FILE, &deny("stranger"))?;
        // What is allowed before the kernel was told of the change counts as decided before it.
        eventually("the friend's to pass again", DEADLINE, || {
            shop.talk().unwrap() == Way::Direct
        });
        let at = shop.server.at(8080);
        assert_eq!(shop.stranger.talk(&mut shop.till, at)?, Way::reset());
        Ok(())
    })
}

#[test]
fn without_an_agent_what_passes_goes_on_and_more_of_its_kind_for_a_while() -> Result<()> {
    let lab = Lab::builder("orphan").build()?;
    let mut shop = Shop::open(&lab)?;
    let mut mesh = Mesh::default()
        .agent_arguments(&["--pass-for", "4s"])
        .start(&lab)?;
    let mut held = shop.pass()?;
    mesh.kill_agent("a");
    held.echo().unwrap();
    let at = shop.server.at(8080);
    assert_eq!(shop.friend.call(at)?, "echoed");
    // Nobody has ever allowed it, and nobody can.
    assert_eq!(shop.stranger.call(at)?, "timeout");
    let mut untold = 1.0;
    eventually("the kernel to let no more pass", DEADLINE, || {
        let told = shop.friend.call(at).unwrap();
        untold += if told == "echoed" { 1.0 } else { 0.0 };
        told == "timeout"
    });
    held.echo().unwrap();
    assert_eq!(remembered(&lab), 1, "the held connection");

    // The next agent hears of what has ended, knows what is open, and what of it may not be.
    let node = lab.node("a");
    mesh.start_agent(node)?;
    held.echo().unwrap();
    let closed = "istio_tcp_connections_closed_total";
    eventually("what has ended to be counted", DEADLINE, || {
        let counted = node.metric(closed, &[("reporter", "source")]).unwrap();
        (counted - untold).abs() < 0.1
    });
    assert_eq!(shop.friend.call(at)?, "echoed");
    eventually("the connection to be shown", DEADLINE, || {
        let open = node.admin("/connections").unwrap();
        open.to_string()
            .contains(&held.address().unwrap().to_string())
    });
    lab.manifests().write(FILE, &deny("friend"))?;
    let end = held.await_end().unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
    Ok(())
}

#[test]
fn an_agent_that_ends_in_order_leaves_what_passes_alone() -> Result<()> {
    let lab = Lab::builder("upgrade").build()?;
    let mut shop = Shop::open(&lab)?;
    let mut mesh = Mesh::default().start(&lab)?;
    let mut held = shop.pass()?;
    mesh.stop_agent("a")?;
    held.echo().unwrap();
    mesh.start_agent(lab.node("a"))?;
    held.echo().unwrap();
    Ok(())
}

#[test]
fn nothing_is_left_of_connections_that_have_ended() -> Result<()> {
    let lab = Lab::builder("ended").build()?;
    let mut shop = Shop::open(&lab)?;
    let _mesh = Mesh::default().start(&lab)?;
    shop.talk()?;
    let at = shop.server.at(8080).to_string();
    let many = ["echo-client", "--connections", "2000", "--connect", &at];
    shop.friend.peer(many)?;
    // Refused, and so never connected.
    shop.friend.call(shop.server.at(8081))?;
    assert_eq!(shop.friend.call(shop.server.at(8081))?, "refused");
    assert!(passed(&lab) >= 2000.0, "{}", passed(&lab));
    eventually("the kernel to remember none", DEADLINE, || {
        remembered(&lab) == 0
    });
    Ok(())
}

/// So that a NetworkPolicy holds, which a CNI carries out there.
#[test]
fn a_firewall_of_the_node_is_asked_about_a_syn_and_nothing_after_it() -> Result<()> {
    let lab = Lab::builder("firewall").build()?;
    let mut shop = Shop::open(&lab)?;
    let _mesh = Mesh::default().start(&lab)?;
    shop.talk()?;
    let node = lab.node("a");
    let answers = "add table inet wall; \
                   add chain inet wall pods { type filter hook forward priority 0; }; \
                   add rule inet wall pods tcp sport 8080 drop";
    node.run("nft", [answers])?.success()?;
    assert_eq!(shop.talk()?, Way::Direct);
    let questions = "add rule inet wall pods tcp dport 8080 tcp flags syn drop";
    node.run("nft", [questions])?.success()?;
    assert_eq!(shop.friend.call(shop.server.at(8080))?, "timeout");
    Ok(())
}

#[test]
fn a_client_cannot_pretend_to_be_its_server() -> Result<()> {
    let lab = Lab::builder("posing").build()?;
    let mut shop = Shop::open(&lab)?;
    let _mesh = Mesh::default().start(&lab)?;
    shop.talk()?;
    let (client, server) = (shop.friend.at(45000), shop.server.at(8080));
    let (client, server) = (client.to_string(), server.to_string());
    // One question and its answer, then nothing for a minute.
    let client_program = ["persistent-client", "--text", "hello"];
    let paused = ["--interval-ms", "60000"];
    let ends = ["--source", &client, "--connect", &server];
    let arguments = client_program.into_iter().chain(paused).chain(ends);
    let mut talking = shop.friend.spawn_peer(arguments)?;
    talking.await_json("echoing", DEADLINE)?;

    // What the server has sent is known by its socket, and that by its answer to the SYN.
    let forgery = ["forge-syn", "--answer", "--source", &client];
    shop.friend
        .peer(forgery.into_iter().chain(["--destination", &server]))?;
    talking.kill();

    let node = lab.node("a");
    let count = |what: &str| {
        let metric = format!("istio_tcp_{what}_total");
        node.metric(&metric, &[("reporter", "source")]).unwrap()
    };
    eventually("both to be counted", DEADLINE, || {
        (count("connections_closed") - 2.0).abs() < 0.1
    });
    let (sent, received) = (count("sent_bytes"), count("received_bytes"));
    assert!((sent - received).abs() < 0.1, "{sent} {received}");
    Ok(())
}

#[test]
fn a_pod_cannot_pretend_that_a_connection_has_ended() -> Result<()> {
    let lab = Lab::builder("pretend").build()?;
    let mut shop = Shop::open(&lab)?;
    let _mesh = Mesh::default().start(&lab)?;
    shop.talk()?;
    let (client, at) = (shop.friend.at(45000), shop.server.at(8080));
    let (source, connect) = (client.to_string(), at.to_string());
    let arguments = ["idle-client", "--connections", "1", "--source", &source];
    let mut idle = shop
        .friend
        .spawn_peer(arguments.into_iter().chain(["--connect", &connect]))?;
    idle.await_json("open", DEADLINE)?;
    let shown = || {
        let open = lab.node("a").admin("/connections").unwrap();
        open.to_string().contains(&source)
    };
    eventually("the connection to be shown", DEADLINE, shown);

    // The same addresses and ports, in a namespace that the client made for itself.
    let peer = peer_program()?;
    let script = format!(
        "set -e; ip link set lo up; ip addr add {}/32 dev lo; ip addr add {}/32 dev lo\n\
         {peer} echo-server --listen {at} & server=$!\n\
         sleep 0.5; {peer} echo-client --source {client} --connect {at}; kill $server",
        client.ip(),
        at.ip(),
        peer = peer.display()
    );
    let pretended = shop
        .friend
        .run("unshare", ["--net", "sh", "-c", &script])?
        .success()?;
    assert!(pretended.contains("\"succeeded\":1"), "{pretended}");

    assert!(shown());
    lab.manifests().write(FILE, &deny("friend"))?;
    let ends = idle.await_json("ends", DEADLINE)?;
    assert_eq!(ends["ends"], json!(["reset"]));
    Ok(())
}
