//! The Gateway API's rules of precedence, read off the routes as they are written: every match of every rule is
//! tried, and the best of those that fit is taken. Slow, and made of nothing that the route table is made of.

use std::cmp::Reverse;

use http::request::Parts;
use regex::Regex;
use serde_json::Value;

use crate::fuzzing::path::{canonical, percent_decode};

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Expected {
    NoRoutes,
    NoMatch,
    /// Kind, name and index.
    Rule(String, String, usize),
}

/// A request as servers see it.
#[derive(Debug)]
pub(super) struct Asked {
    method: String,
    /// Without escapes.
    path: Vec<u8>,
    /// What expressions are matched against: escapes that are needed are in it.
    normal: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, Vec<u8>)>,
}

/// How well a match fits, the best first. The specification leaves it open where expressions stand: here, behind all
/// prefixes but `/`.
type Rank = (
    usize,
    Reverse<usize>,
    Reverse<(usize, usize)>,
    bool,
    Reverse<usize>,
    Reverse<usize>,
);

impl Asked {
    pub(super) fn of(request: &Parts, normal: &str) -> Self {
        let query = request.uri.query().unwrap_or_default();
        let decode = |text: &str| {
            let spaces = text.replace('+', " ");
            String::from_utf8_lossy(&percent_decode(spaces.as_bytes())).into_owned()
        };
        let pairs = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decode(name), decode(value))
            });
        let headers = request.headers.iter();
        Self {
            method: request.method.to_string(),
            path: canonical(request.uri.path()),
            normal: normal.to_owned(),
            query: pairs.collect(),
            headers: headers
                .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
                .collect(),
        }
    }

    /// All values of a header in one.
    fn header(&self, name: &str) -> Option<Vec<u8>> {
        let all = self
            .headers
            .iter()
            .filter(|(it, _)| it.eq_ignore_ascii_case(name));
        let all: Vec<_> = all.map(|(_, value)| &**value).collect();
        (!all.is_empty()).then(|| all.join(&b","[..]))
    }

    fn is_grpc(&self) -> bool {
        let values = self
            .headers
            .iter()
            .filter(|(name, _)| name == "content-type");
        let first = values.map(|(_, value)| &**value).next().unwrap_or_default();
        let end = first.iter().position(|byte| b"+; ".contains(byte));
        &first[..end.unwrap_or(first.len())] == b"application/grpc"
    }

    fn has_headers(&self, conditions: &Value) -> Option<usize> {
        let first = |name: &str, seen: &str| name.eq_ignore_ascii_case(seen);
        all_fit(conditions, first, |name| self.header(name))
    }

    fn has_query(&self, conditions: &Value) -> Option<usize> {
        let value = |name: &str| {
            let found = self.query.iter().find(|(it, _)| it == name);
            found.map(|(_, value)| value.clone().into_bytes())
        };
        all_fit(conditions, |name, seen| name == seen, value)
    }

    /// Class of a path's match, its characters, and those of a call's service and method.
    fn has_path(&self, wanted: &Value) -> Option<(usize, usize, (usize, usize))> {
        let value = wanted["value"].as_str().unwrap_or("/");
        match wanted["type"].as_str().unwrap_or("PathPrefix") {
            "Exact" => (self.path == canonical(value)).then_some((0, 0, (0, 0))),
            "PathPrefix" => self.has_prefix(&canonical(value)),
            _ => fits(wanted, "value", self.normal.as_bytes()).then_some((2, 0, (0, 0))),
        }
    }

    /// Segment by segment; a slash at the end makes no difference.
    fn has_prefix(&self, prefix: &[u8]) -> Option<(usize, usize, (usize, usize))> {
        let segments = |path: &[u8]| -> Vec<Vec<u8>> {
            let all = path.split(|byte| *byte == b'/');
            all.map(<[u8]>::to_vec)
                .filter(|it| !it.is_empty())
                .collect()
        };
        let wanted = segments(prefix);
        let length = wanted.iter().map(|it| it.len() + 1).sum();
        let class = if wanted.is_empty() { 3 } else { 1 };
        segments(&self.path)
            .starts_with(&wanted)
            .then_some((class, length, (0, 0)))
    }

    fn is_call(&self, wanted: &Value) -> Option<(usize, usize, (usize, usize))> {
        let part = |key: &str| wanted[key].as_str().filter(|text| !text.is_empty());
        let root = |text: &'_ str| text.strip_prefix('.').unwrap_or(text).to_owned();
        let is_exact = wanted["type"].as_str() != Some("RegularExpression");
        match (part("service"), part("method")) {
            (Some(service), Some(method)) if is_exact => {
                let path = format!("/{}/{method}", root(service));
                (self.path == path.as_bytes()).then_some((0, 0, (0, 0)))
            }
            (Some(service), None) if is_exact => {
                self.has_prefix(format!("/{}", root(service)).as_bytes())
            }
            (service, method) => {
                let (of, called) = self.normal.strip_prefix('/')?.split_once('/')?;
                let length = |text: Option<&str>| text.map_or(0, str::len);
                let is_it =
                    |key, text: &str| part(key).is_none() || fits(wanted, key, text.as_bytes());
                (is_it("service", of) && is_it("method", called)).then_some((
                    2,
                    0,
                    (length(service), length(method)),
                ))
            }
        }
    }

    fn rank(&self, kind: &str, wanted: &Value) -> Option<Rank> {
        let headers = self.has_headers(&wanted["headers"])?;
        let path = match (kind, &wanted["method"], &wanted["path"]) {
            ("GRPCRoute", Value::Null, _) | ("HTTPRoute", _, Value::Null) => (3, 0, (0, 0)),
            ("GRPCRoute", call, _) => self.is_call(call)?,
            (_, _, path) => self.has_path(path)?,
        };
        let method = wanted["method"].as_str();
        if method.is_some_and(|method| method != self.method) {
            return None;
        }
        let query = self.has_query(&wanted["queryParams"])?;
        let (class, length, call) = path;
        Some((
            class,
            Reverse(length),
            Reverse(call),
            method.is_none(),
            Reverse(headers),
            Reverse(query),
        ))
    }
}

