//! TokenReviews.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    accounts::{Bound, OWN_AUDIENCE, Token, service_account},
    resources::by_path,
    state::State,
    storage::Key,
};

/// Fills in the status of a TokenReview.
pub(super) fn review(state: &State, mut review: Value) -> Value {
    let spec = &review["spec"];
    let asked = spec["audiences"].as_array().into_iter().flatten();
    let mut asked: BTreeSet<String> = asked.filter_map(|it| Some(it.as_str()?.into())).collect();
    if asked.is_empty() {
        asked.insert(OWN_AUDIENCE.into());
    }
    let token = spec["token"].as_str().unwrap_or_default();
    review["status"] = match judge(state, token, &asked) {
        Ok(status) => status,
        Err(error) => json!({ "user": {}, "error": error }),
    };
    review["metadata"] = json!({ "creationTimestamp": null });
    review
}

/// The token, if it is known and what it was made for is still there.
pub(super) fn living<'a>(state: &'a State, text: &str) -> Result<&'a Token, String> {
    let token = state
        .accounts
        .token(text)
        .ok_or("invalid bearer token: unknown, or revoked")?;
    if let Some(bound) = &token.bound
        && bound.lives_with_pod
        && !has_pod(state, &token.user.name, bound)
    {
        return Err("invalid bearer token: service account token has been invalidated".into());
    }
    Ok(token)
}

/// Whether the pod that a user's token is to be bound to is there.
pub(super) fn has_pod(state: &State, user: &str, bound: &Bound) -> bool {
    let (Some((namespace, _)), Some(pods)) = (service_account(user), by_path("", "v1", "pods"))
    else {
        return false;
    };
    let key = Key {
        resource: pods,
        namespace: namespace.into(),
        name: bound.pod.clone(),
    };
    let pod = state.storage.object(&key);
    pod.is_some_and(|pod| pod["metadata"]["uid"] == bound.uid.as_str())
}

fn judge(state: &State, text: &str, asked: &BTreeSet<String>) -> Result<Value, String> {
    let token = living(state, text)?;
    let audiences: Vec<_> = token.audiences.intersection(asked).collect();
    if audiences.is_empty() {
        return Err(format!(
            "[invalid bearer token, token audiences {:?} is invalid for the target audiences {:?}]",
            token.audiences, asked
        ));
    }
    let mut user = json!({
        "username": token.user.name,
        "uid": format!("uid-of-{}", token.user.name),
        "groups": token.user.groups,
    });
    if token.bound.is_some() {
        user["extra"] = token.extra();
    }
    Ok(json!({ "authenticated": true, "user": user, "audiences": audiences }))
}
