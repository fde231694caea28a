//! JSON web tokens that a service demands of its clients.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use lab::{Lab, Result, eventually};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::{Value, json};

use crate::{
    shop::DEADLINE,
    stage::{Stage, check},
};

/// Who gives out tokens.
struct Issuer(KeyPair);

impl Issuer {
    fn new() -> Self {
        Self(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap())
    }

    fn key_set(&self) -> Value {
        // An uncompressed point: 4, x, y.
        let (x, y) = self.0.public_key_raw()[1..].split_at(32);
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let key = json!({"kty": "EC", "crv": "P-256", "kid": "a", "use": "sig", "x": part(x), "y": part(y)});
        json!({ "keys": [key] })
    }

    fn token(&self, claims: &Value) -> String {
        let part = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let header = json!({ "alg": "ES256", "kid": "a" });
        let signed = format!("{}.{}", part(header), part(claims.clone()));
        let key = EncodingKey::from_ec_der(&self.0.serialize_der());
        let signature = crypto::sign(signed.as_bytes(), &key, Algorithm::ES256).unwrap();
        format!("{signed}.{signature}")
    }
}

#[test]
fn a_service_that_demands_a_token_gets_requests_with_a_good_one_alone() -> Result<()> {
    let lab = Lab::builder("l7-tokens").build()?;
    let stage = Stage::open(&lab)?;
    let _mesh = stage.mesh(&lab, &[])?;
    let (issuer, other) = (Issuer::new(), Issuer::new());
    let policies = format!(
        r#"
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: front, namespace: shop}}
spec:
  targetRefs: [{{group: "", kind: Service, name: front}}]
  jwtRules:
  - issuer: https://issuer
    audiences: [front]
    jwks: '{keys}'
    outputClaimToHeaders: [{{header: x-subject, claim: sub}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: front, namespace: shop}}
spec:
  targetRefs: [{{group: "", kind: Service, name: front}}]
  action: ALLOW
  rules:
  - from: [{{source: {{requestPrincipals: ["https://issuer/*"]}}}}]
    to: [{{operation: {{paths: ["/any"]}}}}]
  - from: [{{source: {{requestPrincipals: ["https://issuer/*"]}}}}]
    to: [{{operation: {{paths: ["/admin"]}}}}]
    when: [{{key: "request.auth.claims[groups]", values: [admins]}}]
"#,
        keys = issuer.key_set()
    );
    lab.apply("tokens.yaml", &policies)?;
    eventually("the policies", DEADLINE, || {
        stage
            .ask("/any", &[])
            .is_ok_and(|answer| answer["status"] == 403)
    });
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let claims = |more: Value| {
        let until = (now + Duration::from_secs(3600)).as_secs();
        let mut all = json!({"iss": "https://issuer", "sub": "me", "aud": "front", "exp": until});
        all.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        all
    };
    let good = issuer.token(&claims(json!({})));
    let admin = issuer.token(&claims(json!({ "groups": ["users", "admins"] })));
    // Another's claims under a signature that is good for others.
    let (head, signature) = good.rsplit_once('.').unwrap();
    let (_, changed) = admin.rsplit_once('.').unwrap().0.split_once('.').unwrap();
    let forged = format!("{}.{changed}.{signature}", head.split_once('.').unwrap().0);
    let unsigned = URL_SAFE_NO_PAD.encode(json!({"alg": "none"}).to_string());
    let unsigned = format!("{unsigned}.{changed}.");
    let expired = issuer.token(&claims(json!({ "exp": now.as_secs() - 3600 })));
    for (what, token, path, status) in [
        ("good", &good, "/any", 200),
        ("good for less", &good, "/admin", 403),
        ("an admin's", &admin, "/admin", 200),
        ("forged", &forged, "/admin", 401),
        ("unsigned", &unsigned, "/admin", 401),
        ("expired", &expired, "/any", 401),
        (
            "another's key",
            &other.token(&claims(json!({}))),
            "/any",
            401,
        ),
        (
            "another's issuer",
            &issuer.token(&claims(json!({ "iss": "https://x" }))),
            "/any",
            401,
        ),
        (
            "for others",
            &issuer.token(&claims(json!({ "aud": "back" }))),
            "/any",
            403,
        ),
        ("nonsense", &"a.b.c".to_owned(), "/any", 401),
    ] {
        let header = format!("--header=authorization: Bearer {token}");
        for version in [&[][..], &["--http2"]] {
            let forgery = "--header=x-subject: somebody";
            let arguments = [&[header.as_str(), forgery], version].concat();
            let answer = stage.ask(path, &arguments)?;
            check(what, &answer, &[("/status", status.into())]);
            if status == 401 {
                assert!(
                    answer["headers"]["www-authenticate"].is_array(),
                    "{what}: {answer}"
                );
            }
            if status == 200 {
                check(what, &answer, &[("/body/headers/x-subject", json!(["me"]))]);
            }
        }
    }
    check("none", &stage.ask("/any", &[])?, &[("/status", 403.into())]);
    Ok(())
}