/// The rule of these routes that a request of a client in that namespace meets.
pub(super) fn expected(routes: &[Value], client: &str, asked: &Asked) -> Expected {
    let of = |namespace: &str| -> Vec<&Value> {
        let its = |route: &&Value| route["metadata"]["namespace"] == *namespace;
        routes.iter().filter(its).collect()
    };
    let consumers = of(client);
    let mut routes = if consumers.is_empty() {
        of("shop")
    } else {
        consumers
    };
    if routes.is_empty() {
        return Expected::NoRoutes;
    }
    if routes.iter().any(|route| route["kind"] == "GRPCRoute") {
        routes.retain(|route| route["kind"] == "GRPCRoute");
        if !asked.is_grpc() {
            return Expected::NoMatch;
        }
    }
    let mut best = None;
    for route in routes {
        let (metadata, kind) = (&route["metadata"], text(&route["kind"]));
        let created = metadata["creationTimestamp"].as_str();
        let name = format!(
            "{}/{}",
            text(&metadata["namespace"]),
            text(&metadata["name"])
        );
        for (index, rule) in list(&route["spec"]["rules"]).iter().enumerate() {
            let every = [Value::Null];
            let matches = list(&rule["matches"]);
            let matches = if matches.is_empty() { &every } else { matches };
            for rank in matches.iter().filter_map(|it| asked.rank(kind, it)) {
                let found = (rank, created.is_none(), created, name.clone(), index, kind);
                best = Some(best.map_or(found.clone(), |best| std::cmp::min(best, found)));
            }
        }
    }
    best.map_or(Expected::NoMatch, |(.., name, index, kind)| {
        Expected::Rule(kind.to_owned(), name, index)
    })
}

/// How many conditions there are, if all fit. Of several on one name the first counts.
fn all_fit(
    conditions: &Value,
    is_same: impl Fn(&str, &str) -> bool,
    value: impl Fn(&str) -> Option<Vec<u8>>,
) -> Option<usize> {
    let mut seen: Vec<&str> = Vec::new();
    for condition in list(conditions) {
        let name = text(&condition["name"]);
        if seen.iter().any(|other| is_same(name, other)) {
            continue;
        }
        seen.push(name);
        if !fits(condition, "value", &value(name)?) {
            return None;
        }
    }
    Some(seen.len())
}

fn fits(wanted: &Value, key: &str, given: &[u8]) -> bool {
    let (text, Ok(given)) = (text(&wanted[key]), std::str::from_utf8(given)) else {
        return false;
    };
    match wanted["type"].as_str() {
        Some("RegularExpression") => {
            Regex::new(&format!("^(?:{text})$")).is_ok_and(|it| it.is_match(given))
        }
        _ => text == given,
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
