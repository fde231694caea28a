//! Who talks to whom while things go wrong.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{
    requests::{Connections, Requests},
    wire::{Seen, Wire},
};
use crate::{Child, Error, Lab, LoadServer, PeerServer, Pod, PodSpec, Result, Service, wait};

/// Begins every request: nobody between the nodes may read it.
pub const MARKER: &str = "a-marker-that-nobody-on-the-wire-may-read";
/// Of echo servers; servers of HTTP are on the next one.
pub(super) const PORT: u16 = 8080;
const HTTP_PORT: u16 = 8081;
/// For how long a load may go on that is ended before.
const LONGEST: Duration = Duration::from_secs(3600);
/// Requests a second of the load that isn't looked at closely, to each server.
pub(super) const RATE: u32 = 40;
/// How long the first answers may take.
const FIRST: Duration = Duration::from_secs(40);

/// On node a `friend` and `auditor`, who may connect, `stranger`, who may not, `near`, and a pod that isn't in
/// the mesh; on node b `far`, another such pod, and the waypoint in front of service `front`, which both
/// servers are endpoints of. Mutual TLS is demanded.
#[derive(Debug)]
pub struct Stage {
    friend: Pod,
    /// Makes no load.
    pub(super) auditor: Pod,
    stranger: Pod,
    near: Pod,
    far: Pod,
    plain: [Pod; 2],
    front: Service,
    _listening: [PeerServer; 3],
    _serving: [LoadServer; 2],
}

/// Load that goes on.
#[derive(Debug)]
pub struct Load {
    /// Of those who may connect.
    pub allowed: Vec<Requests>,
    /// Of those who may not.
    pub forbidden: Vec<Requests>,
    /// By `lab-load`, from the friend's own cgroup: what the kernel splices is among it. Its connections stay open.
    steady: Vec<Child>,
}

