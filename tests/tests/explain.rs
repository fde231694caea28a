//! `ambit explain` against what traffic does: what it says comes about does, what it says fails doesn't, and
//! the step that it names is the one that was broken.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which clippy doesn't count as tests"
)]

use std::{net::SocketAddr, time::Duration};

use lab::{Lab, Mesh, Node, Pod, PodSpec, Result, RunningMesh, ambit_program, eventually};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(30);
const DENY_BATCH: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
    metadata: {name: no-batch, namespace: shop}\nspec: {action: DENY, selector: {matchLabels: {app: far}}, \
    rules: [{from: [{source: {principals: ['cluster.local/ns/shop/sa/batch']}}]}]}\n";
const STRICT: &str = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
    metadata: {name: strict, namespace: ambit-system}\nspec: {mtls: {mode: STRICT}}\n";

/// What is answered, and the table of it in the log.
fn explain(node: &Node, source: &str, destination: &str) -> Result<Value> {
    let asked = ["explain", source, destination];
    let table = node
        .command(ambit_program()?)
        .args(asked)
        .run()?
        .success()?;
    eprintln!("{table}");
    let json = node
        .command(ambit_program()?)
        .args(asked)
        .args(["-o", "json"]);
    Ok(serde_json::from_str(&json.run()?.success()?).unwrap())
}

/// The text of a step.
fn said<'a>(explanation: &'a Value, subject: &str) -> &'a str {
    let mut steps = explanation["steps"].as_array().unwrap().iter();
    let step = steps.find(|step| step["subject"] == subject);
    step.unwrap_or_else(|| panic!("{subject}: {explanation:#}"))["text"]
        .as_str()
        .unwrap()
}

/// Clients, and servers beside them and on the other node.
struct Shop {
    web: Pod,
    batch: Pod,
    near: Pod,
    far: Pod,
    outside: Pod,
    /// In front of `far`.
    vip: SocketAddr,
}

impl Shop {
    fn open(lab: &Lab) -> Result<Self> {
        lab.namespace("shop").enrolled()?;
        lab.namespace("street").not_enrolled()?;
        let pod = |node: &str, account: &str| {
            let spec = PodSpec::in_namespace("shop").service_account(account);
            lab.node(node).pod(account, spec.label("app", account))
        };
        let far = pod("b", "far")?;
        let service = lab.service("shop", "store").port(80, 8080);
        Ok(Self {
            web: pod("a", "web")?,
            batch: pod("a", "batch")?,
            near: pod("a", "near")?,
            vip: service.endpoint(&far).apply()?.at(80),
            far,
            outside: lab.node("a").pod("out", PodSpec::in_namespace("street"))?,
        })
    }

    fn sources(&self) -> [(&Pod, &str); 3] {
        [
            (&self.web, "shop/web"),
            (&self.batch, "shop/batch"),
            (&self.outside, "street/out"),
        ]
    }
}

#[test]
fn what_is_explained_is_what_happens() -> Result<()> {
    let lab = Lab::builder("explain").build()?;
    let shop = Shop::open(&lab)?;
    let _echo = (shop.far.echo(8080)?, shop.near.echo(8080)?);
    lab.apply("deny.yaml", DENY_BATCH)?;
    lab.apply("strict.yaml", STRICT)?;
    let mut mesh = Mesh::default().start(&lab)?;
    let node = lab.node("a");

    // Who may and who may not, by VIP and by address.
    for (client, source) in shop.sources() {
        let address = shop.far.at(8080).to_string();
        for (server, destination) in [
            (shop.vip, "store.shop:80"),
            (shop.far.at(8080), "shop/far:8080"),
            (shop.far.at(8080), &address),
        ] {
            let told = explain(node, source, destination)?;
            let comes_about = client.call(server)? == "echoed";
            assert_eq!(told["fails_at"].is_null(), comes_about, "{told:#}");
            assert_eq!(comes_about, source == "shop/web", "{told:#}");
        }
    }
    let told = explain(node, "shop/web", "shop/store")?;
    let interface = shop.web.host_interface();
    assert!(said(&told, "capture").starts_with(&format!("interface {interface} (index ")));
    assert!(said(&told, "service").ends_with("port 80, 1 ready endpoints"));
    assert!(said(&told, "route").contains("on node b"));
    let proven = "proves to be spiffe://cluster.local/ns/shop/sa/far, with a certificate until 2";
    assert!(said(&told, "port 15008").contains(proven), "{told:#}");
    let told = explain(node, "shop/batch", "shop/store")?;
    assert_eq!(told["fails_at"], "policy");
    assert!(said(&told, "policy").contains("shop/no-batch rules[0]"));
    let told = explain(node, "street/out", "shop/store")?;
    assert!(said(&told, "policy").contains("ambit-system/strict demands mutual TLS"));
    assert!(said(&told, "source enrolled").starts_with("no: neither"));

    // The kernel's verdict is there from the first connection on.
    let near = shop.near.at(8080).to_string();
    let verdict = || explain(node, "shop/web", &near).unwrap();
    assert!(said(&verdict(), "kernel verdict").starts_with("nothing decided"));
    assert_eq!(shop.web.call(shop.near.at(8080))?, "echoed");
    assert!(said(&verdict(), "kernel verdict").contains("pass from pod to pod"));

    // Another node tells what all know, and where the rest is known.
    let told = explain(lab.node("b"), "shop/web", "shop/store")?;
    assert!(told["fails_at"].is_null());
    assert!(said(&told, "capture").contains("node a knows"));
    let told = explain(lab.node("b"), "shop/batch", "shop/store")?;
    assert_eq!(told["fails_at"], "policy");

    not_understood(node)?;
    broken_ways(&lab, &shop, &mut mesh)
}

