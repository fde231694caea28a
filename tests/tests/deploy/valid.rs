//! Whether an API server would take the objects, and a cluster with our CRDs the policies.

use std::fs;

use ambit::discovery::{
    manifest::{self, Format},
    reduce::Reducer,
};
use lab::{
    Result,
    deploy::{refusals, told, validator},
};
use serde_json::{Map, Value, json};

use super::{built, called, everything, find, list, objects, repository, text};

/// The oldest Kubernetes that the README promises, and the newest whose schemas are there.
const VERSIONS: [&str; 2] = ["1.25", "1.37"];
/// What other projects define, and checks of itself.
const FOREIGN: &str = "monitoring.coreos.com/v1";
const POLICIES: &str = "security.istio.io/";
const TRAFFIC: &str = "ambit.dev/v1alpha1";
const GATEWAYS: &str = "gateway.networking.k8s.io/v1";

#[test]
fn an_api_server_takes_every_object() {
    let mut objects = everything();
    objects.retain(|object| {
        let version = text(&object["apiVersion"]);
        ![FOREIGN, TRAFFIC, GATEWAYS].contains(&version.as_str()) && !version.starts_with(POLICIES)
    });
    assert!(objects.len() > 20, "{}", objects.len());
    for version in VERSIONS {
        assert_eq!(refusals(&objects, version).unwrap(), Vec::<String>::new());
    }
}

#[test]
fn a_wrong_object_would_be_noticed() {
    let objects = built("deploy");
    let agent = find(&objects, "DaemonSet/ambit-node");
    for (pointer, wrong) in [
        (
            "/spec/template/spec/containers/0/livenessProbe",
            json!({"tcpSocket": {"port": []}}),
        ),
        ("/spec/template/spec/tolerations", json!([{"op": "Exists"}])),
        ("/kind", json!("DemonSet")),
    ] {
        let mut agent = agent.clone();
        *agent.pointer_mut(pointer).unwrap() = wrong;
        let refused = refusals(&[agent], VERSIONS[1]).unwrap();
        assert_eq!(refused.len(), 1, "{pointer}");
    }
}

/// A policy in each of the fields that the agent reads.
const FULL: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: full, namespace: shop}
spec:
  selector: {matchLabels: {app: catalog}}
  action: DENY
  rules:
    - from:
        - source: {principals: ['*/sa/web'], notNamespaces: [shop], ipBlocks: [10.0.0.0/8], requestPrincipals: ['*']}
        - source: {serviceAccounts: [shop/web], notRemoteIpBlocks: ['fd00::/8'], trustDomains: [cluster.local]}
      to:
        - operation: {ports: ['80'], notPorts: ['81'], methods: [GET], paths: [/a*], hosts: [a.example]}
      when: [{key: source.namespace, values: [shop], notValues: [street]}]
---
apiVersion: security.istio.io/v1beta1
kind: AuthorizationPolicy
metadata: {name: references, namespace: shop}
spec: {targetRefs: [{kind: Service, name: catalog}], rules: [{}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: full, namespace: shop}
spec:
  selector: {matchLabels: {app: catalog}}
  mtls: {mode: STRICT}
  portLevelMtls: {8080: {mode: PERMISSIVE}}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: full, namespace: shop}
spec:
  targetRefs: [{kind: Service, name: catalog}]
  jwtRules:
    - issuer: https://issuer.example
      audiences: [shop]
      jwksUri: https://issuer.example/keys
      fromHeaders: [{name: x-token, prefix: 'Token '}]
      fromParams: [token]
      fromCookies: [token]
      forwardOriginalToken: true
      outputPayloadToHeader: x-payload
      outputClaimToHeaders: [{header: x-group, claim: group}]
      timeout: 2s
";

