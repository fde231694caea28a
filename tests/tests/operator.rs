//! What an operator is told by the commands, on nodes whose agents run, fare badly, or don't run.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which clippy doesn't count as tests"
)]

use std::{collections::BTreeMap, fs, time::Duration};

use lab::{Lab, Mesh, Node, Output, Phase, Pod, PodSpec, Result, ambit_program, eventually};
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(30);
const POLICIES: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: few, namespace: shop, annotations: {istio.io/dry-run: 'true'}}
spec: {action: DENY, selector: {matchLabels: {app: till}}, rules: [{}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: all, namespace: ambit-system}
spec: {mtls: {mode: STRICT}}
";

/// Runs a command as an operator would who has set a log level for the agent.
fn run(node: &Node, arguments: &[&str]) -> Result<Output> {
    let command = node.command(ambit_program()?).args(arguments);
    command.env("RUST_LOG", "trace").run()
}

/// What a command writes that has an answer, and nothing else to say.
fn told(node: &Node, arguments: &[&str]) -> Result<String> {
    let output = run(node, arguments)?;
    eprintln!("{arguments:?}\n{}", output.text());
    assert_eq!(output.stderr, "", "{arguments:?}");
    output.success()
}

/// The cells of a table, headers and all.
fn table(node: &Node, arguments: &[&str]) -> Result<Vec<Vec<String>>> {
    let text = told(node, arguments)?;
    let cells = |line: &str| {
        let cells = line.split("  ").map(str::trim);
        cells
            .filter(|cell| !cell.is_empty())
            .map(str::to_owned)
            .collect()
    };
    Ok(text.lines().map(cells).collect())
}

/// The lines of `ambit status`, by subject; those of the pods that wait are under "Pods".
fn status(node: &Node) -> Result<BTreeMap<String, String>> {
    let mut lines = BTreeMap::<String, String>::new();
    let mut subject = String::new();
    for line in told(node, &["status"])?.lines() {
        let (name, text) = line.split_at(14);
        if let Some(name) = name.trim_end().strip_suffix(':') {
            name.clone_into(&mut subject);
        }
        let entry = lines.entry(subject.clone()).or_default();
        *entry += &format!("{text}\n");
    }
    Ok(lines)
}

fn json_of(node: &Node, arguments: &[&str]) -> Result<Value> {
    let text = told(node, &[arguments, &["-o", "json"]].concat())?;
    Ok(serde_json::from_str(&text).unwrap())
}

/// An enrolled client on node a, an enrolled server on node b behind a service, and one who has no
/// part in it.
struct Shop {
    client: Pod,
    server: Pod,
    outside: Pod,
}

impl Shop {
    fn open(lab: &Lab) -> Result<Self> {
        lab.namespace("shop").enrolled()?;
        lab.namespace("street").not_enrolled()?;
        let pod = |account| PodSpec::in_namespace("shop").service_account(account);
        Ok(Self {
            client: lab.node("a").pod("client", pod("client"))?,
            server: lab.node("b").pod("server", pod("server"))?,
            outside: lab.node("a").pod("out", PodSpec::in_namespace("street"))?,
        })
    }
}

#[test]
fn the_mesh_is_shown_in_tables_and_in_json() -> Result<()> {
    let lab = Lab::builder("operator").build()?;
    let shop = Shop::open(&lab)?;
    let service = lab.service("shop", "web").port(80, 8080);
    let service = service.endpoint(&shop.server).apply()?;
    lab.apply("policies.yaml", POLICIES)?;
    let _echo = shop.server.echo(8080)?;
    let _mesh = Mesh::default().start(&lab)?;
    let mut held = shop.client.hold(service.at(80))?;
    held.echo().unwrap();
    let node = lab.node("a");

    let principal = |name: &str| format!("cluster.local/ns/{name}");
    let address = |pod: &Pod| pod.address().to_string();
    let headers = "NAMESPACE NAME ADDRESS NODE ENROLMENT READY WAYPOINT IDENTITY";
    let row = |name: &str, pod: &Pod, node: &str| {
        ["shop", name, &address(pod), node, "enrolled", "yes", "-"]
            .map(str::to_owned)
            .into_iter()
            .chain([principal(&format!("shop/sa/{name}"))])
            .collect::<Vec<_>>()
    };
    let client = row("client", &shop.client, "a");
    let server = row("server", &shop.server, "b");
    let outside = [
        "street",
        "out",
        &address(&shop.outside),
        "a",
        "not labelled",
        "yes",
        "-",
        &principal("street/sa/default"),
    ]
    .map(str::to_owned);
    for (arguments, rows) in [
        (
            &["workloads"][..],
            vec![&client[..], &server[..], &outside[..]],
        ),
        (&["workloads", "-n", "shop"], vec![&client, &server]),
        (&["workloads", "--node", "a"], vec![&client, &outside]),
        (
            &["workloads", "--namespace", "shop", "--node", "b"],
            vec![&server],
        ),
    ] {
        let shown = table(node, arguments)?;
        assert_eq!(shown[0].join(" "), headers, "{arguments:?}");
        assert_eq!(shown[1..], rows, "{arguments:?}");
    }

    let endpoint = shop.server.at(8080).to_string();
    let vip = service.at(80).ip().to_string();
    assert_eq!(
        table(node, &["services", "-n", "shop"])?,
        [
            [
                "NAMESPACE",
                "NAME",
                "ADDRESS",
                "PORTS",
                "WAYPOINT",
                "ENDPOINTS"
            ],
            ["shop", "web", &vip, "80", "-", &endpoint],
        ]
    );

    assert_eq!(
        table(node, &["policies"])?,
        [
            "NAMESPACE NAME KIND SCOPE SELECTS EFFECT RULES HTTP DRY-RUN",
            "ambit-system all PeerAuthentication mesh - STRICT - - -",
            "shop few AuthorizationPolicy workloads app=till DENY 1 - yes",
        ]
        .map(|line| line.split(' ').collect::<Vec<_>>())
    );
    let certificates = table(node, &["certificates"])?;
    let [headers, row] = &certificates[..] else {
        panic!("{certificates:?}");
    };
    assert_eq!(
        headers.join(","),
        "IDENTITY,STATE,EXPIRES,SERIAL,LAST ERROR"
    );
    assert_eq!(row[..2], [principal("shop/sa/client"), "valid".to_owned()]);
    assert!(row[2].starts_with("in "), "{row:?}");
    assert_eq!(row[4], "-");

    for (node, direction, service) in [("a", "outbound", "shop/web"), ("b", "inbound", "-")] {
        eventually("all bytes to be counted", DEADLINE, || {
            let open = &lab.node(node).admin("/connections").unwrap()[0];
            [&open["bytes_sent"], &open["bytes_received"]] == [65_536, 65_536]
        });
        for arguments in [&["connections"][..], &["connections", "-n", "shop"]] {
            let shown = table(lab.node(node), arguments)?;
            assert_eq!(
                shown[0].join(" "),
                "DIRECTION SOURCE FROM DESTINATION TO SERVICE TO-CLIENT TO-SERVER AGE"
            );
            let [row] = &shown[1..] else {
                panic!("{shown:?}");
            };
            let from = held.address()?.to_string();
            let expected = [
                direction,
                "shop/client",
                &from,
                "shop/server",
                &endpoint,
                service,
                "64.0KiB",
                "64.0KiB",
            ];
            assert_eq!(row[..8], expected);
        }
    }

    for list in [
        "workloads",
        "services",
        "policies",
        "certificates",
        "problems",
    ] {
        let shown = json_of(node, &[list])?;
        assert_eq!(shown, node.admin(&format!("/{list}"))?, "{list}");
    }
    let connections = json_of(node, &["connections"])?;
    assert_eq!(connections[0]["source"], "shop/client");
    let of_shop = json_of(node, &["workloads", "--node", "b"])?;
    assert_eq!(of_shop.as_array().unwrap().len(), 1);
    assert_eq!(of_shop[0]["name"], "shop/server");

    let shown = status(node)?;
    let directory = lab.manifests().directory().display();
    for (subject, text) in [
        (
            "Agent",
            format!("{} on node a\n", env!("CARGO_PKG_VERSION")),
        ),
        ("Ready", "yes\n".into()),
        ("Source", format!("directory {directory}, in sync\n")),
        ("Pods", "1 of this node enrolled, 1 captured\n".into()),
        ("Maps", "hold every address and service\n".into()),
        ("Splice", "on\n".into()),
        ("Connections", "1 open\n".into()),
        ("Tunnels", "1 open to other agents, 0 from them\n".into()),
        ("Problems", "none\n".into()),
    ] {
        assert_eq!(shown[subject], text, "{shown:?}");
    }
    assert!(
        shown["Certificates"].starts_with("1 valid, 0 missing, 0 failing; the first expires in ")
    );
    let shown = json_of(lab.node("b"), &["status"])?;
    assert_eq!(shown["tunnels"], json!({"outbound": 0, "inbound": 1}));
    let shown = json_of(node, &["status"])?;
    assert_eq!(shown["conditions"], json!({"capture": true}));
    assert_eq!(shown["splice"], json!({"active": true, "reason": null}));
    assert_eq!(shown["connections"], 1);
    Ok(())
}

#[test]
fn what_is_empty_is_said_beside_the_answer() -> Result<()> {
    let lab = Lab::builder("empty").build()?;
    let _mesh = Mesh::default().start(&lab)?;
    for (arguments, expected) in [
        (&["workloads"][..], "the agent knows no workloads"),
        (
            &["workloads", "-n", "shop", "--node", "c"],
            "the agent knows no workloads in namespace shop on node c",
        ),
        (&["services"], "the agent knows no services"),
        (
            &["policies", "-n", "shop"],
            "the agent knows no policies in namespace shop",
        ),
        (
            &["certificates"],
            "the agent holds no certificates: no pod of this node is enrolled",
        ),
        (&["connections"], "no connections are open"),
        (
            &["problems"],
            "there are no problems: every object is used as it is",
        ),
    ] {
        let output = run(lab.node("a"), arguments)?;
        assert_eq!(output.stderr, format!("{expected}\n"), "{arguments:?}");
        assert_eq!(output.success()?, "", "{arguments:?}");
        assert_eq!(json_of(lab.node("a"), arguments)?, json!([]));
    }
    Ok(())
}

#[test]
fn status_says_what_is_amiss_and_why() -> Result<()> {
    let lab = Lab::builder("amiss").build()?;
    let _shop = Shop::open(&lab)?;
    let mut mesh = Mesh::default()
        .agent_arguments(&["--splice-fail-self-test"])
        .start(&lab)?;
    let node = lab.node("a");
    eventually("the first certificate", DEADLINE, || {
        status(node).unwrap()["Certificates"].starts_with("1 valid, 0 missing, 0 failing")
    });
    let shown = status(node)?;
    let splice = &shown["Splice"];
    assert!(splice.starts_with("off: self-test: "), "{splice}");
    let logged = mesh.agent("a").stderr();
    let reason = splice.trim_end().strip_prefix("off: ").unwrap();
    assert!(
        logged.contains(&format!("splice off, all bytes go through TCP: {reason}")),
        "{logged}"
    );

    mesh.kill_control();
    let spec = |account| PodSpec::in_namespace("shop").service_account(account);
    let without_address = node.schedule("early", spec("early"))?;
    without_address.announce(Phase::Pending)?;
    let without_interface = node.schedule("late", spec("late"))?;
    without_interface.announce(Phase::Running)?;
    lab.apply("broken.yaml", "{apiVersion: v1, kind: Service}")?;
    let manifest = without_interface.manifest(Phase::Running)?;
    let address = manifest
        .lines()
        .find_map(|line| line.trim().strip_prefix("podIP: "))
        .unwrap();
    let pods = format!(
        "3 of this node enrolled, 1 captured\n\
         shop/early waits: it has no address yet (status.podIPs)\n\
         shop/late waits: none of the node's interfaces leads to {address}: no host route, no \
         address in the namespace of any pod's interface, no entry of a bridge\n"
    );
    let mut shown = BTreeMap::new();
    eventually("all that is amiss", DEADLINE, || {
        shown = status(node).unwrap();
        shown["Problems"] != "none\n"
            && shown["Pods"] == pods
            && shown["Certificates"].starts_with("1 valid, 2 missing, 2 failing")
    });
    assert_eq!(
        shown["Problems"],
        "1 object can't be used as it is; see `ambit problems`\n"
    );
    assert_eq!(shown["Ready"], "yes\n");
    let problems = table(node, &["problems"])?;
    assert_eq!(problems[0], ["OBJECT", "FIELD", "SOURCE", "PROBLEM"]);
    assert!(
        problems[1].join(" ").contains("broken.yaml"),
        "{problems:?}"
    );
    let certificates = table(node, &["certificates"])?;
    let late = "cluster.local/ns/shop/sa/late";
    let row = certificates.iter().find(|row| row[0] == late).unwrap();
    assert_eq!(row[1..4], ["not issued", "-", "-"]);
    assert_ne!(row[4], "-");

    let directory = lab.manifests().directory();
    let elsewhere = lab.directory().join("elsewhere");
    fs::rename(directory, &elsewhere).unwrap();
    let lost = format!("directory {}, not in sync: ", directory.display());
    eventually("the source to be lost", DEADLINE, || {
        let source = &status(node).unwrap()["Source"];
        source.starts_with(&lost) && source.ends_with("its last state serves\n")
    });
    fs::rename(&elsewhere, directory).unwrap();
    let found = format!("directory {}, in sync\n", directory.display());
    eventually("the source to be found again", DEADLINE, || {
        status(node).unwrap()["Source"] == found
    });
    Ok(())
}

#[test]
fn an_agent_that_can_not_be_asked_is_told_by_address_cause_and_cure() -> Result<()> {
    let lab = Lab::builder("unasked").build()?;
    let mut mesh = Mesh::default().start(&lab)?;
    mesh.stop_agent("b")?;
    let _echo = lab
        .node("b")
        .peer_server(["echo-server", "--listen", "127.0.0.1:15001"])?;
    for (node, address, cause) in [
        (
            "b",
            "127.0.0.1:15000",
            "Connection refused (os error 111). Is it running on this node",
        ),
        (
            "b",
            "127.0.0.1:15001",
            "what listens there doesn't answer in HTTP",
        ),
        // Another endpoint of an agent is as one of another version.
        ("a", "127.0.0.1:15020", "It isn't of this command's version"),
    ] {
        for command in ["status", "workloads", "connections"] {
            let node = lab.node(node);
            let output = run(node, &[command, "--admin-address", address])?;
            assert_eq!(output.status.code(), Some(1));
            assert_eq!(output.text(), "");
            let stderr = &output.stderr;
            let whom = format!("ambit: the agent at {address} can't be asked for its {command}: ");
            assert!(stderr.starts_with(&whom), "{stderr}");
            assert!(stderr.contains(cause), "{stderr}");
            let cure = format!("kubectl -n ambit-system exec ds/ambit-node -- ambit {command}\n");
            assert!(stderr.ends_with(&cure), "{stderr}");
        }
    }
    Ok(())
}
