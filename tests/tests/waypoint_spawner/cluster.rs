//! A cluster in which only control runs.

use std::{path::PathBuf, time::Duration};

use lab::{ApiServer, Child, Lab, Result, ambit_program, deploy::installed, eventually};
use serde_json::{Value, json};

pub(super) const DEADLINE: Duration = Duration::from_secs(60);
pub(super) const CONTROL: &str = "system:serviceaccount:ambit-system:ambit-control";
pub(super) const IMAGE: &str = "registry.example/ambit:7";
/// What a waypoint is made of, and how it is called: with the Gateway's name, or with more.
pub(super) const MADE: [(&str, &str); 5] = [
    ("ConfigMap", "-trust-bundle"),
    ("Deployment", ""),
    ("PodDisruptionBudget", ""),
    ("Service", ""),
    ("ServiceAccount", ""),
];

/// A cluster in which control runs, but neither kubelet nor controllers.
pub(super) struct Cluster<'a> {
    lab: &'a Lab,
    pub(super) api: ApiServer,
    kubeconfig: PathBuf,
    pub(super) control: Option<Child>,
}

impl<'a> Cluster<'a> {
    pub(super) fn new(lab: &'a Lab) -> Result<Self> {
        let api = installed(lab)?;
        for name in ["ambit-system", "shop"] {
            api.apply(namespace(name, &json!({})))?;
        }
        api.apply(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "namespace": "ambit-system", "name": "ambit-control-0" },
            "spec": { "containers": [{ "name": "ambit", "args": ["control"], "image": IMAGE }] },
        }))?;
        Ok(Self {
            lab,
            kubeconfig: api.kubeconfig(CONTROL)?,
            api,
            control: None,
        })
    }

    pub(super) fn start(&mut self) -> Result<()> {
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

    pub(super) fn running(lab: &'a Lab) -> Result<Self> {
        let mut cluster = Self::new(lab)?;
        cluster.start()?;
        Ok(cluster)
    }

    pub(super) fn object(&self, kind: &str, name: &str) -> Option<Value> {
        self.api.object(kind, "shop", name)
    }

    /// Changes an object of the shop as its owner would.
    pub(super) fn change(
        &self,
        kind: &str,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) -> Result<()> {
        let mut object = self.object(kind, name).unwrap_or_default();
        change(&mut object);
        self.api.apply(object)
    }

    /// `Type=Status/Reason` of a Gateway's conditions.
    pub(super) fn conditions(&self, name: &str) -> String {
        let gateway = self.object("Gateway", name).unwrap_or_default();
        told(&gateway["status"]["conditions"])
    }

    #[track_caller]
    pub(super) fn await_conditions(&self, name: &str, expected: &str) {
        eventually(
            &format!("conditions of {name} to be {expected}"),
            DEADLINE,
            || self.conditions(name) == expected,
        );
    }

    /// Waits until all objects of a waypoint are there.
    #[track_caller]
    pub(super) fn await_waypoint(&self, name: &str) {
        for (kind, end) in MADE {
            eventually(&format!("{kind} of {name}"), DEADLINE, || {
                self.object(kind, &format!("{name}{end}")).is_some()
            });
        }
    }

    #[track_caller]
    pub(super) fn await_removal(&self, name: &str) {
        for (kind, end) in MADE {
            eventually(&format!("{kind} of {name} to be gone"), DEADLINE, || {
                self.object(kind, &format!("{name}{end}")).is_none()
            });
        }
    }

    /// As the cluster's controllers do it.
    pub(super) fn make_ready(&self, name: &str) -> Result<()> {
        self.change("Deployment", name, |deployment| {
            deployment["status"] = json!({ "replicas": 2, "readyReplicas": 1 });
        })
    }

    /// Who has the rights of waypoints.
    pub(super) fn subjects(&self) -> Vec<String> {
        let binding = self.api.object("ClusterRoleBinding", "", "ambit-waypoints");
        let binding = binding.unwrap_or_default();
        let subjects = binding["subjects"].as_array().into_iter().flatten();
        let name = |it: &Value| format!("{}/{}", text(&it["namespace"]), text(&it["name"]));
        subjects.map(name).collect()
    }
}

pub(super) fn namespace(name: &str, labels: &Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels } })
}

pub(super) fn gateway(name: &str) -> Value {
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

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub(super) fn told(conditions: &Value) -> String {
    let all = conditions.as_array().into_iter().flatten();
    let told = |it: &Value| {
        let [kind, status, reason] = ["type", "status", "reason"].map(|field| text(&it[field]));
        format!("{kind}={status}/{reason}")
    };
    all.map(told).collect::<Vec<_>>().join(" ")
}