#[test]
fn our_crds_take_what_the_agent_takes() -> Result<()> {
    let crds = built("deploy/crds");
    let full = FULL.replace("8080:", "'8080':");
    let demo =
        fs::read_to_string(repository().join("deploy/examples/demo/only-batch.yaml")).unwrap();
    let policies = everything()
        .into_iter()
        .chain(objects(&full))
        .chain(objects(&demo));
    let mut checked = 0;
    for policy in policies.filter(|policy| text(&policy["apiVersion"]).starts_with(POLICIES)) {
        let name = called(&policy);
        assert_eq!(misfit(&crds, &policy), None, "{name}");
        let parsed = match text(&policy["kind"]).as_str() {
            "AuthorizationPolicy" => ambit::policy::parse::authorization_policy(policy).err(),
            "PeerAuthentication" => ambit::policy::parse::peer_authentication(policy).err(),
            _ => ambit::policy::parse::request_authentication(policy).err(),
        };
        assert_eq!(parsed, None, "{name}");
        checked += 1;
    }
    assert_eq!(checked, 8);
    Ok(())
}

#[test]
fn our_crds_refuse_slips_of_the_pen() {
    let crds = built("deploy/crds");
    let good = objects(FULL).remove(0);
    for (pointer, wrong) in [
        ("/spec/action", json!("PERMIT")),
        ("/spec/rules/0/from/0/source", json!({"principal": ["a"]})),
        ("/spec/rules/0/to/0", json!({"operations": {}})),
        ("/spec/rules/0/to/0/operation/ports", json!([80])),
        ("/spec/selector", json!({"app": "catalog"})),
    ] {
        let mut policy = good.clone();
        *policy.pointer_mut(pointer).unwrap() = wrong;
        assert!(misfit(&crds, &policy).is_some(), "{pointer}");
    }
}

/// TrafficPolicies in each of the fields that the agent reads.
const TRAFFIC_POLICIES: &str = "
apiVersion: ambit.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: full, namespace: shop}
spec:
  targetRefs: [{group: '', kind: Service, name: catalog, sectionName: http}]
  loadBalancing: {type: RoundRobin, zone: Any, slowStart: {window: 1m30s}}
  circuitBreaker: {maxConnections: 1, maxPendingRequests: 1000000, maxRequests: 3}
  outlierEjection:
    consecutiveErrors: 0
    interval: 100ms
    baseEjection: 24h
    maxEjectedPercent: 100
    successRate: {minimumHosts: 2, requestVolume: 1, deviation: 0.1}
  retryBudget: {percent: 0, minPerSecond: 100000}
  rateLimit: {requests: 1, per: 24h, burst: 1000000, by: ClientIdentity}
  fault:
    delay: {duration: 1ms, percentage: 0, headers: [{name: x-test, value: ''}]}
    abort: {status: 200, grpcStatus: 16, percentage: 100, headers: []}
  connectionPool: {maxRequestsPerConnection: 1, idleTimeout: 1s, maxStreamsPerConnection: 1000}
---
apiVersion: ambit.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: cookie, namespace: shop}
spec:
  targetRefs: [{kind: Service, name: catalog}]
  loadBalancing: {type: ConsistentHash, consistentHash: {cookie: {name: side, ttl: 1h, path: /}}}
---
apiVersion: ambit.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: route, namespace: shop}
spec:
  targetRefs:
    - {group: gateway.networking.k8s.io, kind: HTTPRoute, name: catalog, sectionName: slow}
    - {kind: GRPCRoute, name: catalog}
  rateLimit: {requests: 1}
";

