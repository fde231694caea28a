//! What scheduler, kubelet and controllers do for the Deployment of a waypoint, as far as it needs them.

mod container;
mod fields;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};

use self::fields::field;
use crate::{ApiServer, Child, Error, Lab, Pod, PodSpec, Result, ambit_program, wait};

/// How long control, or a pod, may take for what is awaited of it.
const DEADLINE: Duration = Duration::from_secs(60);

/// Runs the pods of waypoints that control has made in a namespace of a cluster.
#[derive(Debug, Clone)]
pub struct Kubelet<'a> {
    lab: &'a Lab,
    api: Arc<ApiServer>,
    namespace: String,
    program: Option<PathBuf>,
}

/// A pod of a waypoint's Deployment. It runs the real program as the template says.
#[derive(Debug)]
pub struct WaypointPod {
    /// Its namespace and addresses.
    pub pod: Pod,
    /// Its one container.
    pub process: Child,
    /// Of the Deployment, the Service and the service account.
    name: String,
    template: Value,
}

/// What its EndpointSlice says of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointState {
    /// It is to be used.
    Ready,
    /// It is being deleted, and hasn't ended.
    Terminating,
}

impl<'a> Kubelet<'a> {
    /// One for all nodes of the lab.
    #[must_use]
    pub fn new(lab: &'a Lab, api: &Arc<ApiServer>, namespace: &str) -> Self {
        Self {
            lab,
            api: Arc::clone(api),
            namespace: namespace.into(),
            program: None,
        }
    }

    /// The `ambit` program that every image has. Default [`ambit_program`].
    #[must_use]
    pub fn program(mut self, program: &Path) -> Self {
        self.program = Some(program.to_owned());
        self
    }

    /// Waits for control to have made the waypoint of a Gateway, and given it its rights.
    ///
    /// # Errors
    /// If it hasn't in time.
    pub fn await_made(&self, gateway: &str) -> Result<()> {
        wait::poll("a Deployment", DEADLINE, || {
            let made = self.object("Deployment", gateway);
            made.map(drop).map_err(|error| error.to_string())
        })?;
        wait::poll("the account to have rights", DEADLINE, || {
            let binding = self.api.object("ClusterRoleBinding", "", "ambit-waypoints");
            let binding = binding.ok_or("there is no binding")?;
            let subjects = binding["subjects"].as_array();
            let is_own = |subject: &Value| {
                subject["namespace"] == *self.namespace && subject["name"] == gateway
            };
            match subjects.is_some_and(|subjects| subjects.iter().any(is_own)) {
                true => Ok(()),
                false => Err(format!("{binding}")),
            }
        })
    }

    /// Schedules a pod of Deployment `name`, the one of that number, to a node and starts its container.
    ///
    /// # Errors
    /// If there is no such Deployment, or its template asks for what this doesn't know.
    pub fn start(&self, (name, number): (&str, usize), node: &str) -> Result<WaypointPod> {
        let deployment = self.object("Deployment", name)?;
        let template = field(&deployment, "/spec/template", Some)?.clone();
        let account = field(&template, "/spec/serviceAccountName", Value::as_str)?;
        self.object("ServiceAccount", account)?;
        let mut spec = PodSpec::in_namespace(&self.namespace).service_account(account);
        for (label, value) in field(&template, "/metadata/labels", Value::as_object)? {
            spec = spec.label(label, field(value, "", Value::as_str)?);
        }
        let pod = self.lab.node(node).pod(&format!("{name}-{number}"), spec)?;
        wait::poll("the pod to have an object", DEADLINE, || {
            let object = self.object("Pod", pod.name());
            object.map(drop).map_err(|error| error.to_string())
        })?;
        let process = self.container(&pod, &template["spec"])?;
        Ok(WaypointPod {
            pod,
            process,
            name: name.into(),
            template,
        })
    }

    /// Probes a pod until it's ready, and tells the cluster that it's the one pod of its Deployment.
    ///
    /// # Errors
    /// If it isn't ready in time, or its Service doesn't select it.
    pub fn await_ready(&self, waypoint: &WaypointPod) -> Result<()> {
        waypoint.await_probe()?;
        let service = self.object("Service", &waypoint.name)?;
        let labels = &waypoint.template["metadata"]["labels"];
        for (label, value) in field(&service, "/spec/selector", Value::as_object)? {
            if labels[label] != *value {
                let must = "that the Service of a waypoint selects its pods";
                return Err(Error::violated(must, labels));
            }
        }
        self.announce(&waypoint.name, &[(waypoint, EndpointState::Ready)])?;
        let mut deployment = self.object("Deployment", &waypoint.name)?;
        deployment["status"] = json!({ "replicas": 1, "readyReplicas": 1 });
        self.api.apply(deployment)
    }

