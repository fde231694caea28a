//! Capture: the eBPF programs and everything of the node that they need.
//!
//! The only module that knows aya and rtnetlink. [`Capture::start`] loads and pins,
//! [`Capture::serve`] puts the agent's listeners in place, [`Capture::run`] keeps programs and
//! maps in line with the kernel and the store.

pub mod attach;
pub mod balance;
pub mod bind;
mod bound;
mod checksum;
mod devices;
mod forwarding;
mod held;
mod interfaces;
pub mod layout;
pub mod loader;
pub mod maps;
mod nftables;
pub mod passed;
mod poke;
pub mod publish;
mod routing;
mod sockets;
pub mod splice;
mod unbound;
pub mod uninstall;

use std::{io, os::fd::AsRawFd, path::PathBuf, sync::Arc, time::Duration};

use ambit_common::{capture::Listener, splice::Offsets};
use futures::StreamExt;
use rtnetlink::{
    Handle, MulticastGroup,
    packet_core::NetlinkMessage,
    packet_route::RouteNetlinkMessage,
    sys::{AsyncSocket, SocketAddr},
};
use tokio::{
    sync::broadcast::error::RecvError,
    task::JoinHandle,
    time::{self, Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use crate::discovery::{model::Workload, store::Store};
use attach::{Attacher, Mechanism};
use balance::Balancer;
pub use bound::{BoundPods, PodInterface};
use held::HeldSyns;
use interfaces::Interfaces;
use maps::{Counters, Maps};
use passed::{Events, Passes};
use publish::Publisher;
use splice::{Splice, SpliceCounters};
pub use unbound::Unbound;

/// For how long after an event others are awaited, so that a burst costs one look. What a new pod opens waits
/// for it, so this must be short.
const SETTLE: Duration = Duration::from_millis(5);
/// How often to look again while a pod has no interface yet: addresses in a pod's namespace
/// change without an event here.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// It doubles up to this, for what doesn't settle by itself.
const LOOK_AGAIN_LATEST: Duration = Duration::from_secs(10);

/// How often to look for pods that packets come to past their veth, which the programs find by
/// themselves: this is for the operator.
const REPORT: Duration = Duration::from_secs(5);

/// How the capture behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the BPF file system is mounted, or shall be.
    pub bpffs: PathBuf,
    /// For how long after the agent's last sign of life new connections between pods of this node
    /// pass, of kinds that it had allowed. Zero: none do, ever.
    pub pass_for: Duration,
    /// The cgroup below which the node's pods are.
    pub cgroup: PathBuf,
    /// This node's name, as pods bear it in `spec.nodeName`.
    pub node: Arc<str>,
    /// SYNs of pods that stay unknown pass after the hold.
    pub allow_unknown_pods: bool,
    /// Mesh traffic passes unprotected while no agent listens.
    pub allow_without_agent: bool,
    /// For how long SYNs of unknown pods are held.
    pub hold: Duration,
    /// How programs are attached.
    pub mechanism: Mechanism,
    /// Where the splice's programs find what they read of the kernel's structs; `None`: there is no
    /// splice.
    pub splice: Option<Offsets>,
}

/// Why capturing isn't possible.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The programs could not be loaded.
    #[error(transparent)]
    Load(#[from] loader::Error),
    /// A map refused an entry.
    #[error(transparent)]
    Maps(#[from] maps::Error),
    /// No netlink socket.
    #[error("opening netlink: {0}")]
    Netlink(#[from] io::Error),
    /// The kernel refused a rule, a route or a dump.
    #[error("routing of captured packets: {0} (CAP_NET_ADMIN is needed)")]
    Routing(#[from] rtnetlink::Error),
    /// The kernel refused the table.
    #[error("nftables table for captured packets: {0} (CAP_NET_ADMIN and nf_tables are needed)")]
    Nftables(#[source] io::Error),
}

/// What was loaded beside the capture itself.
pub struct Loaded {
    /// What the capture's programs count.
    pub counters: Counters,
    /// The splice's programs, if it is wanted; or why it can't be had.
    pub splice: Option<Result<Splice, splice::Error>>,
    /// What they count.
    pub splice_counters: SpliceCounters,
    /// Connections that pass from pod to pod.
    pub passes: Passes,
    /// What is told of them.
    pub events: Events,
}

/// Programs that are loaded, and the node's state around them.
pub struct Capture {
    settings: Settings,
    store: Arc<Store>,
    maps: Maps,
    held: HeldSyns,
    publisher: Publisher,
    balancer: Balancer,
    interfaces: Interfaces,
    handle: Handle,
    /// Drives netlink; ends with this value.
    netlink: JoinHandle<()>,
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.netlink.abort();
    }
}

impl Capture {
    /// Loads the programs, takes over what an earlier agent pinned, and prepares routing.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn start(
        settings: Settings,
        store: Arc<Store>,
        bound: BoundPods,
    ) -> Result<(Self, Loaded), Error> {
        let mut loaded = loader::load(&settings)?;
        // Before any listener is served: what came while no agent ran is of the mesh by then.
        let mut publisher = Publisher::default();
        publisher.publish_all(&mut loaded.maps, &store.snapshot())?;
        // Strict checking makes the kernel honour the namespace that a dump of addresses names.
        let (connection, handle, _) = rtnetlink::new_connection_with_strict_check()?;
        let netlink = tokio::spawn(connection);
        routing::install(&handle, has_ipv6()).await?;
        tokio::task::spawn_blocking(nftables::install)
            .await
            .map_err(io::Error::other)
            .flatten()
            .map_err(Error::Nftables)?;
        routing::accept_node_addresses_on_loopback();
        let attacher = Attacher::new(
            loaded.object,
            loader::link_directory(&settings.bpffs),
            settings.mechanism,
        );
        let interfaces = Interfaces::new(attacher, &loaded.maps, bound);
        let capture = Self {
            balancer: Balancer::new(settings.node.clone()),
            settings,
            store,
            maps: loaded.maps,
            held: loaded.held,
            publisher,
            interfaces,
            handle,
            netlink,
        };
        let loaded = Loaded {
            counters: loaded.counters,
            splice: loaded.splice,
            splice_counters: loaded.splice_counters,
            passes: loaded.passes,
            events: loaded.events,
        };
        Ok((capture, loaded))
    }

    /// Gives a listening socket what is captured for its role from now on.
    ///
    /// # Errors
    /// [`Error::Maps`].
    pub fn serve(
        &mut self,
        role: Listener,
        is_ipv6: bool,
        socket: &impl AsRawFd,
    ) -> Result<(), Error> {
        Ok(self.maps.set_listener(role, is_ipv6, socket)?)
    }

    /// A handle on how many entries the maps have no room for.
    #[must_use]
    pub fn left_out(&self) -> publish::LeftOut {
        self.publisher.left_out()
    }

    /// Follows the kernel and the store until cancelled. The first look is done when `ready`
    /// fires.
    ///
    /// # Errors
    /// [`Error`]: what can't be mended by looking again.
    pub async fn run(
        mut self,
        ready: impl FnOnce() + Send,
        cancellation: CancellationToken,
    ) -> Result<(), Error> {
        let mut updates = self.store.subscribe();
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
        ];
        let (mut connection, _, mut events) = rtnetlink::new_multicast_connection(&groups)?;
        // A burst of routes must not overflow the socket before it is read.
        connection
            .socket_mut()
            .socket_mut()
            .set_rx_buf_sz(EVENT_BUFFER)?;
        let connection = tokio::spawn(connection);
        let _aborts = AbortOnDrop(connection);

        let mut published = self.publish_all()?;
        let mut is_unsettled = self.look().await?;
        ready();
        let mut pause = LOOK_AGAIN;
        let mut look_at = Instant::now() + pause;
        let mut past_veth = time::interval(REPORT);
        past_veth.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let look = tokio::select! {
                () = cancellation.cancelled() => return Ok(()),
                event = events.next() => match event {
                    Some(event) => concerns_devices(&event),
                    None => return Err(io::Error::other("the netlink socket closed").into()),
                },
                update = updates.recv() => match update {
                    // Older than the snapshot that was published whole: it's in there.
                    Ok(update) if update.snapshot.generation() <= published => false,
                    Ok(update) => {
                        self.publisher.publish(&mut self.maps, &update)?;
                        self.balancer.publish(&mut self.maps, &update)?;
                        update.workloads.iter().any(|change| {
                            let here = |pod: &Option<Arc<Workload>>| {
                                pod.as_ref().is_some_and(|pod| pod.node == self.settings.node)
                            };
                            here(&change.before) || here(&change.after)
                        })
                    }
                    Err(RecvError::Lagged(_)) => {
                        published = self.publish_all()?;
                        true
                    }
                    Err(RecvError::Closed) => return Ok(()),
                },
                _ = past_veth.tick() => {
                    self.interfaces.report_past_veth(&self.maps)?;
                    continue;
                }
                () = time::sleep_until(look_at), if is_unsettled => {
                    pause = (pause * 2).min(LOOK_AGAIN_LATEST);
                    is_unsettled = self.look().await?;
                    look_at = Instant::now() + pause;
                    continue;
                }
            };
            if look {
                pause = LOOK_AGAIN;
                time::sleep(SETTLE).await;
                while events.try_recv().is_ok() {}
                is_unsettled = self.look().await?;
                look_at = Instant::now() + pause;
            }
        }
    }

    fn publish_all(&mut self) -> Result<u64, maps::Error> {
        let snapshot = self.store.snapshot();
        let generation = self.publisher.publish_all(&mut self.maps, &snapshot)?;
        self.balancer.publish_all(&mut self.maps, &snapshot)?;
        Ok(generation)
    }

    async fn look(&mut self) -> Result<bool, Error> {
        let interfaces = &self.interfaces;
        let observation = devices::observe(
            &self.handle,
            |index| interfaces.is_bound(index),
            |index| interfaces.is_pods(index),
        )
        .await?;
        let snapshot = self.store.snapshot();
        let pods: Vec<Arc<Workload>> = snapshot
            .local_workloads(&self.settings.node)
            .cloned()
            .collect();
        let interfaces = &mut self.interfaces;
        interfaces.reconcile(&mut self.maps, &observation, &pods)?;
        self.held.send_on(|index| interfaces.is_known(index));
        Ok(self.interfaces.is_unsettled(&observation, &pods))
    }
}

/// Bytes of netlink events that may wait: some thousand.
const EVENT_BUFFER: usize = 1 << 20;

fn concerns_devices(event: &(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)) -> bool {
    use rtnetlink::packet_core::NetlinkPayload::InnerMessage;
    matches!(
        event.0.payload,
        InnerMessage(
            RouteNetlinkMessage::NewLink(_)
                | RouteNetlinkMessage::DelLink(_)
                | RouteNetlinkMessage::NewRoute(_)
                | RouteNetlinkMessage::DelRoute(_)
                | RouteNetlinkMessage::NewAddress(_)
                | RouteNetlinkMessage::DelAddress(_)
        )
    )
}

/// Whether the node can speak IPv6 at all.
#[must_use]
pub fn has_ipv6() -> bool {
    std::path::Path::new("/proc/sys/net/ipv6").exists()
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
