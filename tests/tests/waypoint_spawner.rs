//! What control makes of Gateways and of namespaces' labels, by the rights that the manifests give it.

use std::{path::PathBuf, time::Duration};

use lab::{
    ApiServer, Child, Lab, Rbac, Result, ambit_program,
    deploy::{kustomize, refusals},
    eventually,
};
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(60);
const CONTROL: &str = "system:serviceaccount:ambit-system:ambit-control";
const IMAGE: &str = "registry.example/ambit:7";
/// What a waypoint is made of, and how it is called: with the Gateway's name, or with more.
const MADE: [(&str, &str); 5] = [
    ("ConfigMap", "-trust-bundle"),
    ("Deployment", ""),
    ("PodDisruptionBudget", ""),
    ("Service", ""),
    ("ServiceAccount", ""),
];

/// A cluster in which control runs, but neither kubelet nor controllers.
struct Cluster<'a> {
    lab: &'a Lab,
    api: ApiServer,
    kubeconfig: PathBuf,
    control: Option<Child>,
}

impl<'a> Cluster<'a> {
    fn new(lab: &'a Lab) -> Result<Self> {
        let api = ApiServer::start(lab)?;
        for name in ["ambit-system", "shop"] {
            api.apply(namespace(name, &json!({})))?;
        }
        let installed = kustomize("deploy")?;
        for object in kustomize("deploy/waypoints")?.iter().chain(&installed) {
            if matches!(
                object["kind"].as_str(),
                Some("ClusterRoleBinding" | "GatewayClass")
            ) {
                api.apply(object.clone())?;
            }
        }
        api.apply(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "namespace": "ambit-system", "name": "ambit-control-0" },
            "spec": { "containers": [{ "name": "ambit", "args": ["control"], "image": IMAGE }] },
        }))?;
        api.authorize(Rbac::new(&installed)?);
        Ok(Self {
            lab,
            kubeconfig: api.kubeconfig(CONTROL)?,
            api,
            control: None,
        })
    }

    fn start(&mut self) -> Result<()> {
        let node = &self.lab.nodes()[0];
        let mut control = node
            .command(ambit_program()?)
            .args(["control", "--source", "kubernetes"])
            .args(["--kubeconfig".as_ref(), self.kubeconfig.as_os_str()])
            .args(["--listen", &format!("{}:15012", node.address())])
            .env("POD_NAME", "ambit-control-0")
            .spawn()?;
        control.await_stderr(DEADLINE, |line| {
            line.contains("certificate authority ready")
        })?;
        self.control = Some(control);
        Ok(())
    }

    fn running(lab: &'a Lab) -> Result<Self> {
        let mut cluster = Self::new(lab)?;
        cluster.start()?;
        Ok(cluster)
    }

    fn object(&self, kind: &str, name: &str) -> Option<Value> {
        self.api.object(kind, "shop", name)
    }

    /// Changes an object of the shop as its owner would.
    fn change(&self, kind: &str, name: &str, change: impl FnOnce(&mut Value)) -> Result<()> {
        let mut object = self.object(kind, name).unwrap_or_default();
        change(&mut object);
        self.api.apply(object)
    }

    /// `Type=Status/Reason` of a Gateway's conditions.
    fn conditions(&self, name: &str) -> String {
        let gateway = self.object("Gateway", name).unwrap_or_default();
        told(&gateway["status"]["conditions"])
    }

    #[track_caller]
    fn await_conditions(&self, name: &str, expected: &str) {
        eventually(
            &format!("conditions of {name} to be {expected}"),
            DEADLINE,
            || self.conditions(name) == expected,
        );
    }

    /// Waits until all objects of a waypoint are there.
    #[track_caller]
    fn await_waypoint(&self, name: &str) {
        for (kind, end) in MADE {
            eventually(&format!("{kind} of {name}"), DEADLINE, || {
                self.object(kind, &format!("{name}{end}")).is_some()
            });
        }
    }

    #[track_caller]
    fn await_removal(&self, name: &str) {
        for (kind, end) in MADE {
            eventually(&format!("{kind} of {name} to be gone"), DEADLINE, || {
                self.object(kind, &format!("{name}{end}")).is_none()
            });
        }
    }

    /// As the cluster's controllers do it.
    fn make_ready(&self, name: &str) -> Result<()> {
        self.change("Deployment", name, |deployment| {
            deployment["status"] = json!({ "replicas": 2, "readyReplicas": 1 });
        })
    }

    /// Who has the rights of waypoints.
    fn subjects(&self) -> Vec<String> {
        let binding = self.api.object("ClusterRoleBinding", "", "ambit-waypoints");
        let binding = binding.unwrap_or_default();
        let subjects = binding["subjects"].as_array().into_iter().flatten();
        let name = |it: &Value| format!("{}/{}", text(&it["namespace"]), text(&it["name"]));
        subjects.map(name).collect()
    }
}

