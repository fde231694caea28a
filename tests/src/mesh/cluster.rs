//! A mesh whose source of truth is an API server.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc};

use serde_json::{Value, json};

use super::READY;
use crate::{ApiServer, Error, Lab, Node, Result, wait};

/// The user that an account of the mesh's own namespace is.
fn user(account: &str) -> String {
    format!("system:serviceaccount:ambit-system:{account}")
}

/// What the roles need of the cluster: as the kubelet and the manifests of an installation give it to them.
#[derive(Debug, Clone)]
pub(super) struct Cluster {
    api: Arc<ApiServer>,
    pub(super) control: PathBuf,
    pub(super) agent: PathBuf,
    tokens: BTreeMap<String, String>,
}

impl Cluster {
    /// Has the API server know a pod for each agent.
    pub(super) fn new(lab: &Lab, api: &Arc<ApiServer>) -> Result<Self> {
        api.apply(json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": "ambit-system"},
        }))?;
        let mut tokens = BTreeMap::new();
        for node in lab.nodes() {
            let (name, uid) = agent(node);
            api.apply(json!({
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"namespace": "ambit-system", "name": name, "uid": uid},
                "spec": {
                    "nodeName": node.name(),
                    "hostNetwork": true,
                    "serviceAccountName": "ambit-node",
                    "containers": [{"name": "agent", "image": "ambit"}],
                },
                "status": {"phase": "Running", "podIP": node.address(), "hostIP": node.address()},
            }))?;
            let user = user("ambit-node");
            let token = api.token(&user, (&name, &uid), node.name(), &["ambit-ca"]);
            tokens.insert(node.name().to_owned(), token);
        }
        Ok(Self {
            control: api.kubeconfig(&user("ambit-control"))?,
            agent: api.kubeconfig(&user("ambit-node"))?,
            api: Arc::clone(api),
            tokens,
        })
    }

    /// The token that is projected into a node's agent.
    pub(super) fn token(&self, node: &Node) -> Option<&String> {
        self.tokens.get(node.name())
    }

    /// Mounts the trust bundle where agents look for it.
    pub(super) fn mount_bundle(&self, path: &PathBuf) -> Result<()> {
        let bundle = || {
            let map = self
                .api
                .object("ConfigMap", "ambit-system", "ambit-trust-bundle");
            let bundle = map.as_ref().map(|map| &map["data"]["trust-bundle.pem"]);
            bundle.and_then(Value::as_str).map(str::to_owned)
        };
        let bundle = wait::poll("a trust bundle in the cluster", READY, || {
            bundle().ok_or_else(|| "there is none".to_owned())
        })?;
        let doing = || format!("write {}", path.display());
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(Error::io(doing()))?;
        }
        fs::write(path, bundle).map_err(Error::io(doing()))
    }
}

/// Name and uid of the pod of a node's agent.
fn agent(node: &Node) -> (String, String) {
    let name = format!("ambit-node-{}", node.name());
    let uid = format!("uid-of-{name}");
    (name, uid)
}
