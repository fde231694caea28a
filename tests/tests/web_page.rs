//! The web page of the admin port, in a browser.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which clippy doesn't count as tests"
)]

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use lab::{Lab, Mesh, Node, Pod, PodSpec, Result, RunningMesh, Seen, Tab, eventually};

const DEADLINE: Duration = Duration::from_secs(90);
/// Between two connections: traffic, but not all that two processors can bear.
const PAUSE: Duration = Duration::from_millis(20);
const POLICY: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: vault-shut, namespace: shop}
spec: {action: DENY, selector: {matchLabels: {app: vault}}, rules: [{}]}
";
/// A name that would be an element of the page, if it were taken for HTML.
const INJECTION: &str = "\
apiVersion: v1
kind: Service
metadata: {name: '<b id=injected>x</b>', namespace: shop}
spec: {clusterIP: 'nowhere', ports: [{port: 80}]}
";

/// Waits until a script in the page comes to a text.
fn await_that(tab: &mut Tab, script: &str, text: &str) {
    let what = format!("{script} to be {text:?}");
    eventually(&what, DEADLINE, || tab.evaluate(script).unwrap() == text);
}

/// Connects again and again, until told to stop.
fn call(client: &Pod, server: &Pod, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        if let Ok(mut held) = client.hold(server.at(8080)) {
            // Policy refuses some.
            let _ = held.echo();
        }
        thread::sleep(PAUSE);
    }
}

/// Edges with their rates, what was chosen, and the tables.
fn shows_all(seen: &Seen) {
    for (name, is_denied, way) in [("web", false, "mutual TLS"), ("vault", true, "on the node")] {
        let key = format!("data-key=\"shop/client to shop/{name}\"");
        let row = seen.between(&format!("<tr {key}"), "</tr>");
        let rate = row.split('"').nth(1).unwrap();
        assert!(rate.parse::<f64>().unwrap() > 0.0, "{row}");
        assert!(row.ends_with(&format!("<td>{way}</td>")), "{row}");
        let mut edges = seen.page.split("<g ");
        let edge = edges.find(|edge| edge.contains(&key)).unwrap();
        let class = edge.split('"').nth(1).unwrap();
        assert_eq!(class.contains("denied"), is_denied, "{edge}");
        let colour = if is_denied { "bad" } else { "fine" };
        assert!(class.contains(colour), "{edge}");
        assert!(edge.contains(&format!("<title>shop/client to shop/{name}: ")));
    }
    let detail = seen.between("<aside", "</aside>");
    for part in [
        "spiffe://cluster.local/ns/shop/sa/web",
        "mutual TLS",
        "connections, ",
    ] {
        assert!(detail.contains(part), "{detail}");
    }
    let policies = seen.between("<table id=\"policies\">", "</table>");
    for cell in ["shop/vault-shut", "app=vault", "DENY"] {
        assert!(policies.contains(&format!("<td>{cell}</td>")), "{policies}");
    }
    let certificates = seen.between("<table id=\"certificates\">", "</table>");
    assert!(certificates.contains("<td>spiffe://cluster.local/ns/shop/sa/client</td>"));
    assert!(
        certificates.contains("class=\"number fine\""),
        "{certificates}"
    );
    let problems = seen.between("<table id=\"problems\">", "</table>");
    assert!(problems.contains("&lt;b id=injected&gt;"), "{problems}");
    assert!(!seen.page.contains("<b id"), "{problems}");
}

/// By the keyboard, while the page draws itself anew; then without an agent for a while.
fn is_used(node: &Node, mesh: &mut RunningMesh<'_>) -> Result<()> {
    let mut tab = node.open_page("http://127.0.0.1:15000/")?;
    let key = "shop/client to shop/vault";
    let edge = format!("document.querySelector('[data-key=\"{key}\"]')");
    await_that(&mut tab, &format!("{edge}?.tagName"), "g");
    for chosen in [key, "nothing"] {
        tab.evaluate(&format!("{edge}.focus()"))?;
        tab.press_enter()?;
        let detail = "document.querySelector('aside:not([hidden]) h2')?.textContent ?? 'nothing'";
        await_that(&mut tab, detail, chosen);
    }
    let text = |id: &str| format!("document.getElementById('{id}').textContent");
    let trouble = format!("{}.split(' (')[0]", text("trouble"));
    mesh.stop_agent("a")?;
    await_that(&mut tab, &trouble, "The agent doesn't answer");
    mesh.start_agent(node)?;
    await_that(&mut tab, &trouble, "");
    await_that(&mut tab, &text("graph-note"), "Nobody has talked yet.");
    Ok(())
}

#[test]
fn the_page_shows_who_talks_to_whom_and_what_is_denied() -> Result<()> {
    let lab = Lab::builder("page").build()?;
    lab.namespace("shop").enrolled()?;
    let pod = |node, name| {
        let spec = PodSpec::in_namespace("shop").service_account(name);
        lab.node(node).pod(name, spec.label("app", name))
    };
    let (client, web, vault) = (pod("a", "client")?, pod("b", "web")?, pod("a", "vault")?);
    let _echo = [web.echo(8080)?, vault.echo(8080)?];
    lab.apply("policy.yaml", POLICY)?;
    let mut mesh = Mesh::default().start(&lab)?;
    lab.apply("injection.yaml", INJECTION)?;
    let node = lab.node("a");
    eventually("the problem to be known", DEADLINE, || {
        let problems = node.admin("/problems").unwrap();
        problems.to_string().contains("injected")
    });

    let stop = AtomicBool::new(false);
    let seen = thread::scope(|scope| {
        scope.spawn(|| call(&client, &web, &stop));
        scope.spawn(|| call(&client, &vault, &stop));
        // The chosen edge is in the address.
        let url = "http://localhost:15000/#shop%2Fclient%20to%20shop%2Fweb";
        let seen = node.browse(url);
        stop.store(true, Ordering::Relaxed);
        seen
    })?;
    assert_eq!(seen.console, Vec::<String>::new());
    assert_eq!(seen.hosts, ["localhost:15000".to_owned()].into());

    shows_all(&seen);
    is_used(node, &mut mesh)?;

    // A site whose name leads here.
    let rebound = node.run(
        "curl",
        ["-s", "-H", "Host: evil.example", "http://127.0.0.1:15000/"],
    )?;
    assert!(
        rebound
            .text()
            .starts_with("the host \"evil.example\" isn't a name of loopback")
    );
    Ok(())
}
