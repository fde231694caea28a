//! Who may talk to the server: users, and the tokens that prove them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

/// Who may do everything, by membership in this group.
const MASTERS: &str = "system:masters";
/// The user that [`MASTERS`] has.
pub(super) const ADMINISTRATOR: &str = "system:admin";
/// The audience of the API server itself.
pub(super) const OWN_AUDIENCE: &str = "https://kubernetes.default.svc";

/// Who a token proves.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) groups: Vec<String>,
}

/// The pod that a token was made for.
#[derive(Debug, Clone)]
pub(super) struct Bound {
    pub(super) pod: String,
    pub(super) uid: String,
    pub(super) node: String,
    /// There was such a pod: the token is worth nothing without it.
    pub(super) lives_with_pod: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) user: User,
    pub(super) audiences: BTreeSet<String>,
    pub(super) bound: Option<Bound>,
}

/// All tokens.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    tokens: BTreeMap<String, Token>,
    made: usize,
}

impl User {
    pub(super) fn named(name: &str) -> Self {
        let mut groups = Vec::new();
        if name == ADMINISTRATOR {
            groups.push(MASTERS.into());
        }
        if let Some((namespace, _)) = service_account(name) {
            groups.push("system:serviceaccounts".into());
            groups.push(format!("system:serviceaccounts:{namespace}"));
        }
        groups.push("system:authenticated".into());
        Self {
            name: name.into(),
            groups,
        }
    }

    pub(super) fn is_master(&self) -> bool {
        self.groups.iter().any(|group| group == MASTERS)
    }
}

impl Accounts {
    /// A new token of a user. `salt` makes it differ from those of other labs.
    pub(super) fn issue(
        &mut self,
        user: &str,
        audiences: &[&str],
        bound: Option<Bound>,
        salt: &str,
    ) -> String {
        self.made += 1;
        let text = format!("{salt}.{}", self.made);
        let token = Token {
            user: User::named(user),
            audiences: audiences.iter().map(ToString::to_string).collect(),
            bound,
        };
        self.tokens.insert(text.clone(), token);
        text
    }

    pub(super) fn revoke(&mut self, user: &str) {
        self.tokens.retain(|_, token| token.user.name != user);
    }

    pub(super) fn token(&self, text: &str) -> Option<&Token> {
        self.tokens.get(text)
    }
}

impl Token {
    /// What a TokenReview tells beside name and groups.
    pub(super) fn extra(&self) -> Value {
        let Some(bound) = &self.bound else {
            return json!({});
        };
        json!({
            "authentication.kubernetes.io/node-name": [bound.node],
            "authentication.kubernetes.io/pod-name": [bound.pod],
            "authentication.kubernetes.io/pod-uid": [bound.uid],
        })
    }
}

/// Namespace and name of the service account that a user is.
pub(super) fn service_account(user: &str) -> Option<(&str, &str)> {
    user.strip_prefix("system:serviceaccount:")?.split_once(':')
}