fn namespace(name: &str, labels: &Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels } })
}

fn gateway(name: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": { "namespace": "shop", "name": name },
        "spec": {
            "gatewayClassName": "ambit-waypoint",
            "listeners": [{ "name": "mesh", "port": 15008, "protocol": "HBONE" }],
        },
    })
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn told(conditions: &Value) -> String {
    let all = conditions.as_array().into_iter().flatten();
    let told = |it: &Value| {
        let [kind, status, reason] = ["type", "status", "reason"].map(|field| text(&it[field]));
        format!("{kind}={status}/{reason}")
    };
    all.map(told).collect::<Vec<_>>().join(" ")
}

const SERVES: &str = "Accepted=True/Accepted Programmed=True/Programmed";
const WAITS: &str = "Accepted=True/Accepted Programmed=False/Pending";

#[test]
fn a_gateway_becomes_a_waypoint_and_goes_with_all_that_was_made() -> Result<()> {
    let lab = Lab::builder("spawn").nodes(&["a"]).build()?;
    let cluster = Cluster::running(&lab)?;
    cluster.api.apply(gateway("w"))?;
    cluster.await_conditions("w", WAITS);
    let mut made: Vec<Value> = MADE
        .iter()
        .filter_map(|(kind, end)| cluster.object(kind, &format!("w{end}")))
        .collect();
    assert_eq!(made.len(), MADE.len());
    for object in &mut made {
        // The server's own record, with keys that are too long for YAML.
        object["metadata"]["managedFields"] = json!([]);
    }
    for version in ["1.25", "1.37"] {
        assert_eq!(refusals(&made, version)?, Vec::<String>::new());
    }
    let pod = |at: &str| {
        let deployment = cluster.object("Deployment", "w").unwrap_or_default();
        deployment["spec"]["template"].pointer(at).cloned()
    };
    assert_eq!(pod("/spec/containers/0/image"), Some(json!(IMAGE)));
    let roots = cluster
        .api
        .object("ConfigMap", "ambit-system", "ambit-trust-bundle")
        .unwrap_or_default();
    assert_eq!(made[0]["data"], roots["data"]);
    eventually("the waypoint to have rights", DEADLINE, || {
        cluster.subjects() == ["shop/w"]
    });
    eventually("the class to be accepted", DEADLINE, || {
        let class = cluster.api.object("GatewayClass", "", "ambit-waypoint");
        told(&class.unwrap_or_default()["status"]["conditions"]) == "Accepted=True/Accepted"
    });

    cluster.make_ready("w")?;
    cluster.await_conditions("w", SERVES);
    let status = cluster.object("Gateway", "w").unwrap_or_default()["status"].clone();
    let service = cluster.object("Service", "w").unwrap_or_default();
    let expected = json!([
        { "type": "IPAddress", "value": service["spec"]["clusterIP"] },
        { "type": "Hostname", "value": "w.shop.svc" },
    ]);
    assert_eq!(status["addresses"], expected);
    assert_eq!(status["listeners"][0]["attachedRoutes"], 0);

    // What somebody changes of ours is changed back, but for what isn't ours.
    cluster.change("Deployment", "w", |deployment| {
        deployment["spec"]["template"]["spec"]["containers"][0]["image"] = json!("other");
        deployment["spec"]["replicas"] = json!(5);
        deployment["metadata"]["annotations"] = json!({ "of-another": "1" });
    })?;
    let image = || pod("/spec/containers/0/image");
    eventually("the image to be ours again", DEADLINE, || {
        image() == Some(json!(IMAGE))
    });
    let deployment = cluster.object("Deployment", "w").unwrap_or_default();
    assert_eq!(deployment["spec"]["replicas"], 5);
    assert_eq!(deployment["metadata"]["annotations"]["of-another"], "1");
    cluster.api.delete("Service", "shop", "w")?;
    cluster.await_waypoint("w");

    // An edit is followed, both ways.
    let annotated = |labels: Value, replicas: Option<&str>| {
        let mut gateway = cluster.object("Gateway", "w").unwrap_or_default();
        gateway["spec"]["infrastructure"] = json!({ "labels": labels });
        gateway["metadata"]["annotations"] = json!({ "ambit.dev/replicas": replicas });
        cluster.api.apply(gateway)
    };
    let team = || pod("/metadata/labels/team");
    annotated(json!({ "team": "till" }), Some("3"))?;
    eventually("a label and a number", DEADLINE, || {
        let deployment = cluster.object("Deployment", "w").unwrap_or_default();
        team() == Some(json!("till")) && deployment["spec"]["replicas"] == 3
    });
    annotated(json!({}), None)?;
    eventually("the label to go", DEADLINE, || team().is_none());
    let deployment = cluster.object("Deployment", "w").unwrap_or_default();
    assert_eq!(deployment["spec"]["replicas"], 3);

    cluster.api.delete("Gateway", "shop", "w")?;
    cluster.await_removal("w");
    eventually("no account to have rights", DEADLINE, || {
        cluster.subjects().is_empty()
    });
    let refused = |seen: &lab::RequestSeen| seen.user == CONTROL && seen.status == 403;
    let refused: Vec<_> = cluster.api.requests().into_iter().filter(refused).collect();
    assert_eq!(refused, []);
    Ok(())
}

