//! What scheduler, kubelet and controllers do for the Deployment of a waypoint, as far as it needs them.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    time::Duration,
};

use lab::{ApiServer, Child, Lab, Pod, PodSpec, ambit_program, eventually};
use serde_json::{Value, json};

use crate::shop::DEADLINE;

/// Where a pod finds its own account's token.
const OWN_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Mounts what the pod has at /var/run, in a mount namespace of its own, and becomes its user without any
/// capability: `program, user, (source, path)..., --, arguments...`.
const CONTAINER: &str = r#"set -e
program=$1 user=$2; shift 2
mount -t tmpfs tmpfs /var/run
touch /var/run/program; mount --bind "$program" /var/run/program
while [ "$1" != -- ]; do mkdir -p "$2"; mount --bind "$1" "$2"; shift 2; done
shift
exec setpriv --reuid "$user" --regid "$user" --clear-groups --inh-caps=-all --bounding-set=-all \
    --no-new-privs /var/run/program "$@""#;

/// A pod of a Deployment. It runs the real program as the template says.
pub(super) struct Running {
    pub(super) pod: Pod,
    pub(super) process: Child,
    /// Of the Deployment, the Service and the service account.
    name: String,
    template: Value,
}

/// What its EndpointSlice says of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Ready,
    /// It is being deleted, and hasn't ended.
    Terminating,
}

impl Running {
    /// Schedules a pod of Deployment shop/`name`, the one of that number, to a node and starts its container.
    pub(super) fn start(
        lab: &Lab,
        api: &ApiServer,
        (name, number): (&str, usize),
        node: &str,
    ) -> lab::Result<Self> {
        let deployment = api.object("Deployment", "shop", name).unwrap();
        let template = deployment["spec"]["template"].clone();
        let account = text(&template["spec"]["serviceAccountName"]);
        assert!(api.object("ServiceAccount", "shop", account).is_some());
        let mut spec = PodSpec::in_namespace("shop").service_account(account);
        for (label, value) in template["metadata"]["labels"].as_object().unwrap() {
            spec = spec.label(label, text(value));
        }
        let pod = lab.node(node).pod(&format!("{name}-{number}"), spec)?;
        eventually("the pod to have an object", DEADLINE, || {
            api.object("Pod", "shop", pod.name()).is_some()
        });
        let process = container(lab, api, &pod, &template)?;
        Ok(Self {
            name: name.into(),
            pod,
            process,
            template,
        })
    }

    /// Probes it until it's ready, and tells the cluster that it's the one pod.
    pub(super) fn await_ready(&self, api: &ApiServer) -> lab::Result<()> {
        self.await_probe();
        let service = api.object("Service", "shop", &self.name).unwrap();
        let labels = &self.template["metadata"]["labels"];
        for (label, value) in service["spec"]["selector"].as_object().unwrap() {
            assert_eq!(labels[label], *value, "the Service selects its pods");
        }
        announce(api, &self.name, &[(self, State::Ready)])?;
        let mut deployment = api.object("Deployment", "shop", &self.name).unwrap();
        deployment["status"] = json!({ "replicas": 1, "readyReplicas": 1 });
        api.apply(deployment)
    }

    /// Probes it until it's ready.
    pub(super) fn await_probe(&self) {
        let probe = &self.template["spec"]["containers"][0]["readinessProbe"]["httpGet"];
        let port = self.container_port(text(&probe["port"]));
        let url = format!("http://{}{}", self.pod.at(port), text(&probe["path"]));
        eventually("the waypoint to be ready", DEADLINE, || {
            self.pod.node().fetch(&url).is_ok()
        });
    }

    /// As it goes when its Deployment has gone.
    pub(super) fn stop(self, api: &ApiServer) -> lab::Result<()> {
        let slice = format!("{}-1", self.name);
        api.delete("EndpointSlice", "shop", &slice)?;
        self.end(DEADLINE)?;
        Ok(())
    }

    /// As a pod goes that is deleted: what its log says.
    pub(super) fn end(mut self, deadline: Duration) -> lab::Result<String> {
        self.process.signal(libc::SIGTERM)?;
        let ended = self.process.wait(deadline)?;
        self.pod.delete()?;
        let said = ended.stderr.clone();
        ended.success()?;
        Ok(said)
    }

    /// Connections that it has opened, by its metrics.
    pub(super) fn opened(&self) -> f64 {
        let url = format!(
            "http://{}/metrics",
            self.pod.at(self.container_port("metrics"))
        );
        crate::shop::count_opened(&self.pod.node().fetch(&url).unwrap())
    }

    fn container_port(&self, name: &str) -> u16 {
        let ports = &self.template["spec"]["containers"][0]["ports"];
        let mut ports = ports.as_array().unwrap().iter();
        let port = ports.find(|port| port["name"] == name).unwrap();
        port["containerPort"].as_u64().unwrap().try_into().unwrap()
    }
}

