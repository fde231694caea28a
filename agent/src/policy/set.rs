//! The policies in force, by namespace.

mod attached;

use std::{fmt, sync::Arc};

use imbl::{HashMap, OrdMap};

use self::attached::Attached;
pub use self::attached::WaypointScope;
use super::model::{
    AuthorizationPolicy, PeerAuthentication, RequestAuthentication, Selector, Target, TargetKind,
    TargetReference,
};
use crate::discovery::model::{ObjectName, WAYPOINT_CLASS, Workload};

/// All policies that are in force. Cloning is cheap at any size, and what a look-up costs depends
/// on the policies of the destination's namespace and of the root namespaces, not on all.
#[derive(Debug, Clone)]
pub struct PolicySet {
    root_namespaces: Arc<[Arc<str>]>,
    lets_past_waypoints: bool,
    authorizations: ByNamespace<AuthorizationPolicy>,
    peer_authentications: ByNamespace<PeerAuthentication>,
    request_authentications: ByNamespace<RequestAuthentication>,
    attached_authorizations: Attached<AuthorizationPolicy>,
    attached_authentications: Attached<RequestAuthentication>,
}

/// Ordered by name within a namespace, so that the order of arrival can't change a decision.
type ByNamespace<T> = HashMap<Arc<str>, OrdMap<Arc<str>, Arc<T>>>;

impl PolicySet {
    /// The root namespaces unless others are asked for. Istio's is one of them so that the
    /// manifests of an Istio mesh mean the same here.
    pub const DEFAULT_ROOT_NAMESPACES: [&str; 2] = ["ambit-system", "istio-system"];

    /// An empty set. Policies of a root namespace are for the workloads of every namespace.
    pub fn new<N: Into<Arc<str>>>(root_namespaces: impl IntoIterator<Item = N>) -> Self {
        let mut root_namespaces: Vec<Arc<str>> =
            root_namespaces.into_iter().map(Into::into).collect();
        root_namespaces.sort_unstable();
        root_namespaces.dedup();
        Self {
            root_namespaces: root_namespaces.into(),
            lets_past_waypoints: false,
            authorizations: HashMap::new(),
            peer_authentications: HashMap::new(),
            request_authentications: HashMap::new(),
            attached_authorizations: Attached::default(),
            attached_authentications: Attached::default(),
        }
    }

    /// Has workloads take connections that should have come through their waypoint, and didn't.
    #[must_use]
    pub fn letting_past_waypoints(mut self, lets: bool) -> Self {
        self.lets_past_waypoints = lets;
        self
    }

    /// Whether they do.
    #[must_use]
    pub fn lets_past_waypoints(&self) -> bool {
        self.lets_past_waypoints
    }

    /// Adds a policy, or replaces the one of that name.
    pub fn insert_authorization(&mut self, policy: AuthorizationPolicy) {
        let name = policy.name.clone();
        self.remove_authorization(&name);
        let policy = insert(&mut self.authorizations, &name, policy);
        let is_root = self.is_root(&name.namespace);
        let references = policy.target.references();
        let attached = &mut self.attached_authorizations;
        attached.insert(&name, references, is_root, &policy);
    }

    /// Takes a policy out of force, and returns it.
    pub fn remove_authorization(&mut self, name: &ObjectName) -> Option<Arc<AuthorizationPolicy>> {
        let removed = remove(&mut self.authorizations, name)?;
        let attached = &mut self.attached_authorizations;
        attached.remove(name, removed.target.references());
        Some(removed)
    }

    /// Adds one, or replaces that of its name.
    pub fn insert_request_authentication(&mut self, policy: RequestAuthentication) {
        let name = policy.name.clone();
        self.remove_request_authentication(&name);
        let policy = insert(&mut self.request_authentications, &name, policy);
        let is_root = self.is_root(&name.namespace);
        let references = policy.target.references();
        let attached = &mut self.attached_authentications;
        attached.insert(&name, references, is_root, &policy);
    }

