//! Which rule of which route a request meets, against the plainest reading of the specification.

mod oracle;

use std::borrow::Cow;

use http::{HeaderName, HeaderValue, Request, request::Parts};
use serde_json::{Map, Value, json};

use self::oracle::{Asked, Expected, expected};
use super::Choices;
use crate::{
    discovery::{
        facts::Object,
        manifest,
        model::{Attached, Found, Route, RouteTable},
        reduce::Reducer,
    },
    policy::RequestTarget,
};

const PORT: u16 = 80;
/// The Service's namespace, and another.
const NAMESPACES: [&str; 2] = ["shop", "front"];
const PATHS: [&str; 12] = [
    "/", "/a", "/a/", "/a/b", "/a/b/c", "/ab", "/A", "/%61", "/a%20b", "/a;x", "/p.S/Get", "/p.S",
];
const PATTERNS: [&str; 6] = ["/a.*", "/[ab]+", ".*", "/a|/a/b", "(?i)/A", "/p\\.S/.*"];
const NAMES: [&str; 5] = ["x", "X", "host", "y", "content-type"];
const VALUES: [&str; 6] = [
    "1",
    "2",
    "1,2",
    "application/grpc",
    "application/grpc+proto",
    "shop",
];
const QUERIES: [&str; 4] = ["q", "q r", "Q", "s"];
const METHODS: [&str; 4] = ["GET", "POST", "HEAD", "OPTIONS"];

/// Up to three routes, and a request.
pub(super) fn run(data: &[u8]) {
    let mut choices = Choices::new(data);
    let written: Vec<Value> = (0..=choices.below(3))
        .map(|at| route(at, &mut choices))
        .collect();
    // A route that is refused isn't there.
    let read = written
        .into_iter()
        .filter_map(|it| Some((checked(&it)?, it)));
    let (routes, written): (Vec<Route>, Vec<Value>) = read.unzip();
    let client = choices.one_of(&["shop", "front", "back"]);
    let Some(request) = request(&mut choices) else {
        return;
    };
    let Ok(target) = RequestTarget::of(&request) else {
        return;
    };
    let attached = routes.iter().map(|route| Attached { port: PORT, route });
    let table = RouteTable::compile("shop", attached);
    let found = match table.find(PORT, client, &request, &target.path) {
        Found::NoRoutes => Expected::NoRoutes,
        Found::NoMatch => Expected::NoMatch,
        Found::Rule { rule, prefix } => {
            let rest = target.path.strip_prefix(prefix).expect("it begins so");
            assert!(rest.is_empty() || rest.starts_with('/') || prefix.is_empty());
            Expected::Rule(rule.kind.to_string(), rule.route.to_string(), rule.index)
        }
    };
    let asked = Asked::of(&request, &target.path);
    let expected = expected(&written, client, &asked);
    assert_eq!(found, expected, "{asked:?} of {client} by {written:#?}");
}

/// As the API server would hand it out.
fn route(index: usize, choices: &mut Choices<'_>) -> Value {
    let kind = choices.one_of(&["HTTPRoute", "HTTPRoute", "HTTPRoute", "GRPCRoute"]);
    let mut metadata = json!({
        "namespace": choices.one_of(&["shop", NAMESPACES[0], NAMESPACES[1]]),
        // So that the order of names isn't that of the list.
        "name": format!("{}{index}", choices.one_of(&["b", "a"])),
    });
    if let Some(created) = choices.one_of(&[
        None,
        Some("2024-01-01T00:00:00Z"),
        Some("2025-01-01T00:00:00Z"),
    ]) {
        metadata["creationTimestamp"] = created.into();
    }
    let rules: Vec<Value> = (0..=choices.below(3))
        .map(|_| {
            let matches = (0..choices.below(4)).map(|_| condition(kind, choices));
            json!({ "matches": Value::from_iter(matches) })
        })
        .collect();
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "metadata": metadata,
        "spec": {
            "parentRefs": [{ "group": "", "kind": "Service", "namespace": "shop", "name": "cart" }],
            "rules": rules,
        },
    })
}

fn condition(kind: &str, choices: &mut Choices<'_>) -> Value {
    let mut condition = Map::new();
    let mut set = |key: &str, value: Value| drop(condition.insert(key.to_owned(), value));
    if kind == "GRPCRoute" {
        if choices.flag() {
            let mut call = json!({ "type": choices.one_of(&["Exact", "RegularExpression"]) });
            if choices.flag() {
                call["service"] = text(choices, &["p.S", ".p.S", "p.*", "S"]);
            }
            if choices.flag() {
                call["method"] = text(choices, &["Get", "G.*"]);
            }
            set("method", call);
        }
    } else {
        match choices.below(4) {
            0 => {}
            1 => set(
                "path",
                json!({ "type": "Exact", "value": text(choices, &PATHS) }),
            ),
            2 => set(
                "path",
                json!({ "type": "PathPrefix", "value": text(choices, &PATHS) }),
            ),
            _ => set(
                "path",
                json!({ "type": "RegularExpression", "value": text(choices, &PATTERNS) }),
            ),
        }
        if choices.flag() {
            set("method", choices.one_of(&METHODS).into());
        }
        if choices.flag() {
            set("queryParams", named(choices, &QUERIES));
        }
    }
    if choices.flag() {
        set("headers", named(choices, &NAMES));
    }
    Value::Object(condition)
}

fn named(choices: &mut Choices<'_>, names: &[&'static str]) -> Value {
    let one = |_| {
        let name = text(choices, names);
        let kind = choices.one_of(&["Exact", "Exact", "RegularExpression"]);
        json!({ "name": name, "type": kind, "value": text(choices, &VALUES) })
    };
    (0..2).map(one).collect()
}

fn text(choices: &mut Choices<'_>, known: &[&'static str]) -> Value {
    choices.text_or(known).into_owned().into()
}

fn checked(route: &Value) -> Option<Route> {
    let fields = route.as_object()?.clone();
    let read = manifest::read(fields, &mut Reducer::new("cluster.local"));
    match read.objects.into_iter().next()?.object {
        Object::Route(route) => Some(*route),
        other => panic!("{other:?}"),
    }
}

fn request(choices: &mut Choices<'_>) -> Option<Parts> {
    let path = choices.text_or(&PATHS);
    let query = match choices.flag() {
        true => Cow::from(format!(
            "?{}={}",
            choices.text_or(&["q", "q+r", "%71"]),
            choices.text_or(&VALUES)
        )),
        false => Cow::from(""),
    };
    let method = choices.one_of(&METHODS);
    let request = Request::builder()
        .method(method)
        .uri(format!("{path}{query}"));
    let mut parts = request.header("host", "cart").body(()).ok()?.into_parts().0;
    for _ in 0..choices.below(4) {
        let name = HeaderName::from_bytes(choices.text_or(&NAMES).as_bytes());
        let value = HeaderValue::from_str(&choices.text_or(&VALUES));
        if let (Ok(name), Ok(value)) = (name, value)
            && name != "host"
        {
            parts.headers.append(name, value);
        }
    }
    Some(parts)
}
