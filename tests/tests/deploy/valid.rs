//! Whether an API server would take the objects, and a cluster with our CRDs the policies.

use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use lab::Result;
use serde_json::{Map, Value, json};

use super::{built, called, everything, find, list, objects, repository, text};

/// The oldest Kubernetes that the README promises, and the newest whose schemas are there.
const VERSIONS: [&str; 2] = ["1.25", "1.37"];
/// What other projects define, and checks of itself.
const FOREIGN: &str = "monitoring.coreos.com/v1";
const POLICIES: &str = "security.istio.io/";

#[test]
fn an_api_server_takes_every_object() {
    let mut objects = everything();
    objects.retain(|object| {
        let version = text(&object["apiVersion"]);
        version != FOREIGN && !version.starts_with(POLICIES)
    });
    assert!(objects.len() > 20, "{}", objects.len());
    for version in VERSIONS {
        assert_eq!(refusals(&objects, version), Vec::<String>::new());
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
        let refused = refusals(&[agent], VERSIONS[1]);
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
            _ => ambit::policy::parse::peer_authentication(policy).err(),
        };
        assert_eq!(parsed, None, "{name}");
        checked += 1;
    }
    assert_eq!(checked, 6);
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

/// Where `cargo xtask setup` has put kubernetes-validate: above the directory of test programs.
fn validator() -> PathBuf {
    let own = env::current_exe().unwrap();
    let python = own.ancestors().nth(3).unwrap().join("python");
    let there = fs::read_dir(&python).into_iter().flatten();
    let program = there
        .map(|entry| entry.unwrap().path().join("bin/kubernetes-validate"))
        .find(|program| program.exists());
    program.unwrap_or_else(|| {
        panic!(
            "no kubernetes-validate in {}: run `cargo xtask setup`",
            python.display()
        )
    })
}

/// What a Kubernetes of this version says of objects: nothing if it would take them all.
fn refusals(objects: &[Value], version: &str) -> Vec<String> {
    let arguments = ["--strict", "--kubernetes-version", version, "-"];
    let output = told(&validator(), &arguments, objects);
    let words = String::from_utf8(output.stdout).unwrap();
    // A kind without a schema is only warned of.
    let (passed, refused): (Vec<&str>, _) = words
        .lines()
        .partition(|line| line.starts_with("INFO - passed"));
    assert_eq!(passed.len() + refused.len(), objects.len(), "{words}");
    refused.into_iter().map(str::to_owned).collect()
}

/// What a CRD's schema has against a policy. As an API server that is asked to be strict, which
/// kubectl does, it allows no field that it doesn't know.
fn misfit(crds: &[Value], policy: &Value) -> Option<String> {
    let kind = text(&policy["kind"]);
    let crd = crds.iter().find(|crd| crd["spec"]["names"]["kind"] == kind);
    let version = text(&policy["apiVersion"]);
    let version = version.strip_prefix(POLICIES);
    let schema = list(&crd.unwrap()["spec"]["versions"])
        .find(|served| served["name"].as_str() == version)
        .map(|served| closed(&served["schema"]["openAPIV3Schema"]));
    let question = json!([schema.unwrap(), {"spec": policy["spec"]}]);
    let program = "import json, sys, jsonschema; schema, object = json.load(sys.stdin); \
                   jsonschema.Draft202012Validator(schema).validate(object)";
    // Beside the program, in the environment that pipx made for it.
    let python = fs::canonicalize(validator())
        .unwrap()
        .with_file_name("python");
    let output = told(&python, &["-c", program], &[question]);
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

/// Runs a program with objects as its input, as a stream of YAML.
fn told(program: &Path, arguments: &[&str], objects: &[Value]) -> Output {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let documents: Vec<String> = objects.iter().map(Value::to_string).collect();
    let mut input = child.stdin.take().unwrap();
    input
        .write_all(documents.join("\n---\n").as_bytes())
        .unwrap();
    drop(input);
    child.wait_with_output().unwrap()
}