    /// Takes one out of force, and returns it.
    pub fn remove_request_authentication(
        &mut self,
        name: &ObjectName,
    ) -> Option<Arc<RequestAuthentication>> {
        let removed = remove(&mut self.request_authentications, name)?;
        let attached = &mut self.attached_authentications;
        attached.remove(name, removed.target.references());
        Some(removed)
    }

    /// Adds a policy, or replaces the one of that name.
    pub fn insert_peer_authentication(&mut self, policy: PeerAuthentication) {
        let name = policy.name.clone();
        insert(&mut self.peer_authentications, &name, policy);
    }

    /// Takes a policy out of force, and returns it.
    pub fn remove_peer_authentication(
        &mut self,
        name: &ObjectName,
    ) -> Option<Arc<PeerAuthentication>> {
        remove(&mut self.peer_authentications, name)
    }

    /// Every AuthorizationPolicy, those of one namespace together and by name.
    pub fn authorizations(&self) -> impl Iterator<Item = &Arc<AuthorizationPolicy>> {
        self.authorizations.values().flat_map(OrdMap::values)
    }

    /// Every PeerAuthentication, those of one namespace together and by name.
    pub fn peer_authentications(&self) -> impl Iterator<Item = &Arc<PeerAuthentication>> {
        self.peer_authentications.values().flat_map(OrdMap::values)
    }

    /// Every RequestAuthentication, those of one namespace together and by name.
    pub fn request_authentications(&self) -> impl Iterator<Item = &Arc<RequestAuthentication>> {
        self.request_authentications
            .values()
            .flat_map(OrdMap::values)
    }

    /// The AuthorizationPolicies that are attached to a waypoint, its class, or the service it serves, dry runs
    /// included, always in the same order. What that costs depends on these alone.
    pub fn authorizations_at<'a>(
        &'a self,
        scope: &WaypointScope<'_>,
    ) -> impl Iterator<Item = &'a Arc<AuthorizationPolicy>> {
        self.attached_authorizations.at(scope)
    }

    /// The RequestAuthentications for requests through a waypoint, always in the same order: those that are
    /// attached to it, to its class or to the service; then those of the root namespaces and of the destination's that
    /// select all workloads, or the one that was asked for.
    #[must_use]
    pub fn request_authentications_for(
        &self,
        scope: &WaypointScope<'_>,
        workload: Option<&Workload>,
    ) -> Vec<Arc<RequestAuthentication>> {
        let attached = self.attached_authentications.at(scope).cloned();
        let namespace = match (scope.service, workload) {
            (Some(service), _) => &service.namespace,
            (None, Some(workload)) => &workload.name.namespace,
            (None, None) => return attached.collect(),
        };
        let is_selected = |policy: &&Arc<RequestAuthentication>| match &policy.target {
            Target::References(_) => false,
            Target::Workloads(selector) => {
                selector.is_empty() || workload.is_some_and(|it| selector.selects(&it.labels))
            }
        };
        let all = self.of_namespaces(&self.request_authentications, namespace);
        attached.chain(all.filter(is_selected).cloned()).collect()
    }

    /// The AuthorizationPolicies for a workload, dry runs included, always in the same order.
    pub fn authorizations_for<'a>(
        &'a self,
        workload: &'a Workload,
    ) -> impl Iterator<Item = &'a Arc<AuthorizationPolicy>> {
        self.of_namespaces(&self.authorizations, &workload.name.namespace)
            .filter(move |policy| match &policy.target {
                Target::Workloads(selector) => selector.selects(&workload.labels),
                Target::References(_) => false,
            })
    }

    /// The PeerAuthentications for a workload, always in the same order.
    pub fn peer_authentications_for<'a>(
        &'a self,
        workload: &'a Workload,
    ) -> impl Iterator<Item = &'a Arc<PeerAuthentication>> {
        self.of_namespaces(&self.peer_authentications, &workload.name.namespace)
            .filter(move |policy| {
                self.peer_authentication_scope(policy) != Scope::Nothing
                    && policy.selector.selects(&workload.labels)
            })
    }

    /// How far an AuthorizationPolicy reaches.
    #[must_use]
    pub fn authorization_scope(&self, policy: &AuthorizationPolicy) -> Scope {
        self.target_scope(&policy.name, &policy.target)
    }

    /// How far a RequestAuthentication reaches.
    #[must_use]
    pub fn request_authentication_scope(&self, policy: &RequestAuthentication) -> Scope {
        self.target_scope(&policy.name, &policy.target)
    }

    fn target_scope(&self, name: &ObjectName, target: &Target) -> Scope {
        let is_for_others = |reference: &TargetReference| {
            reference.kind == TargetKind::GatewayClass
                && (!self.is_root(&name.namespace) || *reference.name != *WAYPOINT_CLASS)
        };
        match target {
            Target::References(references) if references.iter().all(is_for_others) => {
                Scope::NoWaypoint
            }
            Target::References(_) => Scope::Waypoints,
            Target::Workloads(selector) => self.scope(name, selector),
        }
    }

    /// How far a PeerAuthentication reaches: nowhere with a selector in a root namespace, as the
    /// reference of Istio's PeerAuthentication says ("ignored when deployed in the root
    /// namespace").
    #[must_use]
    pub fn peer_authentication_scope(&self, policy: &PeerAuthentication) -> Scope {
        match self.scope(&policy.name, &policy.selector) {
            Scope::Workloads if self.is_root(&policy.name.namespace) => Scope::Nothing,
            scope => scope,
        }
    }

    fn scope(&self, name: &ObjectName, selector: &Selector) -> Scope {
        match (selector.is_empty(), self.is_root(&name.namespace)) {
            (false, _) => Scope::Workloads,
            (true, true) => Scope::Mesh,
            (true, false) => Scope::Namespace,
        }
    }

    fn is_root(&self, namespace: &Arc<str>) -> bool {
        self.root_namespaces.contains(namespace)
    }

    fn of_namespaces<'a, T>(
        &'a self,
        policies: &'a ByNamespace<T>,
        namespace: &'a Arc<str>,
    ) -> impl Iterator<Item = &'a Arc<T>> {
        let own = (!self.is_root(namespace)).then_some(namespace);
        self.root_namespaces
            .iter()
            .chain(own)
            .filter_map(|namespace| policies.get(namespace))
            .flat_map(OrdMap::values)
    }
}

