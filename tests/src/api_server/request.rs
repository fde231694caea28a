//! What a request asks for, read from its method and path.

use std::collections::BTreeMap;

use http::Method;

use super::{
    refusal::Refusal,
    resources::{self, RESOURCES, Resource},
};

/// A request for objects.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// A place in [`RESOURCES`].
    pub(super) index: usize,
    /// As RBAC calls it.
    pub(super) verb: &'static str,
    /// Empty: of the cluster, or in all namespaces.
    pub(super) namespace: String,
    /// Empty: of all.
    pub(super) name: String,
    /// Whether it is about `/status`.
    pub(super) status: bool,
    pub(super) query: Query,
}

/// A path of the server.
#[derive(Debug, Clone)]
pub(super) enum Target {
    Objects(Box<Call>),
    /// What there is: `/version`, `/api`, `/apis` and what is below them but objects.
    Discovery,
}

/// The part of a URL behind the question mark.
#[derive(Debug, Clone, Default)]
pub(super) struct Query(BTreeMap<String, String>);

impl Target {
    pub(super) fn parse(method: &Method, path: &str, query: &str) -> Result<Self, Refusal> {
        let segments: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (group, version, rest) = match segments.as_slice() {
            ["version" | "healthz" | "livez" | "readyz"] | ["api"] | ["apis"] => {
                return Ok(Self::Discovery);
            }
            ["api", "v1"] | ["apis", _] | ["apis", _, _] => return Ok(Self::Discovery),
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return Err(Refusal::PageNotFound),
        };
        let (namespace, rest) = match rest {
            ["namespaces", _, "status" | "finalize"] => ("", rest),
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            _ => ("", rest),
        };
        let (plural, name, below) = match rest {
            [plural] => (*plural, "", None),
            [plural, name] => (*plural, *name, None),
            [plural, name, below] => (*plural, *name, Some(*below)),
            _ => return Err(Refusal::PageNotFound),
        };
        let known = |of: &&Resource| (of.group, of.version) == (group, version);
        let Some(index) = resources::by_path(group, version, plural) else {
            // A group of CRDs is served by a part that answers like the one before all parts.
            return Err(match RESOURCES.iter().find(known) {
                Some(other) if !other.is_custom() => Refusal::no_such_resource(),
                _ => Refusal::PageNotFound,
            });
        };
        let resource = &RESOURCES[index];
        let status = below == Some("status") && resource.status;
        let fits = resource.namespaced || namespace.is_empty();
        if !fits || (below.is_some() && !status) {
            return Err(Refusal::no_such_resource());
        }
        if resource.namespaced && namespace.is_empty() && !name.is_empty() {
            return Err(Refusal::no_such_resource());
        }
        let query = Query::parse(query);
        let verb = verb(method, !name.is_empty(), &query)?;
        if verb == "create" && resource.namespaced && namespace.is_empty() {
            return Err(Refusal::method_not_allowed());
        }
        Ok(Self::Objects(Box::new(Call {
            index,
            verb,
            namespace: namespace.into(),
            name: name.into(),
            status,
            query,
        })))
    }
}

impl Call {
    pub(super) fn resource(&self) -> &'static Resource {
        &RESOURCES[self.index]
    }
}

impl Query {
    pub(super) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(name, value)| (decode(name), decode(value)))
                .collect(),
        )
    }

    /// The value of a parameter; empty if it isn't there.
    pub(super) fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    pub(super) fn is_true(&self, name: &str) -> bool {
        matches!(self.text(name), "1" | "true")
    }

    /// A number; None if the parameter isn't there or empty.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        match self.text(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                Refusal::bad_request(format!("Invalid value: {text:?}: {name} is to be a number"))
            }),
        }
    }
}

fn verb(method: &Method, named: bool, query: &Query) -> Result<&'static str, Refusal> {
    Ok(match (method.as_str(), named) {
        ("GET", _) if query.is_true("watch") => "watch",
        ("GET", true) => "get",
        ("GET", false) => "list",
        ("POST", false) => "create",
        ("PUT", true) => "update",
        ("PATCH", true) => "patch",
        ("DELETE", true) => "delete",
        ("DELETE", false) => "deletecollection",
        _ => return Err(Refusal::method_not_allowed()),
    })
}

/// Undoes the encoding of form data.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (first, byte) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
                continue;
            }
            (b'+', _) => bytes.push(b' '),
            _ => bytes.push(*first),
        }
        rest = tail;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_kind_namespace_name_and_verb() {
        let table = [
            ("GET", "/api/v1/pods", "list Pod  "),
            ("GET", "/api/v1/pods?watch=1", "watch Pod  "),
            (
                "GET",
                "/api/v1/pods?watch=true&resourceVersion=7",
                "watch Pod  ",
            ),
            (
                "GET",
                "/api/v1/namespaces/shop/pods/web",
                "get Pod shop web",
            ),
            ("GET", "/api/v1/namespaces/shop", "get Namespace  shop"),
            (
                "PUT",
                "/api/v1/namespaces/shop/status",
                "update Namespace  shop/status",
            ),
            (
                "PATCH",
                "/api/v1/namespaces/shop/pods/web/status",
                "patch Pod shop web/status",
            ),
            (
                "POST",
                "/apis/coordination.k8s.io/v1/namespaces/s/leases",
                "create Lease s ",
            ),
            (
                "DELETE",
                "/api/v1/namespaces/s/secrets/x",
                "delete Secret s x",
            ),
            (
                "DELETE",
                "/api/v1/namespaces/s/secrets",
                "deletecollection Secret s ",
            ),
            (
                "GET",
                "/apis/gateway.networking.k8s.io/v1/gatewayclasses/a",
                "get GatewayClass  a",
            ),
            ("GET", "/apis", "discovery"),
            ("GET", "/api/v1", "discovery"),
            ("POST", "/api/v1/pods", "405"),
            ("PUT", "/api/v1/namespaces/shop/pods", "405"),
            ("GET", "/api/v1/pods/web", "404"),
            ("GET", "/api/v1/namespaces/shop/nodes", "404"),
            ("GET", "/api/v1/namespaces/shop/secrets/x/status", "404"),
            ("GET", "/api/v1/gremlins", "404"),
            ("GET", "/apis/x.example/v1/gremlins", "page not found"),
            (
                "GET",
                "/apis/security.istio.io/v1beta1/peerauthentications",
                "page not found",
            ),
            ("GET", "/metrics", "page not found"),
        ];
        for (method, url, expected) in table {
            let (path, query) = url.split_once('?').unwrap_or((url, ""));
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let read = match Target::parse(&method, path, query) {
                Ok(Target::Objects(call)) => {
                    let status = if call.status { "/status" } else { "" };
                    let (kind, namespace) = (call.resource().kind, &call.namespace);
                    format!("{} {kind} {namespace} {}{status}", call.verb, call.name)
                }
                Ok(Target::Discovery) => "discovery".into(),
                Err(Refusal::PageNotFound) => "page not found".into(),
                Err(refusal) => refusal.code().to_string(),
            };
            assert_eq!(read, expected, "{method} {url}");
        }
    }

    #[test]
    fn a_query_is_decoded() {
        let query = Query::parse("fieldSelector=spec.nodeName%3Da&x=1+2%&watch&limit=500");
        assert_eq!(query.text("fieldSelector"), "spec.nodeName=a");
        assert_eq!(query.text("x"), "1 2%");
        assert_eq!(query.number("limit"), Ok(Some(500)));
        assert_eq!(query.number("watch"), Ok(None));
        assert!(query.number("x").is_err());
    }
}