fn not_understood(node: &Node) -> Result<()> {
    let asked = ["explain", "shop/nobody", "shop/far"];
    let output = node.command(ambit_program()?).args(asked).run()?;
    assert_eq!(output.status.code(), Some(1));
    let said = "ambit: source `shop/nobody`: there is no pod";
    assert!(output.stderr.starts_with(said), "{}", output.stderr);
    Ok(())
}

/// A firewall, nobody who listens, and no certificate.
fn broken_ways(lab: &Lab, shop: &Shop, mesh: &mut RunningMesh<'_>) -> Result<()> {
    let node = lab.node("a");
    let block = "add table inet block; add chain inet block in { type filter hook input priority -300; }; \
                 add rule inet block in tcp dport 15008 drop";
    lab.node("b").run("nft", [block])?.success()?;
    let told = explain(node, "shop/web", "shop/store")?;
    assert_eq!(told["fails_at"], "port 15008", "{told:#}");
    let looks = "it looks as if a NetworkPolicy or firewall blocks 15008";
    assert!(said(&told, "port 15008").ends_with(looks), "{told:#}");
    let unblock = ["delete", "table", "inet", "block"];
    lab.node("b").run("nft", unblock)?.success()?;

    mesh.kill_agent("b");
    let told = explain(node, "shop/web", "shop/store")?;
    assert_eq!(told["fails_at"], "port 15008", "{told:#}");
    assert!(said(&told, "port 15008").ends_with("nobody listens there"));
    assert_ne!(shop.web.call(shop.vip)?, "echoed");
    mesh.start_agent(lab.node("b"))?;
    eventually("the way to be mended", DEADLINE, || {
        explain(node, "shop/web", "shop/store").unwrap()["fails_at"].is_null()
    });
    assert_eq!(shop.web.call(shop.vip)?, "echoed");

    mesh.kill_control();
    mesh.kill_agent("a");
    mesh.start_agent(node)?;
    eventually("the missing certificate to be told", DEADLINE, || {
        let told = explain(node, "shop/web", "shop/store").unwrap();
        told["fails_at"] == "certificate"
    });
    Ok(())
}

#[test]
fn what_a_waypoint_decides_is_left_to_it() -> Result<()> {
    let lab = Lab::builder("explain-waypoint").build()?;
    let shop = Shop::open(&lab)?;
    let _echo = shop.far.echo(8080)?;
    lab.announce_nodes()?;
    let labels = [
        ("ambit.dev/mesh", "enabled"),
        ("ambit.dev/use-waypoint", "w"),
    ];
    lab.namespace("shop").labelled(&labels)?;
    let mesh = Mesh::default().start(&lab)?;
    let node = lab.node("a");
    let told = || explain(node, "shop/web", "store.shop").unwrap();
    eventually("the waypoint to be ready", DEADLINE, || {
        told()["fails_at"].is_null()
    });
    let ready = told();
    assert!(said(&ready, "route").starts_with("through waypoint shop/w by HBONE to "));
    let mut steps = ready["steps"].as_array().unwrap().iter();
    let proves = |step: &Value| step["text"].as_str().unwrap().contains("proves to be");
    assert!(steps.any(proves), "{ready:#}");
    assert_eq!(shop.web.call(shop.vip)?, "echoed");

    // Denied where the waypoint stands.
    let denies = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                  metadata: {name: nobody, namespace: shop}\n\
                  spec: {targetRefs: [{group: '', kind: Service, name: store}]}\n";
    mesh.apply("policy.yaml", denies)?;
    let refused = told();
    assert_eq!(refused["fails_at"], "policy", "{refused:#}");
    assert!(
        said(&refused, "policy").contains("shop/nobody"),
        "{refused:#}"
    );
    eventually("the waypoint to hear of the policy", DEADLINE, || {
        shop.web.call(shop.vip).unwrap() != "echoed"
    });

    // It depends on the request.
    let by_path = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                   metadata: {name: nobody, namespace: shop}\n\
                   spec: {targetRefs: [{group: '', kind: Service, name: store}], \
                   rules: [{to: [{operation: {paths: ['/free']}}]}]}\n";
    mesh.apply("policy.yaml", by_path)?;
    mesh.apply(
        "far.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n\
         spec: {clusterIP: 10.96.77.77, selector: {app: far}, \
         ports: [{name: http, port: 80, targetPort: 8080}]}\n",
    )?;
    let by_request = by_path.replace("name: store", "name: web");
    mesh.apply("policy.yaml", &by_request)?;
    let depends = explain(node, "shop/web", "shop/web:80")?;
    assert!(
        said(&depends, "policy").contains("shop/nobody asks about HTTP"),
        "{depends:#}"
    );
    Ok(())
}
