//! The stage: pods, servers, a capture of the wire, and the mesh.
//!
//! | | node a | node b |
//! |---|---|---|
//! | `shop`, in the mesh | frontend, cart (nginx) | catalog (nginx), batch |
//! | `legacy`, not in it | caller | old (nginx) |

use std::{fs, mem, path::Path, time::Instant};

use anyhow::{Context, Result};
use lab::{Capture, Lab, Mesh, Node, Pod, PodSpec, RunningMesh};

use super::{counters::Counters, nginx::Server};

/// Short, so that certificates are renewed, and the first ones expire, while one watches.
const CERTIFICATE_TTL: &str = "20s";
/// Ordinary manifests that the demo applies, from the root of the workspace.
const MANIFESTS: &str = "deploy/examples/demo";

/// Everything that checks work with. Its processes end when it is dropped.
pub(super) struct Stage<'a> {
    pub(super) lab: &'a Lab,
    pub(super) mesh: RunningMesh<'a>,
    pub(super) frontend: Pod,
    pub(super) cart: Server,
    pub(super) catalog: Server,
    pub(super) batch: Pod,
    pub(super) caller: Pod,
    pub(super) old: Server,
    /// All packets between the nodes, from before the first agent was there.
    pub(super) wire: Capture,
    /// In every request and answer; nobody may read it on the wire.
    pub(super) marker: String,
    /// The agents' counters before any traffic.
    pub(super) before: Counters,
}

impl<'a> Stage<'a> {
    /// Sets it, and says what there is.
    pub(super) fn set(lab: &'a Lab, ambit: &Path) -> Result<(Stage<'a>, String)> {
        apply(lab, "namespaces.yaml")?;
        let (a, b) = (lab.node("a"), lab.node("b"));
        let frontend = pod(a, "shop", "frontend")?;
        let cart = Server::start(lab, pod(a, "shop", "cart")?)?;
        let catalog = Server::start(lab, pod(b, "shop", "catalog")?)?;
        let batch = pod(b, "shop", "batch")?;
        let caller = pod(a, "legacy", "caller")?;
        let old = Server::start(lab, pod(b, "legacy", "old")?)?;

        let wire = lab.wire_capture()?;
        let started = Instant::now();
        let mesh = Mesh::default()
            .program(ambit)
            .certificate_ttl(CERTIFICATE_TTL)
            .start(lab)?;
        let detail = format!(
            "ready after {:.1} s; certificates live for {CERTIFICATE_TTL}\n\
             shop (in the mesh):  a/frontend  a/cart (nginx)  b/catalog (nginx)  b/batch\n\
             legacy (not in it):  a/caller  b/old (nginx)",
            started.elapsed().as_secs_f64()
        );
        let marker = format!("not-for-other-eyes-{}", lab.name());
        let before = Counters::read(lab)?;
        let stage = Stage {
            lab,
            mesh,
            frontend,
            cart,
            catalog,
            batch,
            caller,
            old,
            wire,
            marker,
            before,
        };
        Ok((stage, detail))
    }

    /// Lets the processes outlive this one.
    pub(super) fn leave_up(self) {
        let Stage {
            mesh,
            cart,
            catalog,
            old,
            wire,
            ..
        } = self;
        // Nobody would end it, and its file would grow for ever.
        drop(wire);
        mem::forget((mesh, cart, catalog, old));
    }

    /// What to try in a lab that stays.
    pub(super) fn hints(&self) -> String {
        let frontend = self.frontend.namespace();
        let node = self.frontend.node().namespace();
        format!(
            "Ask the catalog on node b from the frontend on node a:\n\n    \
             nsenter --net=/run/netns/{frontend} curl http://{}/\n\n\
             Look at what the agent of node a knows:\n\n    \
             nsenter --net=/run/netns/{node} curl http://127.0.0.1:15000/workloads\n    \
             nsenter --net=/run/netns/{node} curl http://127.0.0.1:15020/metrics\n\n\
             Logs of the agents: {}\n",
            self.catalog.addresses()[0],
            self.lab.directory().join("logs").display(),
        )
    }
}

/// Puts one of the example manifests where the agents look.
pub(super) fn apply(lab: &Lab, file: &str) -> Result<()> {
    let path = Path::new(MANIFESTS).join(file);
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(lab.apply(file, &text)?)
}

/// The SPIFFE ID of a pod of `shop`: each has a service account of its own name.
pub(super) fn identity(pod: &Pod) -> String {
    format!("spiffe://cluster.local/ns/shop/sa/{}", pod.name())
}

fn pod(node: &Node, namespace: &str, name: &str) -> Result<Pod> {
    let spec = PodSpec::in_namespace(namespace)
        .service_account(name)
        .label("app", name);
    Ok(node.pod(name, spec)?)
}