#[test]
fn a_bad_gateway_is_told_why_and_keeps_what_it_had() -> Result<()> {
    let lab = Lab::builder("bad").nodes(&["a"]).build()?;
    let cluster = Cluster::running(&lab)?;
    let mut bad = gateway("bad");
    bad["spec"]["listeners"][0]["protocol"] = json!("HTTP");
    cluster.api.apply(bad)?;
    let refused = "Accepted=False/ListenersNotValid Programmed=False/Invalid";
    cluster.await_conditions("bad", refused);
    let listener = || {
        let gateway = cluster.object("Gateway", "bad").unwrap_or_default();
        told(&gateway["status"]["listeners"][0]["conditions"])
    };
    assert!(listener().contains("Accepted=False/UnsupportedProtocol"));
    assert_eq!(cluster.object("Deployment", "bad"), None);

    // Somebody else's Service is in the way.
    let foreign = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "namespace": "shop", "name": "taken" },
        "spec": { "ports": [{ "port": 80 }] },
    });
    cluster.api.apply(foreign.clone())?;
    cluster.api.apply(gateway("taken"))?;
    cluster.await_conditions("taken", "Accepted=True/Accepted Programmed=False/Invalid");
    let status = cluster.object("Gateway", "taken").unwrap_or_default()["status"].clone();
    let message = text(&status["conditions"][1]["message"]).to_owned();
    assert!(message.contains("Service shop/taken") && message.contains("remove or rename"));
    let service = cluster.object("Service", "taken").unwrap_or_default();
    assert_eq!(service["spec"], foreign["spec"]);
    assert_eq!(cluster.object("Deployment", "taken"), None);

    // Others don't mind, and one that was good goes on when it's broken.
    cluster.api.apply(gateway("good"))?;
    cluster.await_waypoint("good");
    cluster.make_ready("good")?;
    cluster.await_conditions("good", SERVES);
    cluster.change("Gateway", "good", |gateway| {
        gateway["spec"]["addresses"] = json!([{ "value": "10.0.0.9" }]);
    })?;
    let refused = "Accepted=False/UnsupportedAddress Programmed=False/Invalid";
    cluster.await_conditions("good", refused);
    assert!(cluster.object("Deployment", "good").is_some());
    let roots = json!({ "trust-bundle.pem": "of before" });
    cluster.change("ConfigMap", "good-trust-bundle", |map| {
        map["data"] = roots.clone();
    })?;
    eventually("its roots to be those of now", DEADLINE, || {
        let map = cluster.object("ConfigMap", "good-trust-bundle");
        map.is_some_and(|map| map["data"] != roots)
    });
    assert_eq!(cluster.subjects(), ["shop/good"]);

    cluster.api.delete("Service", "shop", "taken")?;
    cluster.await_waypoint("taken");
    Ok(())
}