#[test]
fn our_crd_takes_the_traffic_policies_that_waypoints_take_and_no_slips_of_the_pen() {
    let crds = built("deploy/crds");
    let full = objects(TRAFFIC_POLICIES);
    let all = everything().into_iter().chain(full.clone());
    let mut checked = 0;
    for policy in all.filter(|policy| text(&policy["apiVersion"]) == TRAFFIC) {
        let name = called(&policy);
        assert_eq!(misfit(&crds, &policy), None, "{name}");
        let mut reducer = Reducer::new("cluster.local");
        let read = manifest::parse(&policy.to_string(), Format::Json, &mut reducer).unwrap();
        assert_eq!(read.errors, [], "{name}");
        assert_eq!(read.objects.len(), 1, "{name}");
        checked += 1;
    }
    assert_eq!(checked, 4);
    for (pointer, wrong) in [
        ("/spec/targetRefs", json!([])),
        ("/spec/targetRefs/0/kind", json!("Pod")),
        ("/spec/loadBalancing/type", json!("Random")),
        ("/spec/loadBalancing/slowStart/window", json!("90")),
        ("/spec/circuitBreaker", json!({"maxRequest": 1})),
        ("/spec/circuitBreaker/maxRequests", json!(0)),
        ("/spec/outlierEjection/maxEjectedPercent", json!(101)),
        ("/spec/outlierEjection/successRate/deviation", json!(0)),
        ("/spec/retryBudget/percent", json!("20%")),
        ("/spec/rateLimit/by", json!("Client")),
        ("/spec/fault", json!({})),
        ("/spec/fault/abort/grpcStatus", json!(17)),
        ("/spec/connectionPool/maxStreamsPerConnection", json!(1001)),
    ] {
        let mut policy = full[0].clone();
        *policy.pointer_mut(pointer).unwrap() = wrong;
        assert!(misfit(&crds, &policy).is_some(), "{pointer}");
    }
}

/// What an API server asks of a schema beyond what the schema of schemas says.
#[test]
fn the_schemas_of_our_crds_are_structural() {
    fn check(schema: &Value, path: &str) {
        let preserved = "x-kubernetes-preserve-unknown-fields";
        assert!(!schema["type"].is_null(), "{path} has no type");
        let fields = schema["properties"].as_object();
        let open = schema[preserved] == true || !schema["additionalProperties"].is_null();
        assert!(
            schema["type"] != "object" || fields.is_some() || open,
            "{path} prunes all"
        );
        assert!(
            schema["type"] != "array" || !schema["items"].is_null(),
            "{path} of what?"
        );
        for (name, field) in fields.into_iter().flatten() {
            check(field, &format!("{path}.{name}"));
        }
        for (word, inner) in [("items", "[]"), ("additionalProperties", ".*")] {
            if !schema[word].is_null() {
                check(&schema[word], &format!("{path}{inner}"));
            }
        }
    }
    for crd in built("deploy/crds") {
        let stored = list(&crd["spec"]["versions"]).filter(|version| version["storage"] == true);
        assert_eq!(stored.count(), 1);
        for version in list(&crd["spec"]["versions"]) {
            check(&version["schema"]["openAPIV3Schema"], &called(&crd));
        }
    }
}

/// What a CRD's schema has against a policy. As an API server that is asked to be strict, which
/// kubectl does, it allows no field that it doesn't know.
fn misfit(crds: &[Value], policy: &Value) -> Option<String> {
    let kind = text(&policy["kind"]);
    let crd = crds.iter().find(|crd| crd["spec"]["names"]["kind"] == kind);
    let version = text(&policy["apiVersion"]);
    let version = version.rsplit('/').next();
    let schema = list(&crd.unwrap()["spec"]["versions"])
        .find(|served| served["name"].as_str() == version)
        .map(|served| closed(&served["schema"]["openAPIV3Schema"]));
    let question = json!([schema.unwrap(), {"spec": policy["spec"]}]);
    let program = "import json, sys, jsonschema; schema, object = json.load(sys.stdin); \
                   jsonschema.Draft202012Validator(schema).validate(object)";
    // Beside the program, in the environment that pipx made for it.
    let python = fs::canonicalize(validator().unwrap())
        .unwrap()
        .with_file_name("python");
    let output = told(&python, &["-c", program], &[question]).unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    (!output.status.success()).then_some(words)
}

/// The same schema, in which every object has the fields that are named and no others.
fn closed(schema: &Value) -> Value {
    match schema {
        Value::Object(fields) => {
            let mut fields: Map<String, Value> = fields
                .iter()
                .map(|(name, value)| (name.clone(), closed(value)))
                .collect();
            if fields.get("type") == Some(&json!("object")) && fields.contains_key("properties") {
                fields.insert("additionalProperties".into(), json!(false));
            }
            Value::Object(fields)
        }
        Value::Array(items) => items.iter().map(closed).collect(),
        other => other.clone(),
    }
}
