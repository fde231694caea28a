use serde_json::json;

use super::*;

fn role(kind: &str, namespace: &str, name: &str, rules: &Value) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": { "name": name, "namespace": namespace, "labels": { "part": name } },
        "rules": rules,
    })
}

fn binding(kind: &str, namespace: &str, role: (&str, &str), subjects: &Value) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": { "name": "binding", "namespace": namespace },
        "roleRef": { "apiGroup": GROUP, "kind": role.0, "name": role.1 },
        "subjects": subjects,
    })
}

fn account() -> Value {
    json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": { "name": "node", "namespace": "mesh" },
    })
}

fn node() -> Value {
    json!([{ "kind": "ServiceAccount", "name": "node", "namespace": "mesh" }])
}

#[test]
fn rules_give_exactly_what_they_say() {
    let rules = json!([
        { "apiGroups": [""], "resources": ["pods", "*/status"], "verbs": ["list", "patch"] },
        { "apiGroups": ["apps"], "resources": ["*"], "verbs": ["*"] },
    ]);
    let named = json!([{
        "apiGroups": [""], "resources": ["secrets"], "verbs": ["*"], "resourceNames": ["ca"],
    }]);
    let rbac = Rbac::new(&[
        account(),
        role("ClusterRole", "", "reader", &rules),
        binding("ClusterRoleBinding", "", ("ClusterRole", "reader"), &node()),
        role("Role", "mesh", "keeper", &named),
        binding("RoleBinding", "mesh", ("Role", "keeper"), &node()),
    ])
    .unwrap();
    let table = [
        ("list", "", "pods", "", "", true),
        ("patch", "", "pods", "shop", "web", true),
        ("list", "", "services", "", "", false),
        ("watch", "", "pods", "", "", false),
        ("list", "apps", "pods", "", "", true),
        ("delete", "apps", "deployments", "x", "y", true),
        ("patch", "", "nodes/status", "", "a", true),
        ("patch", "", "pods/eviction", "shop", "web", false),
        ("get", "", "secrets", "mesh", "ca", true),
        ("get", "", "secrets", "mesh", "other", false),
        ("get", "", "secrets", "shop", "ca", false),
        ("create", "", "secrets", "mesh", "", false),
        ("list", "", "secrets", "", "", false),
    ];
    let user = User::named("system:serviceaccount:mesh:node");
    let other = User::named("system:serviceaccount:shop:node");
    for (verb, group, resource, namespace, name, expected) in table {
        let attempt = Attempt {
            verb,
            group,
            resource,
            namespace,
            name,
        };
        assert_eq!(rbac.allows(&user, attempt), expected, "{attempt:?}");
        assert!(!rbac.allows(&other, attempt), "{attempt:?}");
        assert!(rbac.allows(&User::named("system:admin"), attempt));
    }
}

#[test]
fn a_role_gathers_others_by_label_and_a_group_is_bound_as_a_user_is() {
    let rules = json!([{ "apiGroups": [""], "resources": ["pods"], "verbs": ["get"] }]);
    let mut sum = role("ClusterRole", "", "sum", &json!([]));
    sum["aggregationRule"] =
        json!({ "clusterRoleSelectors": [{ "matchLabels": { "part": "x" } }] });
    let group = json!([{ "kind": "Group", "name": "system:serviceaccounts:mesh" }]);
    let rbac = Rbac::new(&[
        sum,
        role("ClusterRole", "", "x", &rules),
        binding("RoleBinding", "shop", ("ClusterRole", "sum"), &group),
    ])
    .unwrap();
    let attempt = |namespace| Attempt {
        verb: "get",
        group: "",
        resource: "pods",
        namespace,
        name: "web",
    };
    let user = User::named("system:serviceaccount:mesh:any");
    assert!(rbac.allows(&user, attempt("shop")));
    assert!(!rbac.allows(&user, attempt("mesh")));
}

#[test]
fn what_names_nothing_is_an_error() {
    let role = || role("Role", "mesh", "keeper", &json!([]));
    let elsewhere = binding("RoleBinding", "shop", ("Role", "keeper"), &node());
    let nobody = binding("RoleBinding", "mesh", ("Role", "keeper"), &node());
    let table = [
        (
            vec![account(), role(), elsewhere],
            "there is no Role keeper",
        ),
        (vec![role(), nobody], "there is no ServiceAccount node"),
        (
            vec![json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
                "metadata": { "name": "x" }, "rules": [{ "apigroups": [""] }],
            })],
            "unknown field `apigroups`",
        ),
    ];
    for (objects, expected) in table {
        let error = Rbac::new(&objects).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
