//! Who calls, by the token that the kubelet gave its pod: the API server checks it.

use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{
    TokenReview, TokenReviewSpec, TokenReviewStatus, UserInfo,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};

use crate::{
    discovery::{
        model::{ObjectName, WorkloadUid},
        store::{Snapshot, Store},
    },
    identity::ca_service::{AuthenticationError, Caller, CallerAuthenticator, CallerRole},
};

/// Tokens for the API server itself, or anybody else, are none for the authority.
const AUDIENCE: &str = "ambit-ca";

/// Has the API server check tokens.
pub struct TokenReviewer {
    reviews: Api<TokenReview>,
    store: Arc<Store>,
    /// The agents' user name.
    agents: String,
}

impl TokenReviewer {
    /// Knows agents by their service account, `namespace/name`, and pods by the store.
    #[must_use]
    pub fn new(client: &Client, store: Arc<Store>, namespace: &str, account: &str) -> Self {
        Self {
            reviews: Api::all(client.clone()),
            store,
            agents: format!("system:serviceaccount:{namespace}:{account}"),
        }
    }
}

impl CallerAuthenticator for TokenReviewer {
    fn authenticate<'a>(
        &'a self,
        token: &'a str,
    ) -> BoxFuture<'a, Result<Caller, AuthenticationError>> {
        Box::pin(async move {
            let review = TokenReview {
                metadata: ObjectMeta::default(),
                spec: TokenReviewSpec {
                    token: token.to_owned(),
                    audiences: Some(vec![AUDIENCE.to_owned()]),
                },
                status: None,
            };
            let reviewed = self.reviews.create(&PostParams::default(), &review).await;
            let reviewed =
                reviewed.map_err(|error| AuthenticationError::Unavailable(error.to_string()))?;
            let status = reviewed.status.unwrap_or_default();
            caller(status, &self.agents, &self.store.snapshot())
        })
    }
}

/// The agent, or the waypoint, whose token was reviewed.
fn caller(
    status: TokenReviewStatus,
    agents: &str,
    snapshot: &Snapshot,
) -> Result<Caller, AuthenticationError> {
    let refused = |reason: String| Err(AuthenticationError::Refused(reason));
    if status.authenticated != Some(true) {
        let reason = status.error.unwrap_or_default();
        return refused(format!("the API server doesn't know the token: {reason}"));
    }
    // One that knows nothing of audiences has checked none.
    let audiences = status.audiences.unwrap_or_default();
    if !audiences.iter().any(|audience| audience == AUDIENCE) {
        return refused(format!("the token isn't for audience {AUDIENCE}"));
    }
    let user = status.user.unwrap_or_default();
    let name = user.username.as_deref().unwrap_or_default();
    let role = match name == agents {
        true => CallerRole::Agent,
        false => match waypoint(name, snapshot) {
            Some(gateway) => CallerRole::Waypoint(gateway),
            None => {
                return refused(format!(
                    "{name} is neither the service account of agents, {agents}, nor that of a waypoint"
                ));
            }
        },
    };
    let Some(uid) = extra(&user, "authentication.kubernetes.io/pod-uid") else {
        return refused("the token isn't bound to a pod: it must be a projected one".to_owned());
    };
    let told = extra(&user, "authentication.kubernetes.io/node-name");
    let known = snapshot
        .workload(&WorkloadUid(uid.into()))
        .map(|pod| &*pod.node);
    match (known, told) {
        (Some(known), Some(told)) if known != told => refused(format!(
            "the token is of node {told}, but its pod runs on {known}"
        )),
        (Some(node), _) => Ok(Caller {
            node: node.to_owned(),
            role,
        }),
        // It may have been made a moment ago.
        (None, _) => Err(AuthenticationError::Unavailable(format!(
            "the token's pod, of uid {uid}, isn't known yet"
        ))),
    }
}

/// The Gateway of ours that has this service account.
fn waypoint(user: &str, snapshot: &Snapshot) -> Option<ObjectName> {
    let account = user.strip_prefix("system:serviceaccount:")?;
    let (namespace, name) = account.split_once(':')?;
    let gateway = ObjectName {
        namespace: namespace.into(),
        name: name.into(),
    };
    snapshot.waypoint(&gateway).map(|it| it.name.clone())
}

fn extra<'a>(user: &'a UserInfo, key: &str) -> Option<&'a str> {
    let values = user.extra.as_ref()?.get(key)?;
    values.first().map(String::as_str)
}

#[cfg(test)]
mod tests;