impl Stage {
    /// Makes the pods and their manifests.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn set(lab: &Lab) -> Result<Stage> {
        lab.announce_nodes()?;
        let labels = [
            ("ambit.dev/mesh", "enabled"),
            ("ambit.dev/use-waypoint", "w"),
        ];
        lab.namespace("shop").labelled(&labels)?;
        lab.namespace("shop").strict()?;
        lab.namespace("street").not_enrolled()?;
        lab.apply("gateway.yaml", GATEWAY)?;
        lab.apply(FRIENDS.0, FRIENDS.1)?;
        let member = |node: &str, name: &str| {
            let spec = PodSpec::in_namespace("shop").service_account(name);
            lab.node(node).pod(name, spec)
        };
        let plain = |node: &str| {
            let spec = PodSpec::in_namespace("street");
            lab.node(node).pod(&format!("plain-{node}"), spec)
        };
        let (near, far) = (member("a", "near")?, member("b", "far")?);
        let plain = [plain("a")?, plain("b")?];
        let front = lab
            .service("shop", "front")
            .port(80, PORT)
            .named_port("http", 81, HTTP_PORT)
            .endpoint(&near)
            .endpoint(&far)
            .apply()?;
        Ok(Stage {
            friend: member("a", "friend")?,
            auditor: member("a", "auditor")?,
            stranger: member("a", "stranger")?,
            _listening: [near.echo(PORT)?, far.echo(PORT)?, plain[1].echo(PORT)?],
            _serving: [
                LoadServer::start(&near, HTTP_PORT)?,
                LoadServer::start(&far, HTTP_PORT)?,
            ],
            near,
            far,
            plain,
            front,
        })
    }

    /// Watches the wire, and has the marker cross it outside the mesh, to see that it is seen.
    ///
    /// # Errors
    /// If it isn't.
    pub fn watch(&self, lab: &Lab) -> Result<Wire> {
        let outside: Vec<_> = self
            .plain
            .iter()
            .flat_map(|pod| pod.addresses())
            .copied()
            .collect();
        let wire = Wire::watch(lab, MARKER, &outside)?;
        let [from, to] = &self.plain;
        let proof = Requests::begin("plain to plain", from, to.at(PORT), Connections::Each);
        proof.await_answer(Instant::now(), FIRST)?;
        wait::poll("the marker outside the mesh", FIRST, || {
            match wire.check() {
                Ok(Seen {
                    marked_outside: 1..,
                    ..
                }) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })?;
        Ok(wire)
    }

    /// Begins load of all kinds, and waits until each who may is answered.
    ///
    /// # Errors
    /// If one isn't.
    pub fn load(&self) -> Result<Load> {
        let mut load = self.requests()?;
        for server in [
            self.near.at(HTTP_PORT),
            self.far.at(HTTP_PORT),
            self.front.at(81),
        ] {
            load.steady.push(self.steady(server)?);
        }
        Ok(load)
    }

    /// Begins that which is looked at closely, whose connections end soon.
    ///
    /// # Errors
    /// As [`Stage::load`].
    pub fn requests(&self) -> Result<Load> {
        let servers = self.servers();
        let mut allowed = Vec::new();
        for (name, server) in servers {
            for connections in [Connections::Kept, Connections::Each] {
                allowed.push(Requests::begin(name, &self.friend, server, connections));
            }
        }
        let mut forbidden: Vec<_> = servers
            .iter()
            .map(|(name, server)| {
                let name = format!("a stranger, {name}");
                Requests::begin(&name, &self.stranger, *server, Connections::Each)
            })
            .collect();
        for (plain, server) in [(0, &self.near), (0, &self.far), (1, &self.far)] {
            let plain = &self.plain[plain];
            let name = format!("{} in plaintext to {}", plain.name(), server.name());
            let server = server.at(PORT);
            forbidden.push(Requests::begin(&name, plain, server, Connections::Each));
        }
        for requests in &forbidden {
            requests.hurry(true);
        }
        let load = Load {
            allowed,
            forbidden,
            steady: Vec::new(),
        };
        load.await_answers(Instant::now(), FIRST)?;
        Ok(load)
    }

    /// Where echo servers are reached, by the way there.
    pub(super) fn servers(&self) -> [(&'static str, SocketAddr); 3] {
        [
            ("same node", self.near.at(PORT)),
            ("across nodes", self.far.at(PORT)),
            ("by the waypoint", self.front.at(80)),
        ]
    }

    fn steady(&self, server: SocketAddr) -> Result<Child> {
        let program = self.friend.own_program("lab-load")?;
        let command = self.friend.command(program).args(["--threads", "1"]);
        let command = command.args(["fixed-rate", "--connect", &server.to_string()]);
        command
            .args(["--path", &format!("/{MARKER}"), "--connections", "2"])
            .args(["--rate", &RATE.to_string()])
            .args(["--time-ms", &LONGEST.as_millis().to_string()])
            .spawn()
    }
}

impl Load {
    /// Whether those who may connect give up soon, to try again.
    pub fn hurry(&self, hasty: bool) {
        for requests in &self.allowed {
            requests.hurry(hasty);
        }
    }

    /// Waits until each who may has been answered a request that began after a moment; how long after it the
    /// last one was.
    ///
    /// # Errors
    /// If one isn't within `deadline`.
    pub fn await_answers(&self, after: Instant, deadline: Duration) -> Result<Duration> {
        let mut longest = Duration::ZERO;
        for requests in &self.allowed {
            longest = longest.max(requests.await_answer(after, deadline)?);
        }
        Ok(longest)
    }

    /// Requests of those who may that have failed.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.allowed.iter().map(|it| it.count().failed).sum()
    }

    /// Requests of those who may that were answered.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.allowed.iter().map(|it| it.count().answered).sum()
    }

    /// Why they failed, the latest of each.
    #[must_use]
    pub fn why(&self) -> Vec<String> {
        let told = self.allowed.iter();
        told.filter_map(|it| Some(format!("{}: {}", it.name(), it.failure()?)))
            .collect()
    }

    /// Every answer was what was sent, and who may not connect has got no byte, though all have tried.
    ///
    /// # Errors
    /// Whoever it isn't so of.
    pub fn check(&self) -> Result<()> {
        let differing = self.allowed.iter().filter(|it| it.count().differing > 0);
        let served = self.forbidden.iter().filter(|it| it.count().received > 0);
        let wrong: Vec<_> = differing
            .chain(served)
            .map(|it| format!("{}: {:?}", it.name(), it.count()))
            .collect();
        if wrong.is_empty() {
            return Ok(());
        }
        let must = "\"answers are what was sent, and strangers get none\"";
        Err(Error::violated(must, wrong.join("; ")))
    }
}

/// The file and the text of the policy by which few may connect.
pub(super) const FRIENDS: (&str, &str) = (
    "friends.yaml",
    "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
     metadata: {name: friends, namespace: shop}\n\
     spec: {rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/friend, \
     cluster.local/ns/shop/sa/auditor, cluster.local/ns/shop/sa/guest]}}]}]}\n",
);

const GATEWAY: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
     metadata: {name: w, namespace: shop, labels: {istio.io/waypoint-for: service}, \
     annotations: {ambit.dev/waypoint-node: b}}\n\
     spec: {gatewayClassName: ambit-waypoint, \
     listeners: [{name: mesh, port: 15008, protocol: HBONE}]}\n";
