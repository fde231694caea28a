//! Addresses of Services.

use serde_json::{Value, json};

use crate::api_server::state::State;

/// Gives a Service that a client creates an address of 10.96.0.0/16, unless it has one or wants none.
pub(super) fn assign(state: &State, service: &mut Value) {
    let spec = &mut service["spec"];
    if !spec["clusterIP"].is_null() || spec["type"] == "ExternalName" {
        return;
    }
    let [.., high, low] = state.storage.revision().to_be_bytes();
    let address = format!("10.96.{high}.{low}");
    spec["clusterIPs"] = json!([address]);
    spec["clusterIP"] = json!(address);
}
