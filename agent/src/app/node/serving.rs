//! The sockets that an agent listens at, and how they go over to its successor.

use std::{
    io, mem,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use ambit_common::capture::Listener;
use anyhow::{Context, Result};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{AdminSource, Limits, Readiness, serve_admin, serve_metrics, serve_readiness},
    capture::{self, Capture},
    proxy::{Proxy, listener},
    takeover::{Error, Inherited, Lead, Successor},
    telemetry::{Metrics, logging::LogControl},
    waypoint::supervisor::Sockets,
};

/// Where the agent's own endpoints are.
#[derive(Debug)]
pub struct Endpoints {
    /// The operator's.
    pub admin: SocketAddr,
    /// `/metrics`.
    pub metrics: SocketAddr,
    /// `/healthz/ready`.
    pub ready: SocketAddr,
}

/// What is listened at. Each socket is kept once more, for a successor.
pub(super) struct Serving {
    admin: Option<TcpListener>,
    metrics: Option<TcpListener>,
    ready: Option<TcpListener>,
    sockets: Vec<OwnedFd>,
    accepting: JoinSet<()>,
    /// Every pod's interface is known.
    begun: CancellationToken,
    endpoints: JoinSet<()>,
    stop: CancellationToken,
}

impl Serving {
    /// Binds the agent's own endpoints, or takes a predecessor's.
    ///
    /// # Errors
    /// The kernel's refusal, with the setting.
    pub(super) fn open(endpoints: &Endpoints, inherited: &mut Inherited) -> Result<Self> {
        let mut open = |address, option| {
            listener::own(address, inherited)
                .with_context(|| format!("listening on {address}; {option} chooses another"))
        };
        let admin = open(endpoints.admin, "--admin-address")?;
        let metrics = open(endpoints.metrics, "--metrics-address")?;
        let ready = open(endpoints.ready, "--ready-address")?;
        let sockets = [&admin, &metrics, &ready].map(share);
        Ok(Self {
            sockets: sockets.into_iter().collect::<io::Result<_>>()?,
            admin: Some(admin),
            metrics: Some(metrics),
            ready: Some(ready),
            accepting: JoinSet::new(),
            begun: CancellationToken::new(),
            endpoints: JoinSet::new(),
            stop: CancellationToken::new(),
        })
    }

    /// Takes what is captured, and tunnels. They are accepted once the agent knows every pod's interface:
    /// until then they wait, or a predecessor has them.
    ///
    /// # Errors
    /// The kernel's refusal, with the address.
    pub(super) fn captured(
        &mut self,
        capture: &mut Capture,
        proxy: &Arc<Proxy>,
        inherited: &mut Inherited,
    ) -> Result<()> {
        for (role, is_ipv6, listener) in listener::captured(capture::has_ipv6(), inherited)? {
            // From here on what is captured comes to us.
            capture.serve(role, is_ipv6, &listener)?;
            self.accept(role, listener, proxy)?;
        }
        for listener in listener::tunnels(capture::has_ipv6(), inherited)? {
            self.accept(Listener::Tunnel, listener, proxy)?;
        }
        Ok(())
    }

    fn accept(&mut self, role: Listener, listener: TcpListener, proxy: &Arc<Proxy>) -> Result<()> {
        self.sockets.push(share(&listener)?);
        let (proxy, begun) = (proxy.clone(), self.begun.clone());
        self.accepting.spawn(async move {
            begun.cancelled().await;
            proxy.serve(role, listener).await;
        });
        Ok(())
    }

    /// To be cancelled when the agent knows every pod's interface.
    pub(super) fn begin(&self) -> CancellationToken {
        self.begun.clone()
    }

    /// Answers at the agent's own endpoints, once.
    pub(super) fn endpoints(
        &mut self,
        source: Arc<dyn AdminSource>,
        metrics: Arc<Metrics>,
        readiness: Readiness,
        log: LogControl,
    ) {
        let limits = Limits::default();
        let stop = || self.stop.clone();
        if let Some(listener) = self.metrics.take() {
            let serving = serve_metrics(listener, metrics, limits, stop());
            self.endpoints.spawn(serving);
        }
        if let Some(listener) = self.ready.take() {
            let serving = serve_readiness(listener, readiness, limits, stop());
            self.endpoints.spawn(serving);
        }
        if let Some(listener) = self.admin.take() {
            let stop = stop();
            self.endpoints.spawn(async move {
                if let Err(error) = serve_admin(listener, source, log, limits, stop).await {
                    tracing::error!("{error}");
                }
            });
        }
    }

    /// Gives every socket to a successor, those of waypoints too, and goes on taking connections until it does.
    ///
    /// # Errors
    /// It doesn't.
    pub(super) async fn hand_over(
        &mut self,
        successor: Successor,
        lead: Lead,
        waypoints: &Sockets,
    ) -> Result<(), Error> {
        tracing::info!("another agent takes over");
        let mut sockets = mem::take(&mut self.sockets);
        sockets.extend(waypoints.share());
        successor.relieves(lead, sockets).await
    }

    /// Takes nothing more. When it returns, none of the sockets is open here any more, but for answers
    /// under way.
    pub(super) async fn stop(&mut self, proxy: &Proxy) {
        proxy.stop_accepting();
        self.stop.cancel();
        self.sockets.clear();
        self.begun.cancel();
        while self.accepting.join_next().await.is_some() {}
    }
}

fn share(listener: &TcpListener) -> io::Result<OwnedFd> {
    listener.as_fd().try_clone_to_owned()
}