    /// Writes the EndpointSlice of a waypoint's Service.
    ///
    /// # Errors
    /// If there is no such Service, or a pod has no port of the name that it asks for.
    pub fn announce(&self, name: &str, pods: &[(&WaypointPod, EndpointState)]) -> Result<()> {
        let service = self.object("Service", name)?;
        let mut ports = Vec::new();
        for port in field(&service, "/spec/ports", Value::as_array)? {
            let target = field(port, "/targetPort", Value::as_str)?;
            // A rollout changes no port.
            if let Some((waypoint, _)) = pods.first() {
                let target = waypoint.container_port(target)?;
                ports.push(json!({ "name": port["name"], "port": target, "protocol": "TCP" }));
            }
        }
        let endpoints = pods.iter().map(|(WaypointPod { pod, .. }, state)| {
            let is_ready = *state == EndpointState::Ready;
            json!({
                "addresses": [pod.address()],
                "conditions": { "ready": is_ready, "serving": true, "terminating": !is_ready },
                "nodeName": pod.node().name(),
                "targetRef": {
                    "kind": "Pod", "namespace": self.namespace,
                    "name": pod.name(), "uid": pod.uid(),
                },
            })
        });
        self.api.apply(json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "namespace": self.namespace,
                "name": slice(name),
                "labels": { "kubernetes.io/service-name": name },
            },
            "addressType": "IPv4",
            "endpoints": endpoints.collect::<Vec<_>>(),
            "ports": ports,
        }))
    }

    /// Stops a pod as it goes when its Deployment has gone.
    ///
    /// # Errors
    /// If it was never announced, or doesn't end in order.
    pub fn stop(&self, waypoint: WaypointPod) -> Result<()> {
        let slice = slice(&waypoint.name);
        self.api.delete("EndpointSlice", &self.namespace, &slice)?;
        waypoint.end(DEADLINE).map(drop)
    }

    fn object(&self, kind: &str, name: &str) -> Result<Value> {
        let object = self.api.object(kind, &self.namespace, name);
        object.ok_or_else(|| {
            let what = format!("{kind} {}/{name} of the API server", self.namespace);
            Error::malformed(what, "there is none")
        })
    }

    fn ambit(&self) -> Result<PathBuf> {
        self.program.clone().map_or_else(ambit_program, Ok)
    }
}

impl WaypointPod {
    /// Probes it until it's ready.
    ///
    /// # Errors
    /// If it isn't in time.
    pub fn await_probe(&self) -> Result<()> {
        let probe = "/spec/containers/0/readinessProbe/httpGet";
        let probe = field(&self.template, probe, Some)?;
        let port = self.container_port(field(probe, "/port", Value::as_str)?)?;
        let path = field(probe, "/path", Value::as_str)?;
        let url = format!("http://{}{path}", self.pod.at(port));
        wait::poll("the waypoint to be ready", DEADLINE, || {
            let answer = self.pod.node().fetch(&url);
            answer.map(drop).map_err(|error| error.to_string())
        })
    }

    /// Its page of metrics.
    ///
    /// # Errors
    /// If it can't be asked.
    pub fn metrics(&self) -> Result<String> {
        let port = self.container_port("metrics")?;
        let url = format!("http://{}/metrics", self.pod.at(port));
        self.pod.node().fetch(&url)
    }

    /// Stops it as a pod that is deleted: what its log says.
    ///
    /// # Errors
    /// If it doesn't end in order within `deadline`.
    pub fn end(mut self, deadline: Duration) -> Result<String> {
        self.process.signal(libc::SIGTERM)?;
        let ended = self.process.wait(deadline)?;
        self.pod.delete()?;
        let said = ended.stderr.clone();
        ended.success()?;
        Ok(said)
    }

    fn container_port(&self, name: &str) -> Result<u16> {
        let ports = field(&self.template, "/spec/containers/0/ports", Value::as_array)?;
        let port = ports.iter().find(|port| port["name"] == name);
        let number = port.and_then(|port| port["containerPort"].as_u64()?.try_into().ok());
        number.ok_or_else(|| Error::malformed("a waypoint's Deployment", format!("no port {name}")))
    }
}

/// The name of the one EndpointSlice of a Service.
fn slice(service: &str) -> String {
    format!("{service}-1")
}