impl Default for PolicySet {
    fn default() -> Self {
        Self::new(Self::DEFAULT_ROOT_NAMESPACES)
    }
}

/// How far a policy reaches. The text is shown to operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Every workload: of a root namespace, without selector.
    Mesh,
    /// Every workload of its namespace.
    Namespace,
    /// The workloads that it selects: of its namespace, or of all if that is a root namespace.
    Workloads,
    /// What its `targetRefs` name, at L7.
    Waypoints,
    /// No waypoint: of another class, or of the class from outside a root namespace.
    NoWaypoint,
    /// No workload at all.
    Nothing,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mesh => "mesh",
            Self::Namespace => "namespace",
            Self::Workloads => "workloads",
            Self::Waypoints => "waypoints",
            Self::NoWaypoint => {
                "nothing (only a root namespace may target the class ambit-waypoint)"
            }
            Self::Nothing => "nothing (a root namespace takes no selector)",
        })
    }
}

fn insert<T>(policies: &mut ByNamespace<T>, name: &ObjectName, policy: T) -> Arc<T> {
    let policy = Arc::new(policy);
    policies
        .entry(name.namespace.clone())
        .or_default()
        .insert(name.name.clone(), policy.clone());
    policy
}

fn remove<T>(policies: &mut ByNamespace<T>, name: &ObjectName) -> Option<Arc<T>> {
    let of_namespace = policies.get_mut(&name.namespace)?;
    let removed = of_namespace.remove(&name.name);
    // Namespaces come and go for as long as the agent runs.
    if of_namespace.is_empty() {
        policies.remove(&name.namespace);
    }
    removed
}