#[test]
fn a_namespaces_label_alone_is_enough_and_takes_away_only_what_it_made() -> Result<()> {
    let lab = Lab::builder("alone").nodes(&["a"]).build()?;
    let cluster = Cluster::running(&lab)?;
    let label = |labels: Value| cluster.api.apply(namespace("shop", &labels));
    cluster.api.apply(gateway("own"))?;
    label(json!({ "ambit.dev/use-waypoint": "w" }))?;
    cluster.await_waypoint("w");
    let labels = cluster.object("Gateway", "w").unwrap_or_default()["metadata"]["labels"].clone();
    assert_eq!(labels["app.kubernetes.io/managed-by"], "ambit");
    // Who removes it has it again.
    let uid = |name: &str| {
        let gateway = cluster.object("Gateway", name)?;
        gateway["metadata"]["uid"].as_str().map(str::to_owned)
    };
    let first = uid("w");
    cluster.api.delete("Gateway", "shop", "w")?;
    eventually("another Gateway", DEADLINE, || {
        uid("w").is_some_and(|uid| Some(uid) != first)
    });
    cluster.await_waypoint("w");

    label(json!({ "istio.io/use-waypoint": "other" }))?;
    cluster.await_waypoint("other");
    cluster.await_removal("w");
    assert_eq!(cluster.object("Gateway", "w"), None);
    for elsewhere in [
        json!({ "istio.io/use-waypoint": "x", "istio.io/use-waypoint-namespace": "street" }),
        json!({ "ambit.dev/use-waypoint": "none" }),
        json!({ "ambit.dev/use-waypoint": "own" }),
    ] {
        label(json!({ "ambit.dev/use-waypoint": "mark" }))?;
        cluster.await_waypoint("mark");
        label(elsewhere)?;
        cluster.await_removal("mark");
        assert!(cluster.object("Gateway", "own").is_some());
    }
    label(json!({}))?;
    label(json!({ "ambit.dev/use-waypoint": "last" }))?;
    cluster.await_waypoint("last");
    let names: Vec<String> = cluster
        .api
        .objects("Gateway")
        .iter()
        .map(|gateway| text(&gateway["metadata"]["name"]).to_owned())
        .collect();
    assert_eq!(names, ["last", "own"]);
    Ok(())
}

#[test]
fn waypoints_are_made_once_their_kinds_are_there_and_by_whichever_control_runs() -> Result<()> {
    let lab = Lab::builder("restart").nodes(&["a"]).build()?;
    let mut cluster = Cluster::new(&lab)?;
    for kind in ["Gateway", "GatewayClass"] {
        cluster.api.hide(kind);
    }
    cluster.start()?;
    let mut control = cluster.control.take().expect("it was started");
    control.await_stderr(DEADLINE, |line| line.contains("no waypoints yet"))?;
    for kind in ["Gateway", "GatewayClass"] {
        cluster.api.show(kind);
    }
    cluster.api.apply(gateway("w"))?;
    cluster.await_waypoint("w");
    cluster.await_conditions("w", WAITS);
    assert_eq!(control.stderr().matches("no waypoints yet").count(), 1);
    control.stop()?;

    // While nobody is there to see it.
    cluster.api.apply(gateway("second"))?;
    cluster.make_ready("w")?;
    cluster.api.apply(namespace(
        "shop",
        &json!({ "ambit.dev/use-waypoint": "third" }),
    ))?;
    let deployment = cluster.object("Deployment", "w");
    cluster.start()?;
    cluster.await_conditions("w", SERVES);
    cluster.await_waypoint("second");
    cluster.await_waypoint("third");
    let generation = |deployment: Option<Value>| {
        let deployment = deployment.unwrap_or_default();
        deployment["metadata"]["generation"].clone()
    };
    assert_eq!(
        generation(cluster.object("Deployment", "w")),
        generation(deployment)
    );
    eventually("their rights", DEADLINE, || {
        cluster.subjects() == ["shop/second", "shop/third", "shop/w"]
    });
    Ok(())
}
