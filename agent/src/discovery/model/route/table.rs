//! All routes of a Service, in the order that the specification has them tried in.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use http::request::Parts;
use k8s_openapi::jiff::Timestamp;

use super::{PathMatch, RequestMatch, Route, RouteKind, RouteRule, matching::is_grpc};
use crate::discovery::model::ObjectName;

/// What the routes of a Service say of its requests, by port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteTable {
    ports: BTreeMap<u16, PortRoutes>,
}

/// A route as it is attached to a port of a Service.
#[derive(Debug, Clone, Copy)]
pub struct Attached<'a> {
    /// The port.
    pub port: u16,
    /// The route, its backends resolved.
    pub route: &'a Route,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy)]
pub enum Found<'a> {
    /// No route is for that port and client: the request goes to the Service itself.
    NoRoutes,
    /// There are some, and none of their rules matches: 404, or gRPC's UNIMPLEMENTED.
    NoMatch,
    /// This rule's.
    Rule {
        /// The rule.
        rule: &'a Arc<RouteRule>,
        /// The prefix of the path that matched, without `/` at its end; empty if the rule asks for none.
        prefix: &'a str,
    },
}

/// Routes of the Service's own namespace hold for everybody, others for clients of their namespace, who
/// then aren't asked the first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct PortRoutes {
    producer: Option<Rules>,
    consumers: HashMap<Arc<str>, Rules>,
}

/// Rules of one kind of route, by what their paths are looked up by. Each list is in order.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rules {
    kind: RouteKind,
    exact: HashMap<Box<str>, Vec<Entry>>,
    prefix: HashMap<Box<str>, Vec<Entry>>,
    patterns: Vec<Entry>,
    /// Whatever the path.
    any: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    rank: Rank,
    matches: RequestMatch,
    rule: Arc<RouteRule>,
}

/// The smaller goes first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    call: Reverse<(usize, usize)>,
    method: Reverse<bool>,
    headers: Reverse<usize>,
    query: Reverse<usize>,
    /// Those whose age isn't known come last.
    created: (bool, Option<Timestamp>),
    route: ObjectName,
    rule: usize,
}

impl RouteTable {
    /// Of the routes that are attached to a Service of that namespace.
    #[must_use]
    pub fn compile<'a>(namespace: &str, attached: impl IntoIterator<Item = Attached<'a>>) -> Self {
        let mut ports: BTreeMap<u16, BTreeMap<&Arc<str>, Vec<&Route>>> = BTreeMap::new();
        for Attached { port, route } in attached {
            let of_port = ports.entry(port).or_default();
            let group = of_port.entry(&route.name.namespace).or_default();
            group.push(route);
        }
        let ports = ports.into_iter().map(|(port, groups)| {
            let mut routes = PortRoutes::default();
            for (of, group) in groups {
                let rules = Rules::of(&group);
                if **of == *namespace {
                    routes.producer = Some(rules);
                } else {
                    routes.consumers.insert(Arc::clone(of), rules);
                }
            }
            (port, routes)
        });
        Self {
            ports: ports.collect(),
        }
    }

    /// Which kind of route holds at a port for clients of a namespace: of those that are attached, the more
    /// specific one.
    #[must_use]
    pub fn kind(&self, port: u16, client_namespace: &str) -> Option<RouteKind> {
        self.rules(port, client_namespace).map(|rules| rules.kind)
    }

    /// The rule for a request. `path` is its path as it was normalised, without query.
    #[must_use]
    pub fn find<'a>(
        &'a self,
        port: u16,
        client_namespace: &str,
        request: &Parts,
        path: &str,
    ) -> Found<'a> {
        match self.rules(port, client_namespace) {
            None => Found::NoRoutes,
            Some(rules) => rules.find(request, path),
        }
    }

    fn rules(&self, port: u16, client_namespace: &str) -> Option<&Rules> {
        let routes = self.ports.get(&port)?;
        let consumer = routes.consumers.get(client_namespace);
        consumer.or(routes.producer.as_ref())
    }
}

impl Rules {
    /// Of routes of one namespace. Where there are both kinds, the more specific one alone holds.
    fn of(routes: &[&Route]) -> Self {
        let kind = match routes.iter().any(|route| route.kind == RouteKind::Grpc) {
            true => RouteKind::Grpc,
            false => RouteKind::Http,
        };
        let mut rules = Self {
            kind,
            exact: HashMap::new(),
            prefix: HashMap::new(),
            patterns: Vec::new(),
            any: Vec::new(),
        };
        for route in routes.iter().filter(|route| route.kind == kind) {
            for entry in &route.rules {
                for matches in &entry.matches {
                    rules.insert(Entry {
                        rank: rank(route, &entry.rule, matches),
                        matches: matches.clone(),
                        rule: Arc::clone(&entry.rule),
                    });
                }
            }
        }
        rules.sort();
        rules
    }

    fn insert(&mut self, entry: Entry) {
        let list = match &entry.matches.path {
            PathMatch::Exact(path) => self.exact.entry(path.clone()).or_default(),
            PathMatch::Prefix(prefix) if prefix.is_empty() => &mut self.any,
            PathMatch::Prefix(prefix) => self.prefix.entry(prefix.clone()).or_default(),
            PathMatch::Pattern(_) | PathMatch::Call { .. } => &mut self.patterns,
        };
        list.push(entry);
    }

    fn sort(&mut self) {
        let lists = self.exact.values_mut().chain(self.prefix.values_mut());
        for list in lists.chain([&mut self.patterns, &mut self.any]) {
            // Stable: the matches of a rule stay in their order.
            list.sort_by(|one, other| one.rank.cmp(&other.rank));
        }
    }

    /// Exact paths go first, then prefixes, the longest first, then patterns, and last what asks for no path.
    fn find(&self, request: &Parts, path: &str) -> Found<'_> {
        if self.kind == RouteKind::Grpc && !is_grpc(&request.headers) {
            return Found::NoMatch;
        }
        let fits = |entry: &&Entry| entry.matches.matches_but_path(request);
        let exact = self.exact.get(path);
        if let Some(entry) = exact.into_iter().flatten().find(fits) {
            return Found::Rule {
                rule: &entry.rule,
                prefix: "",
            };
        }
        if let Some(found) = self.find_prefix(path, fits) {
            return found;
        }
        let mut patterns = self.patterns.iter();
        let pattern = patterns.find(|entry| entry.matches.path.matches(path) && fits(entry));
        match pattern.or_else(|| self.any.iter().find(fits)) {
            Some(entry) => Found::Rule {
                rule: &entry.rule,
                prefix: "",
            },
            None => Found::NoMatch,
        }
    }

    fn find_prefix(&self, path: &str, fits: impl Fn(&&Entry) -> bool) -> Option<Found<'_>> {
        if self.prefix.is_empty() {
            return None;
        }
        let mut end = path.len();
        while end > 0 {
            if let Some((prefix, entries)) = self.prefix.get_key_value(&path[..end])
                && let Some(entry) = entries.iter().find(&fits)
            {
                return Some(Found::Rule {
                    rule: &entry.rule,
                    prefix,
                });
            }
            end = path[..end].rfind('/')?;
        }
        None
    }
}

fn rank(route: &Route, rule: &RouteRule, matches: &RequestMatch) -> Rank {
    Rank {
        call: Reverse(matches.path.call_lengths()),
        method: Reverse(matches.method.is_some()),
        headers: Reverse(matches.headers.len()),
        query: Reverse(matches.query.len()),
        created: (route.created.is_none(), route.created),
        route: route.name.clone(),
        rule: rule.index,
    }
}

#[cfg(test)]
mod tests;
