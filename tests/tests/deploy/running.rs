//! Agents as their container has them, and the examples as a newcomer applies them.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use lab::{Lab, Mesh, Node, Pod, PodSpec, Result, Trio, Way, ambit_program, eventually};
use serde_json::Value;

use super::{built, containers, examples, find, list, objects, repository, text};

const DEADLINE: Duration = Duration::from_secs(30);
/// Where the manifests mount the node's settings of loopback.
pub(super) const SYSCTL: &str = "/host/proc/sys/net/ipv4/conf/lo";
/// Refuses everybody, and ends what is open.
const DENY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: shop}
spec: {action: DENY, rules: [{to: [{operation: {ports: ['8080']}}]}]}
";

/// What the first container of an object may do, as setpriv names it.
fn capabilities(directory: &str, name: &str) -> Vec<String> {
    let objects = built(directory);
    let pod = &find(&objects, name)["spec"]["template"]["spec"];
    let container = containers(pod).next().unwrap();
    let added = list(&container["securityContext"]["capabilities"]["add"]);
    added.map(|name| text(name).to_lowercase()).collect()
}

/// A program that runs `ambit` with these capabilities and no way to others, and, if it's no
/// authority, with a root of its own that is read-only, as `/proc/sys` is, and the node's setting
/// beside it.
fn contained(lab: &Lab, capabilities: &[String]) -> PathBuf {
    let program = lab.directory().join(capabilities.join("-"));
    let bounds: String = capabilities
        .iter()
        .map(|name| format!(",+{name}"))
        .collect();
    let script = format!(
        "#!/bin/sh
         set -e
         if [ \"$1\" = control ]; then exec {ambit} \"$@\"; fi
         exec unshare --mount --propagation private sh -ec '
             mount -t tmpfs tmpfs /mnt
             cd /mnt
             mkdir upper work root
             mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
             for directory in proc sys dev run tmp; do mount --rbind /$directory root/$directory; done
             mkdir -p root{SYSCTL}
             mount --bind /proc/sys/net/ipv4/conf/lo root{SYSCTL}
             mount --bind /proc/sys root/proc/sys
             mount -o remount,bind,ro root/proc/sys
             mount -o remount,bind,ro root
             exec chroot root setpriv --bounding-set=-all{bounds} --inh-caps=-all --no-new-privs {ambit} \"$@\"
         ' sh \"$@\"\n",
        ambit = ambit_program().unwrap().display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

#[test]
fn an_agent_does_its_work_in_its_container() -> Result<()> {
    let lab = Lab::builder("contained").build()?;
    let pods = Trio::start(&lab)?;
    let [mut near, mut far] = pods.servers().map(|pod| pod.echo(8080).unwrap());
    let program = contained(&lab, &capabilities("deploy", "DaemonSet/ambit-node"));
    let mut mesh = Mesh::default().program(&program).start(&lab)?;
    let status = fs::read_to_string(format!("/proc/{}/status", mesh.agent("a").pid())).unwrap();
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    assert!(status.contains("CapBnd:\t000000c000003000"), "{status}");

    // Carried and passed, past TCP, and to another node.
    let to_near = pods.near.at(8080);
    assert_eq!(pods.client.talk(&mut near, to_near)?, Way::Carried);
    assert_eq!(pods.client.talk(&mut near, to_near)?, Way::Direct);
    assert_eq!(pods.client.talk(&mut far, pods.far.at(8080))?, Way::Carried);
    let node = lab.node("a");
    assert!(node.metric("ambit_splice_active", &[])? > 0.0);

    // What passes is ended, though neither end sends anything.
    let mut held = pods.client.hold(to_near)?;
    held.echo().unwrap();
    lab.manifests().write("deny.yaml", DENY)?;
    assert_eq!(
        held.await_end().unwrap_err().kind(),
        std::io::ErrorKind::ConnectionReset
    );
    let log = mesh.agent("a").stderr();
    // Of the kernel; the policy's refusals are told in other words.
    let refused = [
        "Operation not permitted",
        "Permission denied",
        "Read-only file system",
    ];
    assert!(!refused.iter().any(|words| log.contains(words)), "{log}");

    assert_eq!(accept_local(node), "1");

    // Another container takes it all away.
    for node in ["a", "b"] {
        mesh.stop_agent(node)?;
    }
    let program = contained(
        &lab,
        &capabilities("deploy/uninstall", "DaemonSet/ambit-uninstall"),
    );
    let bpffs = node.bpf_directory();
    assert!(bpffs.join("ambit").exists());
    let run = node.run_directory();
    let arguments = [
        "uninstall".as_ref(),
        "--bpffs".as_ref(),
        bpffs.as_os_str(),
        "--run-directory".as_ref(),
        run.as_os_str(),
    ];
    node.run(program, arguments)?.success()?;
    assert!(!bpffs.join("ambit").exists() && !run.exists());
    assert_eq!(accept_local(node), "0");
    Ok(())
}

fn accept_local(node: &Node) -> String {
    let arguments = ["-n", "net.ipv4.conf.lo.accept_local"];
    node.run("sysctl", arguments)
        .unwrap()
        .text()
        .trim()
        .to_owned()
}

#[test]
fn an_agent_needs_each_of_its_capabilities() -> Result<()> {
    let all = capabilities("deploy", "DaemonSet/ambit-node");
    for left_out in &all {
        let lab = Lab::builder("lacking").build()?;
        let pods = Trio::start(&lab)?;
        let _near = pods.near.echo(8080)?;
        let rest: Vec<String> = all
            .iter()
            .filter(|name| *name != left_out)
            .cloned()
            .collect();
        let started = Mesh::default().program(&contained(&lab, &rest)).start(&lab);
        match (left_out.as_str(), started) {
            ("net_raw", Ok(mut mesh)) => {
                let at = pods.near.at(8080);
                pods.client.call(at)?;
                let _held = pods.client.hold(at)?;
                lab.manifests().write("deny.yaml", DENY)?;
                mesh.agent("a").await_stderr(DEADLINE, |line| {
                    line.contains("telling a pod that a connection has ended")
                        && line.contains("Operation not permitted")
                })?;
            }
            ("net_raw", Err(error)) => panic!("{error}"),
            (name, started) => {
                let error = started.expect_err(name).to_string();
                let refusals = ["Operation not permitted", "Permission denied"];
                let refused = refusals.iter().any(|words| error.contains(words));
                assert!(refused, "{name}: {error}");
            }
        }
    }
    Ok(())
}

/// Pods as the examples' Deployments make them, a server on each node.
struct Shop {
    catalog: [Pod; 2],
    frontend: Pod,
    batch: Pod,
    stranger: Pod,
}

impl Shop {
    fn open(lab: &Lab, deployments: &str) -> Result<Self> {
        let deployments = objects(deployments);
        let pod = |node: &str, name: &str, account: &str| {
            let template =
                &find(&deployments, &format!("Deployment/{account}"))["spec"]["template"];
            let spec = PodSpec::in_namespace("shop")
                .service_account(&text(&template["spec"]["serviceAccountName"]));
            let labels = template["metadata"]["labels"].as_object().unwrap();
            let spec = labels.iter().fold(spec, |spec, (name, value)| {
                spec.label(name, value.as_str().unwrap())
            });
            lab.node(node).pod(name, spec)
        };
        lab.namespace("street").not_enrolled()?;
        let street = PodSpec::in_namespace("street");
        Ok(Self {
            catalog: [
                pod("a", "catalog-1", "catalog")?,
                pod("b", "catalog-2", "catalog")?,
            ],
            frontend: pod("a", "frontend", "frontend")?,
            batch: pod("a", "batch", "batch")?,
            stranger: lab.node("a").pod("stranger", street)?,
        })
    }

    /// How calls of the frontend, of batch and of a stranger to either catalog end.
    fn calls(&self) -> Vec<[String; 2]> {
        let clients = [&self.frontend, &self.batch, &self.stranger];
        let call = |client: &Pod| {
            self.catalog
                .each_ref()
                .map(|server| client.call(server.at(80)).unwrap())
        };
        clients.map(call).into()
    }
}

#[test]
fn the_examples_do_what_they_say_and_the_dashboard_shows_it() -> Result<()> {
    let lab = Lab::builder("examples").build()?;
    let files = examples();
    // The others are about a waypoint, which these agents have no control to make one.
    let [namespace, services, mutual_tls, policy, ..] = files.as_slice() else {
        panic!("{files:?}");
    };
    lab.manifests().write("namespace-shop.yaml", &namespace.1)?;
    let shop = Shop::open(&lab, &services.1)?;
    let _servers = shop.catalog.each_ref().map(|pod| pod.echo(80).unwrap());
    let _mesh = Mesh::default().start(&lab)?;
    let each = |ends: [&str; 3]| ends.map(|end| [end.to_owned(), end.to_owned()]);
    assert_eq!(shop.calls(), each(["echoed"; 3]));
    for ((file, yaml), expected) in [
        (mutual_tls, ["echoed", "echoed", "reset"]),
        (policy, ["echoed", "reset", "reset"]),
    ] {
        lab.manifests().write(file, yaml)?;
        eventually(file, DEADLINE, || shop.calls() == each(expected));
    }

    let pages: Vec<String> = lab.nodes().iter().map(page).collect();
    let lines: Vec<&str> = pages.iter().flat_map(|page| page.lines()).collect();
    let dashboard = repository().join("deploy/monitoring/ambit.json");
    let queries = queries(&dashboard);
    assert!(queries.len() > 15, "{queries:?}");
    for query in queries {
        let metrics: BTreeSet<&str> = words(&query).filter(|word| is_metric(word)).collect();
        assert_ne!(metrics, BTreeSet::new(), "{query}");
        // The unit test of their metrics knows these queries.
        if metrics.iter().all(|metric| is_of_waypoints(metric)) {
            continue;
        }
        for metric in &metrics {
            let of_it = lines.iter().filter(|line| {
                line.strip_prefix(metric)
                    .is_some_and(|rest| rest.starts_with(['{', ' ']))
            });
            let samples: Vec<_> = of_it.collect();
            assert_ne!(samples.len(), 0, "{metric}, of {query}");
            for label in words(&query).filter(|word| is_label(word)) {
                let shown = format!("{label}=\"");
                assert!(
                    samples.iter().any(|line| line.contains(&shown)),
                    "{label} of {query}"
                );
            }
        }
    }
    Ok(())
}

fn page(node: &Node) -> String {
    node.fetch("http://127.0.0.1:15020/metrics").unwrap()
}

fn queries(dashboard: &Path) -> Vec<String> {
    let dashboard: Value = serde_json::from_slice(&fs::read(dashboard).unwrap()).unwrap();
    list(&dashboard["panels"])
        .flat_map(|panel| list(&panel["targets"]))
        .map(|target| text(&target["expr"]))
        .collect()
}

/// The names in a query: of metrics, labels and functions.
fn words(query: &str) -> impl Iterator<Item = &str> {
    // What is within quotes names nothing.
    let outside = query.split('"').step_by(2);
    outside.flat_map(|part| part.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'))
}

fn is_metric(word: &str) -> bool {
    ["istio_", "ambit_", "process_"]
        .iter()
        .any(|start| word.starts_with(start))
}

/// Those that only waypoints have.
fn is_of_waypoints(metric: &str) -> bool {
    [
        "istio_request",
        "istio_response",
        "ambit_trace_",
        "ambit_waypoint_",
    ]
    .iter()
    .any(|start| metric.starts_with(start))
}

/// Those that the agents' own samples have, Prometheus's `node` and `job` left out.
fn is_label(word: &str) -> bool {
    ["source_", "destination_", "response_", "connection_"]
        .iter()
        .any(|start| word.starts_with(start))
        || [
            "direction",
            "reason",
            "rule",
            "policy",
            "reporter",
            "version",
            "le",
        ]
        .contains(&word)
}