/// Writes the EndpointSlice of Service shop/`name`.
pub(super) fn announce(api: &ApiServer, name: &str, pods: &[(&Running, State)]) -> lab::Result<()> {
    let service = api.object("Service", "shop", name).unwrap();
    let ports = service["spec"]["ports"].as_array().unwrap().iter();
    let ports = ports.map(|port| {
        let target = pods[0].0.container_port(text(&port["targetPort"]));
        json!({ "name": port["name"], "port": target, "protocol": "TCP" })
    });
    let endpoints = pods.iter().map(|(Running { pod, .. }, state)| {
        let is_ready = *state == State::Ready;
        json!({
            "addresses": [pod.address()],
            "conditions": { "ready": is_ready, "serving": true, "terminating": !is_ready },
            "nodeName": pod.node().name(),
            "targetRef": {
                "kind": "Pod", "namespace": "shop",
                "name": pod.name(), "uid": pod.uid(),
            },
        })
    });
    api.apply(json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": "shop",
            "name": format!("{name}-1"),
            "labels": { "kubernetes.io/service-name": name },
        },
        "addressType": "IPv4",
        "endpoints": endpoints.collect::<Vec<_>>(),
        "ports": ports.collect::<Vec<_>>(),
    }))
}

fn container(lab: &Lab, api: &ApiServer, pod: &Pod, template: &Value) -> lab::Result<Child> {
    let spec = &template["spec"];
    let container = &spec["containers"][0];
    let user = spec["securityContext"]["runAsUser"].to_string();
    let directory = lab.directory().join(format!("kubelet-{}", pod.name()));
    let mut command = pod
        .command("unshare")
        .args(["--mount", "sh", "-c", CONTAINER, "sh"])
        .arg(ambit_program()?)
        .arg(user);
    for (path, files) in mounted(api, pod, spec) {
        let source = directory.join(path.trim_start_matches('/'));
        for (name, content) in files {
            write(
                &source,
                &name,
                &content,
                &spec["securityContext"]["fsGroup"],
            );
        }
        command = command.arg(source).arg(path);
    }
    command = command.arg("--");
    for argument in container["args"].as_array().unwrap() {
        command = command.arg(text(argument));
    }
    for variable in container["env"].as_array().unwrap() {
        let value = match &variable["valueFrom"]["fieldRef"]["fieldPath"] {
            Value::Null => text(&variable["value"]),
            field if field == "spec.nodeName" => pod.node().name(),
            field => panic!("no kubelet of ours knows {field}"),
        };
        command = command.env(text(&variable["name"]), value);
    }
    // Every container has those of the API server.
    let server = api.address();
    command
        .env("KUBERNETES_SERVICE_HOST", server.ip().to_string())
        .env("KUBERNETES_SERVICE_PORT", server.port().to_string())
        .spawn()
}

type Files = Vec<(String, String)>;

/// What is mounted where: the volumes, and the token of its account.
fn mounted(api: &ApiServer, pod: &Pod, spec: &Value) -> Vec<(String, Files)> {
    let account = text(&spec["serviceAccountName"]);
    let user = format!("system:serviceaccount:shop:{account}");
    let token = |audience: &str| {
        let bound = (pod.name(), pod.uid());
        api.token(&user, bound, pod.node().name(), &[audience])
    };
    let mut mounted = Vec::new();
    let mounts = spec["containers"][0]["volumeMounts"].as_array().unwrap();
    for mount in mounts {
        let mut volumes = spec["volumes"].as_array().unwrap().iter();
        let volume = volumes.find(|it| it["name"] == mount["name"]).unwrap();
        let files = match &volume["configMap"]["name"] {
            Value::String(name) => {
                let map = api.object("ConfigMap", "shop", name).unwrap();
                let data = map["data"].as_object().unwrap().iter();
                data.map(|(name, content)| (name.clone(), text(content).to_owned()))
                    .collect()
            }
            _ => {
                let projected = &volume["projected"]["sources"][0]["serviceAccountToken"];
                let token = token(text(&projected["audience"]));
                vec![(text(&projected["path"]).to_owned(), token)]
            }
        };
        mounted.push((text(&mount["mountPath"]).to_owned(), files));
    }
    if spec["automountServiceAccountToken"] == true {
        let authority = fs::read_to_string(api.certificate_authority()).unwrap();
        let files = [
            ("token", token("https://kubernetes.default.svc")),
            ("ca.crt", authority),
            ("namespace", "shop".to_owned()),
        ];
        let files = files.map(|(name, content)| (name.to_owned(), content));
        mounted.push((OWN_ACCOUNT.to_owned(), files.into()));
    }
    mounted
}

/// Only the group of the pod's volumes may read it.
fn write(directory: &Path, name: &str, content: &str, group: &Value) {
    fs::create_dir_all(directory).unwrap();
    let path: PathBuf = directory.join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).unwrap();
    let group = group.as_u64().unwrap().try_into().unwrap();
    chown(&path, None, Some(group)).unwrap();
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
