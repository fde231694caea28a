//! Whether a Gateway asks for what a waypoint can be. Pure.

use super::kinds::{Gateway, Infrastructure, Listener, WantedAddress};

/// The port that waypoints listen on.
pub(super) const PORT: u16 = 15008;
/// What they speak there.
const PROTOCOL: &str = "HBONE";
/// The longest name of a Service, and of a label's value.
const LONGEST_NAME: usize = 63;
/// How many waypoints a Gateway has if nobody says.
const REPLICAS: &str = "ambit.dev/replicas";

/// A condition without what only its object knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) holds: bool,
    /// One of the Gateway API's.
    pub(super) reason: &'static str,
    /// For people: what is wrong, and the cure.
    pub(super) message: String,
}

/// What a Gateway's spec comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Judgement {
    pub(super) accepted: Verdict,
    /// In the order of the spec.
    pub(super) listeners: Vec<ListenerJudgement>,
    /// How many waypoints are asked for, if any number is.
    pub(super) replicas: Option<u16>,
}

/// What a listener's spec comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListenerJudgement {
    pub(super) name: String,
    pub(super) accepted: Verdict,
    pub(super) resolved: Verdict,
    pub(super) conflicted: Verdict,
}

impl Verdict {
    pub(super) fn yes(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            holds: true,
            reason,
            message: message.into(),
        }
    }

    pub(super) fn no(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            holds: false,
            ..Self::yes(reason, message)
        }
    }
}

/// Judges a Gateway of our class.
pub(super) fn judge(gateway: &Gateway) -> Judgement {
    let all = &gateway.spec.listeners;
    let listeners: Vec<_> = all.iter().map(|own| listener(own, all)).collect();
    let replicas = replicas(gateway);
    let name = gateway.metadata.name.as_deref().unwrap_or_default();
    let refusal = refused_name(name)
        .or_else(|| gateway.spec.addresses.iter().find_map(refused_address))
        .or_else(|| refused_parameters(gateway.spec.infrastructure.as_ref()))
        .or_else(|| replicas.as_ref().err().cloned());
    Judgement {
        accepted: refusal.unwrap_or_else(|| of_listeners(&listeners)),
        listeners,
        replicas: replicas.unwrap_or_default(),
    }
}

fn refused_name(name: &str) -> Option<Verdict> {
    let fits = name.len() <= LONGEST_NAME
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.contains('.');
    (!fits).then(|| {
        let message = format!(
            "metadata.name: {name:?} can't be the name of a Service: give the Gateway one of at most \
             {LONGEST_NAME} lower case letters, digits and '-' that begins with a letter"
        );
        Verdict::no("Invalid", message)
    })
}

fn refused_address(address: &WantedAddress) -> Option<Verdict> {
    let kind = address.kind.as_deref().unwrap_or("IPAddress");
    let value = address.value.as_deref().unwrap_or_default();
    // One without a value leaves the choice to us.
    let any = kind == "IPAddress" && value.is_empty();
    (!any).then(|| {
        let message = format!(
            "spec.addresses: {kind} {value:?}: a waypoint has the address that the cluster gives its \
             Service; take spec.addresses away"
        );
        Verdict::no("UnsupportedAddress", message)
    })
}

fn refused_parameters(infrastructure: Option<&Infrastructure>) -> Option<Verdict> {
    let given = infrastructure?.parameters_ref.is_some();
    given.then(|| {
        let message =
            "spec.infrastructure.parametersRef: waypoints have no parameters; take it away";
        Verdict::no("InvalidParameters", message)
    })
}

fn replicas(gateway: &Gateway) -> Result<Option<u16>, Verdict> {
    let annotations = gateway.metadata.annotations.as_ref();
    let Some(text) = annotations.and_then(|annotations| annotations.get(REPLICAS)) else {
        return Ok(None);
    };
    let number = text.parse().ok().filter(|number| *number > 0);
    number.map(Some).ok_or_else(|| {
        let message = format!(
            "metadata.annotations[{REPLICAS}]: {text:?} isn't a number from 1 to {}",
            u16::MAX
        );
        Verdict::no("Invalid", message)
    })
}

/// A Gateway is as good as the best of its listeners.
fn of_listeners(listeners: &[ListenerJudgement]) -> Verdict {
    let names = |holds: bool| {
        let those = listeners.iter().filter(|it| it.accepted.holds == holds);
        let names: Vec<_> = those.map(|it| it.name.as_str()).collect();
        names.join(", ")
    };
    let (good, bad) = (names(true), names(false));
    if good.is_empty() {
        let message = format!(
            "spec.listeners: none can be served ({bad}): a waypoint needs one with protocol \
             {PROTOCOL} and port {PORT}"
        );
        return Verdict::no("ListenersNotValid", message);
    }
    if bad.is_empty() {
        return Verdict::yes("Accepted", "the waypoint is as it can be");
    }
    let message = format!("served: {good}; not served, as status.listeners says why: {bad}");
    Verdict::yes("ListenersNotValid", message)
}

fn listener(own: &Listener, all: &[Listener]) -> ListenerJudgement {
    let conflicted = conflict(own, all);
    let accepted = if own.protocol != PROTOCOL {
        let message = format!(
            "protocol: {:?} isn't one of a waypoint; set {PROTOCOL}",
            own.protocol
        );
        Verdict::no("UnsupportedProtocol", message)
    } else if own.port != PORT {
        let message = format!("port: a waypoint listens on {PORT}, not on {}", own.port);
        Verdict::no("PortUnavailable", message)
    } else if conflicted.holds {
        Verdict::no(conflicted.reason, conflicted.message.clone())
    } else {
        Verdict::yes("Accepted", "served")
    };
    ListenerJudgement {
        name: own.name.clone(),
        accepted,
        resolved: resolve(own),
        conflicted,
    }
}

/// Names don't tell listeners apart that speak HBONE: it has none.
fn conflict(own: &Listener, all: &[Listener]) -> Verdict {
    let other = all
        .iter()
        .find(|other| other.name != own.name && other.port == own.port);
    let Some(other) = other else {
        return Verdict::no("NoConflicts", "no other listener has its port");
    };
    let reason = match other.protocol == own.protocol {
        true => "HostnameConflict",
        false => "ProtocolConflict",
    };
    let message = format!(
        "port: {} has {} as well; take one of them away",
        other.name, own.port
    );
    Verdict::yes(reason, message)
}

fn resolve(own: &Listener) -> Verdict {
    if own.tls.is_some() {
        let message = "tls: a waypoint has its certificate of control; take it away";
        return Verdict::no("InvalidCertificateRef", message);
    }
    let routes = own.allowed_routes.as_ref();
    if routes.is_some_and(|routes| !routes.kinds.is_empty()) {
        let message = "allowedRoutes.kinds: no route attaches to a waypoint's listener, for routes of \
                       a mesh attach to Services; take it away";
        return Verdict::no("InvalidRouteKinds", message);
    }
    Verdict::yes("ResolvedRefs", "it refers to nothing")
}

#[cfg(test)]
mod tests;
