//! What a waypoint may have by its own token.

use super::*;

/// `token-w` is that of waypoint shop/w on node-a; all others are nodes'.
struct Callers(Arc<TokenFile>);

impl CallerAuthenticator for Callers {
    fn authenticate<'a>(
        &'a self,
        token: &'a str,
    ) -> BoxFuture<'a, Result<Caller, AuthenticationError>> {
        if token != "token-w" {
            return self.0.authenticate(token);
        }
        let role = CallerRole::Waypoint(ObjectName {
            namespace: "shop".into(),
            name: "w".into(),
        });
        let node = "node-a".to_owned();
        Box::pin(async { Ok(Caller { node, role }) })
    }
}

pub(super) fn callers(mesh: &TestAuthority) -> Arc<dyn CallerAuthenticator> {
    Arc::new(Callers(token_file(mesh)))
}

#[tokio::test]
async fn a_waypoint_gets_its_own_identity_and_not_those_of_its_node() {
    let domain = shop("w").trust_domain().to_owned();
    for (token, identity, refused) in [
        ("token-w", shop("w"), None),
        ("token-a", shop("web"), None),
        (
            "token-w",
            shop("web"),
            Some("isn't the identity of waypoint shop/w"),
        ),
        (
            "token-w",
            shop("db"),
            Some("isn't the identity of waypoint shop/w"),
        ),
        (
            "token-w",
            Identity::new(domain, "street", "w"),
            Some("isn't the identity of waypoint shop/w"),
        ),
        (
            "token-w",
            Identity::new("elsewhere", "shop", "w"),
            Some("elsewhere"),
        ),
        ("token-a", shop("w"), Some("known to run on node node-a")),
        ("token-b", shop("w"), Some("known to run on node node-b")),
    ] {
        let pem = NewRequest::generate(&identity).unwrap().pem;
        let asked = CertificateSigningRequest::new(pem, 60, identity.to_string());
        let answer = call(Some(&format!("Bearer {token}")), asked).await;
        match (answer, refused) {
            (Ok(chain), None) => assert_eq!(chain.len(), 2, "{token} {identity}"),
            (Err(status), Some(words)) => {
                assert_eq!(status.code(), Code::PermissionDenied, "{token} {identity}");
                assert!(status.message().contains(words), "{token}: {status}");
            }
            (answer, _) => panic!("{token} {identity}: {answer:?}"),
        }
    }
}
