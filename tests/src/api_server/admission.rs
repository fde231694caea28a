//! What a real server asks of whoever writes, beyond the right to write.

use serde_json::Value;

use super::{
    accounts::User,
    rbac::Attempt,
    refusal::Refusal,
    request::Call,
    resources::{self, RESOURCES},
    state::State,
    storage::Key,
};

/// Refuses what would give the writer's rights, or more, to somebody; and to have an owner wait for what it owns without
/// the right to (an admission plugin that some clusters have).
pub(super) fn check(
    state: &State,
    user: &User,
    call: &Call,
    object: &Value,
) -> Result<(), Refusal> {
    let key = Key {
        resource: call.index,
        namespace: call.namespace.clone(),
        name: call.name.clone(),
    };
    let before = state.storage.object(&key).map(|before| &**before);
    binding(state, user, call, object, before)?;
    owners(state, user, call, object, before)
}

/// Who changes a binding must have the verb `bind` on its role, or all that the role allows. The role stays the same.
fn binding(
    state: &State,
    user: &User,
    call: &Call,
    object: &Value,
    before: Option<&Value>,
) -> Result<(), Refusal> {
    let of = call.resource();
    if of.kind != "ClusterRoleBinding" {
        return Ok(());
    }
    let role = &object["roleRef"];
    if let Some(before) = before.filter(|before| !role.is_null() && before["roleRef"] != *role) {
        let message = format!(
            "Invalid value: {role}: cannot change roleRef from {}",
            before["roleRef"]
        );
        return Err(Refusal::invalid(
            of,
            &call.name,
            &[("FieldValueInvalid", "roleRef", &message)],
        ));
    }
    let role = before.map_or(role, |before| &before["roleRef"]);
    let role = role["name"].as_str().unwrap_or_default();
    let attempt = Attempt {
        verb: "bind",
        group: of.group,
        resource: "clusterroles",
        namespace: "",
        name: role,
    };
    match state.rights() {
        Some(rights) if !rights.allows(user, attempt) && !rights.covers(user, role) => {
            let message = format!(
                "clusterrolebindings.rbac.authorization.k8s.io {:?} is forbidden: user {:?} is \
                 attempting to grant RBAC permissions not currently held, of ClusterRole {role:?}",
                call.name, user.name
            );
            Err(Refusal::about(403, "Forbidden", message, of, &call.name))
        }
        _ => Ok(()),
    }
}

/// Who makes an owner wait for what it owns must be allowed to hold up the owner's deletion.
fn owners(
    state: &State,
    user: &User,
    call: &Call,
    object: &Value,
    before: Option<&Value>,
) -> Result<(), Refusal> {
    let waited = |object: &Value| {
        let owners = object["metadata"]["ownerReferences"].as_array();
        let owners = owners.cloned().unwrap_or_default().into_iter();
        let waited = owners.filter(|owner| owner["blockOwnerDeletion"] == true);
        waited.collect::<Vec<_>>()
    };
    let had = before.map(waited).unwrap_or_default();
    let rights = state.rights();
    for owner in waited(object).iter().filter(|owner| !had.contains(owner)) {
        let (Some(index), Some(rights)) = (resources::of(owner), &rights) else {
            continue;
        };
        let kind = &RESOURCES[index];
        let attempt = Attempt {
            verb: "update",
            group: kind.group,
            resource: &format!("{}/finalizers", kind.plural),
            namespace: &call.namespace,
            name: owner["name"].as_str().unwrap_or_default(),
        };
        if !rights.allows(user, attempt) {
            let of = call.resource();
            let message = format!(
                "{} {:?} is forbidden: cannot set blockOwnerDeletion if an ownerReference refers to a \
                 resource you can't set finalizers on",
                of.qualified(),
                call.name
            );
            return Err(Refusal::about(403, "Forbidden", message, of, &call.name));
        }
    }
    Ok(())
}
