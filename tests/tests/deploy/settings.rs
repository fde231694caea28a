//! Whether the manifests and the program mean the same settings, ports, paths and names.

use std::{collections::BTreeMap, process::Command};

use lab::ambit_program;
use serde_json::Value;

use super::{built, called, containers, everything, find, is_ours, list, pods, text};

#[test]
fn the_program_knows_every_setting_of_its_containers() {
    let objects = everything();
    let mut unknown = Vec::new();
    for (owner, pod) in pods(&objects) {
        for container in containers(pod).filter(|container| is_ours(container)) {
            let arguments: Vec<String> = list(&container["args"]).map(text).collect();
            let help = help(&arguments[0]);
            let variables = list(&container["env"]).map(|variable| text(&variable["name"]));
            let options = arguments.iter().filter(|word| word.starts_with("--"));
            let options = options.map(|word| word.split('=').next().unwrap().to_owned());
            let settings = variables
                .map(|name| (format!("[env: {name}"), name))
                .chain(options.map(|name| (format!("{name} "), name)));
            let missing = settings.filter(|(shown, _)| !help.contains(shown));
            unknown.extend(missing.map(|(_, name)| format!("{owner}: {name}")));
        }
    }
    assert_eq!(unknown, Vec::<String>::new());
}

/// What a role says of its settings, with the defaults but without what this environment has set.
fn help(role: &str) -> String {
    let help = Command::new(ambit_program().unwrap())
        .args([role, "--help"])
        .output()
        .unwrap();
    assert!(help.status.success(), "{role}");
    String::from_utf8(help.stdout).unwrap()
}

#[test]
fn agents_find_authority_token_and_roots_where_they_look_by_default() {
    let objects = built("deploy");
    let agent = find(&objects, "DaemonSet/ambit-node");
    let pod = &agent["spec"]["template"]["spec"];
    let mounted = |volume: &str| {
        let mounts = list(&pod["containers"][0]["volumeMounts"]);
        let mut mounts = mounts.filter(|mount| mount["name"] == volume);
        text(&mounts.next().unwrap()["mountPath"])
    };
    let volume = |name: &str| {
        let mut volumes = list(&pod["volumes"]).filter(|volume| volume["name"] == name);
        volumes.next().unwrap().clone()
    };
    let token = volume("token")["projected"]["sources"][0]["serviceAccountToken"].clone();
    assert_eq!(token["audience"], "ambit-ca");
    assert_eq!(
        volume("trust-bundle")["configMap"]["name"],
        "ambit-trust-bundle"
    );

    let service = find(&objects, "Service/ambit-control");
    let [name, namespace] = ["name", "namespace"].map(|field| text(&service["metadata"][field]));
    let port = &service["spec"]["ports"][0]["port"];
    let help = help("node");
    for default in [
        format!("{name}.{namespace}.svc:{port}"),
        format!("{}/{}", mounted("token"), text(&token["path"])),
        format!("{}/trust-bundle.pem", mounted("trust-bundle")),
    ] {
        assert!(help.contains(&format!("[default: {default}]")), "{default}");
    }
    // Directories of the node are where the variables say.
    let variables: BTreeMap<String, String> = list(&pod["containers"][0]["env"])
        .map(|variable| (text(&variable["name"]), text(&variable["value"])))
        .collect();
    assert_eq!(variables["AMBIT_BPFFS"], mounted("bpffs"));
    assert_eq!(variables["AMBIT_CGROUP"], mounted("cgroup"));
    assert!(help.contains(&format!("[default: {}]", mounted("run"))));
    assert_eq!(mounted("sysctl"), crate::running::SYSCTL);
}

#[test]
fn a_new_agent_is_scheduled_beside_the_one_that_it_takes_over_from() {
    let objects = built("deploy");
    let spec = &find(&objects, "DaemonSet/ambit-node")["spec"];
    let update = &spec["updateStrategy"]["rollingUpdate"];
    assert_eq!(
        (&update["maxSurge"], &update["maxUnavailable"]),
        (&1.into(), &0.into())
    );
    let pod = &spec["template"]["spec"];
    assert_eq!(pod["hostNetwork"], true);
    for container in containers(pod) {
        // They would be the node's, which the one that runs has.
        assert!(container["ports"].is_null());
    }
}

/// Those of distroless/cc, in which the image puts it.
#[test]
fn the_program_links_to_no_library_that_its_image_lacks() {
    let libraries = Command::new("ldd")
        .arg(ambit_program().unwrap())
        .output()
        .unwrap();
    assert!(libraries.status.success());
    let libraries = String::from_utf8(libraries.stdout).unwrap();
    let there = [
        "linux-vdso.so.",
        "/ld-linux-",
        "libc.so.6 ",
        "libm.so.6 ",
        "libgcc_s.so.1 ",
    ];
    let (known, others): (Vec<&str>, Vec<&str>) = libraries
        .lines()
        .partition(|line| there.iter().any(|name| line.contains(name)));
    assert_eq!(others, Vec::<&str>::new());
    assert_ne!(known, Vec::<&str>::new());
}

#[test]
fn what_selects_pods_finds_them_and_their_ports() {
    let objects: Vec<Value> = everything();
    let templates: Vec<&Value> = objects
        .iter()
        .map(|object| &object["spec"]["template"])
        .filter(|template| !template.is_null())
        .collect();
    let mut selections = 0;
    for object in &objects {
        let spec = &object["spec"];
        // A name of a port, and where the selector is.
        let (selector, port) = match object["kind"].as_str().unwrap() {
            "DaemonSet" | "Deployment" => (&spec["selector"]["matchLabels"], None),
            "PodDisruptionBudget" => (&spec["selector"]["matchLabels"], None),
            "NetworkPolicy" => (&spec["podSelector"]["matchLabels"], None),
            "Service" => (&spec["selector"], Some(&spec["ports"][0]["targetPort"])),
            "PodMonitor" => (&spec["selector"]["matchLabels"], None),
            "AuthorizationPolicy" => (&spec["selector"]["matchLabels"], None),
            _ => continue,
        };
        let wanted = selector.as_object().unwrap();
        let selected: Vec<_> = templates
            .iter()
            .filter(|template| {
                let labels = &template["metadata"]["labels"];
                wanted.iter().all(|(name, value)| labels[name] == *value)
            })
            .collect();
        let name = called(object);
        assert_eq!(selected.len(), 1, "{name}");
        if let Some(port) = port {
            let ports = list(&selected[0]["spec"]["containers"][0]["ports"]);
            let found = ports.filter(|declared| declared["name"] == *port).count();
            assert_eq!(found, 1, "{name}: {port}");
        }
        selections += 1;
    }
    assert!(selections >= 11, "{selections}");
}
