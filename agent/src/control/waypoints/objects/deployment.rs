//! The pods of a waypoint.

use std::iter;

use serde_json::{Value, json};

use super::{Common, GATEWAY_NAME, PORT, annotations, labels};
use crate::control::waypoints::kinds::{Gateway, place};

/// Who a waypoint runs as: nobody of the node.
const USER: u32 = 65532;
/// How long open connections may go on after SIGTERM, in seconds.
const DRAIN: u32 = 30;
/// And what is left to cut off those that do, and to end.
const CUT_OFF: u32 = 15;

/// All but the head of a waypoint's Deployment.
pub(super) fn fields(gateway: &Gateway, common: &Common, replicas: i64) -> Value {
    let (_, name) = place(&gateway.metadata);
    let selector = json!({ "matchLabels": { GATEWAY_NAME: name } });
    let mut labels = labels(gateway);
    // It speaks HBONE itself; agents know it for a waypoint's by its class.
    labels.insert("ambit.dev/mesh".into(), "disabled".into());
    let mut metadata = json!({ "labels": labels });
    let annotations = annotations(gateway);
    if !annotations.is_empty() {
        metadata["annotations"] = json!(annotations);
    }
    json!({ "spec": {
        "replicas": replicas,
        "selector": selector,
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 },
        },
        "template": { "metadata": metadata, "spec": pod(gateway, common, &selector) },
    } })
}

fn pod(gateway: &Gateway, common: &Common, selector: &Value) -> Value {
    let (_, name) = place(&gateway.metadata);
    // Where it can be: a waypoint that isn't spread is better than none.
    let spread = |key: &str| {
        json!({
            "topologyKey": key,
            "maxSkew": 1,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": selector,
        })
    };
    let mut pod = json!({
        "serviceAccountName": name,
        // To follow what its source has.
        "automountServiceAccountToken": true,
        "enableServiceLinks": false,
        "nodeSelector": { "kubernetes.io/os": "linux" },
        "terminationGracePeriodSeconds": DRAIN + CUT_OFF,
        "topologySpreadConstraints": [
            spread("kubernetes.io/hostname"),
            spread("topology.kubernetes.io/zone"),
        ],
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": USER,
            "runAsGroup": USER,
            // By which it may read its token.
            "fsGroup": USER,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "containers": [container(gateway, common)],
        "volumes": [
            {
                "name": "token",
                "projected": { "defaultMode": 0o440, "sources": [{ "serviceAccountToken": {
                    "audience": "ambit-ca", "path": "ambit-token", "expirationSeconds": 3600,
                } }] },
            },
            {
                "name": "trust-bundle",
                "configMap": { "name": format!("{name}-trust-bundle") },
            },
        ],
    });
    let secrets = &common.image.pull_secrets;
    if !secrets.is_empty() {
        let secret = |name: &String| json!({ "name": name });
        pod["imagePullSecrets"] = secrets.iter().map(secret).collect();
    }
    pod
}

fn container(gateway: &Gateway, common: &Common) -> Value {
    let (namespace, name) = place(&gateway.metadata);
    let arguments = iter::once("waypoint").chain(common.arguments.iter().map(String::as_str));
    let arguments: Vec<&str> = arguments.collect();
    let mut container = json!({
        "name": "waypoint",
        "image": common.image.name,
        "args": arguments,
        "env": [
            {
                "name": "NODE_NAME",
                "valueFrom": { "fieldRef": { "apiVersion": "v1", "fieldPath": "spec.nodeName" } },
            },
            {
                "name": "AMBIT_POD_IP",
                "valueFrom": { "fieldRef": { "apiVersion": "v1", "fieldPath": "status.podIP" } },
            },
            { "name": "AMBIT_SOURCE", "value": "kubernetes" },
            { "name": "AMBIT_GATEWAY", "value": format!("{namespace}/{name}") },
            { "name": "AMBIT_CA_ADDRESS", "value": common.ca_address },
            { "name": "AMBIT_TRUST_DOMAIN", "value": common.trust_domain },
            { "name": "AMBIT_DRAIN", "value": format!("{DRAIN}s") },
        ],
        "ports": [
            { "name": "hbone", "containerPort": PORT, "protocol": "TCP" },
            { "name": "metrics", "containerPort": 15020, "protocol": "TCP" },
            { "name": "ready", "containerPort": 15021, "protocol": "TCP" },
        ],
        // A new one has a certificate and knows the cluster within seconds; a busy authority may take longer.
        "startupProbe": {
            "httpGet": { "path": "/healthz/ready", "port": "ready", "scheme": "HTTP" },
            "periodSeconds": 1,
            "failureThreshold": 120,
        },
        "readinessProbe": {
            "httpGet": { "path": "/healthz/ready", "port": "ready", "scheme": "HTTP" },
            "periodSeconds": 5,
            "timeoutSeconds": 2,
        },
        // Only whether it is there: what keeps it from being ready may be elsewhere.
        "livenessProbe": {
            "tcpSocket": { "port": "ready" },
            "periodSeconds": 10,
            "failureThreshold": 6,
            "timeoutSeconds": 5,
        },
        "resources": {
            // Idle it takes next to nothing of a processor, and as an agent does 9 MiB with 100 workloads.
            "requests": { "cpu": "50m", "memory": "32Mi" },
            // 100,000 workloads take 161 MiB, and the rest is for the buffers of open connections. A throttled
            // waypoint would stall them: no limit for the processor.
            "limits": { "memory": "512Mi" },
        },
        "securityContext": {
            "privileged": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        },
        "volumeMounts": [
            { "name": "token", "mountPath": "/var/run/secrets/tokens", "readOnly": true },
            { "name": "trust-bundle", "mountPath": "/var/run/ambit", "readOnly": true },
        ],
    });
    if let Some(policy) = &common.image.pull_policy {
        container["imagePullPolicy"] = json!(policy);
    }
    container
}
