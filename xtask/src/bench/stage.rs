//! One subject's lab: its pods, their servers, and its data plane.
//!
//! | node a | node b |
//! |---|---|
//! | client, near (a server) | far (a server), cold-1, cold-2, ... (servers) |

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use lab::{Generator, Lab, Load, LoadResult, LoadServer, Pod, PodSpec, Service};

use super::{
    data_plane::{DataPlane, Makings},
    measurement::Placement,
    plan::Subject,
    probe, waypoint,
};

/// Where servers listen.
pub(super) const PORT: u16 = 8080;
/// The Kubernetes namespace of all pods; it is enrolled.
pub(super) const NAMESPACE: &str = "bench";
/// How long a new data plane may take to let the first request through.
const FIRST_ANSWER: Duration = Duration::from_secs(15);

/// A lab that is ready to be measured.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    pub(super) lab: &'a Lab,
    pub(super) client: Pod,
    near: Server,
    far: Server,
    /// What `far` is called by, if requests are routed.
    service: Option<Service>,
    /// Servers that nobody may talk to but who measures the first connection to each.
    pub(super) cold: Vec<Server>,
    pub(super) data_plane: DataPlane<'a>,
}

/// A pod that answers.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) pod: Pod,
    process: LoadServer,
}

impl<'a> Stage<'a> {
    /// Makes the pods, starts servers and data plane, and makes sure that what is to be measured
    /// is in the path of the connections.
    ///
    /// # Errors
    /// Something doesn't start, or requests don't pass where they should.
    pub(super) fn set(
        lab: &'a Lab,
        subject: &Subject,
        makings: &Makings,
        cold: usize,
    ) -> Result<Stage<'a>> {
        lab.namespace(NAMESPACE).enrolled()?;
        let client = lab.node("a").pod("client", spec("client"))?;
        let near = Server::start(lab, "a", "near")?;
        let far = Server::start(lab, "b", "far")?;
        let cold: Vec<_> = (1..=cold)
            .map(|number| Server::start(lab, "b", &format!("cold-{number}")))
            .collect::<Result<_>>()?;
        let service = match subject {
            Subject::AmbitWaypoint => Some(waypoint::ask_for(lab, &far.pod)?),
            _ => None,
        };
        let mut pods = vec![&client, &far.pod];
        if subject.placements().contains(&Placement::SameNode) {
            pods.push(&near.pod);
        }
        pods.extend(cold.iter().map(|server| &server.pod));
        let data_plane = DataPlane::start(lab, subject, makings, &pods)?;
        let mut stage = Stage {
            lab,
            client,
            near,
            far,
            service,
            cold,
            data_plane,
        };
        for placement in subject.placements() {
            stage
                .warm_up(*placement)
                .with_context(|| format!("placement {}", placement.name()))?;
        }
        Ok(stage)
    }

    /// Where the server is that is placed so.
    pub(super) fn address(&self, placement: Placement) -> SocketAddr {
        match (&self.service, placement) {
            (Some(service), Placement::CrossNode) => service.at(waypoint::SERVICE_PORT),
            _ => self.server(placement).pod.at(PORT),
        }
    }

    /// Makes a load from the client to the server that is placed so.
    ///
    /// # Errors
    /// The generator can't make it; what became of requests is in the result.
    pub(super) fn load(
        &self,
        placement: Placement,
        generator: Generator,
        load: &Load,
        time: Duration,
    ) -> Result<LoadResult> {
        let (server, target) = (self.server(placement), self.address(placement));
        Ok(server
            .process
            .run(&self.client, generator, target, load, time)?)
    }

    /// Waits until the client gets an answer, as an application would.
    ///
    /// # Errors
    /// It gets none.
    pub(super) fn await_answer(&self, placement: Placement) -> Result<()> {
        let server = self.address(placement);
        let ask = || probe::until_answered(server, FIRST_ANSWER);
        self.client
            .in_namespace(ask)?
            .with_context(|| format!("no answer from {server}"))
    }

    fn server(&self, placement: Placement) -> &Server {
        match placement {
            Placement::SameNode => &self.near,
            Placement::CrossNode => &self.far,
        }
    }

    /// A short load, which a proxy that is in its path must have worked for.
    fn warm_up(&mut self, placement: Placement) -> Result<()> {
        /// Enough for some ticks of CPU time.
        const WARM_UP: Duration = Duration::from_millis(300);

        self.await_answer(placement)?;
        let before = self.data_plane.work(self.lab)?;
        let load = Load::RoundTrip { connections: 4 };
        let told = self.load(placement, Generator::Own, &load, WARM_UP)?;
        ensure!(
            told.errors == 0 && told.requests > 0,
            "{} requests, {} failed: {}",
            told.requests,
            told.errors,
            told.first_error.unwrap_or_default()
        );
        ensure!(
            before.is_none() || self.data_plane.work(self.lab)? > before,
            "{} requests were answered and the mesh did nothing: they pass it by",
            told.requests
        );
        Ok(())
    }
}

impl Server {
    fn start(lab: &Lab, node: &str, name: &str) -> Result<Server> {
        let pod = lab.node(node).pod(name, spec(name))?;
        let process = LoadServer::start(&pod, PORT)?;
        Ok(Server { pod, process })
    }
}

/// A pod with an identity of its own.
pub(super) fn spec(name: &str) -> PodSpec {
    PodSpec::in_namespace(NAMESPACE).service_account(name)
}
