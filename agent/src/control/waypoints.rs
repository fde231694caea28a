//! Waypoints in a cluster: control makes a Deployment and what goes with it of each Gateway of class
//! `ambit-waypoint`, and a Gateway of a namespace's label alone.
//!
//! Routes are told whether waypoints apply them (`routes`).
//! What there is to be follows from the objects alone (`accept`, `objects`, `progress` and `status` decide),
//! so whichever replica does it does the same. Owned objects are removed by Kubernetes' garbage collection.

mod accept;
mod binding;
mod classes;
mod follow;
mod gateways;
mod image;
mod kinds;
mod namespaces;
mod objects;
mod progress;
mod routes;
mod status;

use std::sync::Arc;

use futures::future;
use kube::Client;
use tokio_util::sync::CancellationToken;

use self::objects::Image;
use crate::discovery::store::Store;

/// Who writes, as the API server's records say it.
const MANAGER: &str = "ambit-control";

/// What is to be known of the cluster.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Of control itself and of ConfigMap `ambit-trust-bundle`.
    pub namespace: String,
    /// The pod that control runs in, whose image waypoints run too. None: `image` says.
    pub pod: Option<String>,
    /// Of waypoints, if it isn't control's own.
    pub image: Option<String>,
    /// Where waypoints find the authority: host:port.
    pub ca_address: String,
    /// Of all identities.
    pub trust_domain: String,
    /// What their command line says beyond what follows from the Gateway.
    pub arguments: Vec<String>,
}

/// What all controllers share.
struct Context {
    client: Client,
    settings: Settings,
    /// None: nobody says which, and no waypoint can be made.
    image: Option<Image>,
    /// What there is, for what is to be said of routes.
    store: Arc<Store>,
}

/// Makes waypoints until told to stop, and waits for the Gateway API's kinds if the cluster doesn't have them yet.
/// What can't be done is logged or said in a status, and tried again. To be run by one replica at a time; two would only
/// do the same work twice.
pub async fn run(client: Client, settings: Settings, store: Arc<Store>, stop: CancellationToken) {
    let begun = async {
        let kinds = ["Gateway", "GatewayClass"];
        follow::await_kinds(&client, &kinds, "waypoints").await;
        let image = image::image(&client, &settings).await;
        Arc::new(Context {
            client,
            settings,
            image,
            store,
        })
    };
    let Some(context) = stop.run_until_cancelled(begun).await else {
        return;
    };
    tracing::info!("makes waypoints of Gateways of class {}", kinds::CLASS);
    let routes = future::join(
        routes::run(&context, "HTTPRoute", "httproutes", &stop),
        routes::run(&context, "GRPCRoute", "grpcroutes", &stop),
    );
    future::join5(
        classes::run(&context, &stop),
        gateways::run(&context, &stop),
        namespaces::run(&context, &stop),
        binding::run(&context, &stop),
        routes,
    )
    .await;
}
