//! The lab: nodes and pods made of network namespaces, veth pairs and cgroups.
//!
//! A test reads like a story:
//!
//! ```no_run
//! # fn story() -> lab::Result<()> {
//! use lab::{Family, Lab, PodNetwork, PodSpec};
//!
//! let lab = Lab::builder("story").pods(PodNetwork::Routed).family(Family::Dual).build()?;
//! lab.namespace("shop").enrolled()?;
//! let server = lab.node("b").pod("server", PodSpec::in_namespace("shop").label("app", "web"))?;
//! let client = lab.node("a").pod("client", PodSpec::in_namespace("shop"))?;
//! let echo = server.peer_server(["echo-server", "--listen", "[::]:8080"])?;
//! let answer = client.peer(["echo-client", "--connect", &server.at(8080).to_string()])?;
//! assert_eq!(answer["succeeded"], 1);
//! # drop(echo);
//! # Ok(())
//! # }
//! ```
//!
//! Everything a lab makes carries its name, which no other lab has, so labs run side by side. All
//! addresses live inside the lab's namespaces; the machine's own interfaces, routes and iptables
//! rules are never touched. Root is needed, and a lab says so when it isn't there.
//!
//! A lab is taken down when it is dropped, which a panic does too, and when the process that made
//! it ends in any other way, `kill -9` included: see [`Lab`].

mod api_server;
mod browser;
mod capture;
mod cgroup;
pub mod deploy;
mod error;
mod ip;
mod kube_proxy;
mod kubelet;
mod lab;
mod load;
mod manifests;
mod mesh;
mod node;
mod past_veth;
mod peer;
mod place;
mod plan;
mod pod;
mod process;
pub mod sidecar;
pub mod soak;
mod status;
mod sys;
mod talk;
mod trio;
mod wait;
mod watchdog;

pub use api_server::{ApiServer, Rbac, RequestSeen};
pub use browser::{Seen, Tab};
pub use capture::{Capture, Packet, Transport, parse_pcap};
pub use cgroup::MemoryGroup;
pub use error::{Error, Result};
pub use kubelet::{EndpointState, Kubelet, WaypointPod};
pub use lab::{Builder, Lab};
pub use load::{
    Flood, Generator, Harm, IdleConnections, Latency, Load, LoadResult, LoadServer, Point,
    load_program, run as run_load,
};
pub use manifests::{Manifests, NamespaceManifest, Service};
pub use mesh::{Mesh, RunningMesh, ambit_program};
pub use node::Node;
pub use peer::{PeerServer, peer_program};
pub use place::Place;
pub use plan::{Family, NODE_INTERFACE, PodNetwork};
pub use pod::{Phase, Pod, PodSpec, ScheduledPod};
pub use process::{Child, Command, Output};
pub use status::{children, of_threads, process_status};
pub use talk::{Held, Talk, Way, on_each_network};
pub use trio::Trio;
pub use wait::eventually;
