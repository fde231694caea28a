//! What becomes of requests with tokens.

use std::sync::Arc;

use http::{Request, StatusCode, request::Parts};
use serde_json::{Value, json};

use super::{AuthenticationError, Authenticator, TokenError, still_holds};
use crate::policy::{
    jwt::testing::{Signer, key_set},
    model::RequestAuthentication,
    parse::request_authentication,
};

const ISSUER: &str = "https://issuer";

/// A RequestAuthentication with one rule for an issuer, and more fields of it.
fn policy(issuer: &str, signer: &Signer, more: Value) -> Arc<RequestAuthentication> {
    let mut rule = json!({ "issuer": issuer, "jwks": key_set(&[signer.jwk()]) });
    let more = more.as_object().unwrap().clone();
    rule.as_object_mut().unwrap().extend(more);
    let object = json!({ "metadata": { "name": "p" }, "spec": { "jwtRules": [rule] } });
    Arc::new(request_authentication(object).unwrap())
}

fn request(uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

/// Who made the request, and what is left of it.
async fn judge(
    policies: &[Arc<RequestAuthentication>],
    uri: &str,
    headers: &[(&str, &str)],
) -> (Result<Option<String>, AuthenticationError>, String) {
    let mut request = request(uri, headers);
    let told = Authenticator::default()
        .authenticate(policies, &mut request)
        .await;
    let mut left = vec![request.uri.to_string()];
    let headers = request.headers.iter();
    left.extend(headers.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())));
    let principal = told.map(|token| token.map(|token| token.principal().unwrap_or_default()));
    (principal, left.join(" | "))
}

#[tokio::test]
async fn a_token_says_who_and_is_taken_out_unless_it_is_to_be_forwarded() {
    let signer = Signer::new("a");
    let token = signer.token(&json!({ "iss": ISSUER, "sub": "me" }));
    let me = Ok(Some("https://issuer/me".to_owned()));
    let bearer = format!("Bearer {token}");
    let lower = format!("bEARER\t{token}");
    let basic = "Basic dXNlcjpwYXNz";
    let plain = policy(ISSUER, &signer, json!({}));
    let keeps = policy(ISSUER, &signer, json!({ "forwardOriginalToken": true }));
    let header = policy(
        ISSUER,
        &signer,
        json!({ "fromHeaders": [{ "name": "x-t", "prefix": "T " }] }),
    );
    let cookie = policy(ISSUER, &signer, json!({ "fromCookies": ["t"] }));
    let parameter = policy(ISSUER, &signer, json!({ "fromParams": ["t"] }));
    let (in_query, in_cookie) = (
        format!("/?a=1&t={token}&b=2"),
        format!("a=1; t={token};b=2"),
    );
    for (policy, uri, headers, who, left) in [
        (
            &plain,
            "/",
            vec![("authorization", &*bearer)],
            me.clone(),
            "/".to_owned(),
        ),
        (
            &plain,
            "/",
            vec![("authorization", &*lower)],
            me.clone(),
            "/".to_owned(),
        ),
        (
            &plain,
            &format!("/p?access_token={token}"),
            vec![],
            me.clone(),
            "/p".to_owned(),
        ),
        (
            &keeps,
            "/",
            vec![("authorization", &*bearer)],
            me.clone(),
            format!("/ | authorization: {bearer}"),
        ),
        (
            &plain,
            "/",
            vec![("authorization", basic)],
            Ok(None),
            format!("/ | authorization: {basic}"),
        ),
        (
            &plain,
            "/",
            vec![("x-t", &*token)],
            Ok(None),
            format!("/ | x-t: {token}"),
        ),
        (
            &header,
            "/",
            vec![("x-t", &*format!("T {token}"))],
            me.clone(),
            "/".to_owned(),
        ),
        (
            &header,
            "/",
            vec![("x-t", &*token)],
            Ok(None),
            format!("/ | x-t: {token}"),
        ),
        (
            &header,
            "/",
            vec![("authorization", &*bearer)],
            Ok(None),
            format!("/ | authorization: {bearer}"),
        ),
        (
            &cookie,
            "/",
            vec![("cookie", &*in_cookie)],
            me.clone(),
            "/ | cookie: a=1; b=2".to_owned(),
        ),
        (
            &cookie,
            "/",
            vec![("cookie", &*format!("t={token}"))],
            me.clone(),
            "/".to_owned(),
        ),
        (
            &parameter,
            &in_query,
            vec![],
            me.clone(),
            "/?a=1&b=2".to_owned(),
        ),
        (
            &parameter,
            &format!("http://h/p?t={token}"),
            vec![],
            me.clone(),
            "http://h/p".to_owned(),
        ),
        (
            &parameter,
            "/?tt=1&t",
            vec![],
            Ok(None),
            "/?tt=1&t".to_owned(),
        ),
    ] {
        let told = judge(std::slice::from_ref(policy), uri, &headers).await;
        assert_eq!(told, (who, left), "{uri} {headers:?}");
    }
}

#[tokio::test]
async fn a_bad_token_is_refused_whatever_else_the_request_has() {
    let (signer, stranger) = (Signer::new("a"), Signer::new("a"));
    let claims = json!({ "iss": ISSUER, "sub": "me" });
    let good = format!("Bearer {}", signer.token(&claims));
    let forged = format!("Bearer {}", stranger.token(&claims));
    let other = format!(
        "Bearer {}",
        signer.token(&json!({ "iss": "https://other" }))
    );
    let in_query = format!("/?access_token={}", stranger.token(&claims));
    let twice = format!("/?access_token={0}&access_token={0}", signer.token(&claims));
    let invalid = |error| Err(AuthenticationError::Invalid(error));
    let policies = [policy(ISSUER, &signer, json!({}))];
    for (uri, headers, expected) in [
        (
            "/",
            vec![("authorization", &*forged)],
            invalid(TokenError::Signature),
        ),
        (
            "/",
            vec![("authorization", &*other)],
            invalid(TokenError::UnknownIssuer),
        ),
        (
            "/",
            vec![("authorization", "Bearer opaque")],
            invalid(TokenError::Malformed),
        ),
        (
            "/",
            vec![("authorization", "Bearer ")],
            invalid(TokenError::Malformed),
        ),
        (
            &*in_query,
            vec![("authorization", &*good)],
            invalid(TokenError::Signature),
        ),
        (&*twice, vec![], Err(AuthenticationError::Several)),
        (
            "/",
            vec![("authorization", &*good), ("authorization", &*forged)],
            Err(AuthenticationError::Several),
        ),
        (
            "/",
            vec![("authorization", &*good), ("authorization", "Basic x")],
            Err(AuthenticationError::Several),
        ),
    ] {
        let (told, _) = judge(&policies, uri, &headers).await;
        assert_eq!(told, expected, "{uri} {headers:?}");
    }
}

#[tokio::test]
async fn rules_for_several_issuers_stand_side_by_side() {
    let (a, b) = (Signer::new("a"), Signer::new("a"));
    let policies = [
        policy("https://a", &a, json!({})),
        policy("https://b", &b, json!({ "audiences": ["x"] })),
        policy("https://b", &b, json!({ "audiences": ["y"] })),
    ];
    let sign = |signer: &Signer, issuer: &str, audience: &str| {
        let claims = json!({ "iss": issuer, "sub": "s", "aud": audience });
        format!("Bearer {}", signer.token(&claims))
    };
    for (token, expected) in [
        (
            sign(&a, "https://a", "x"),
            Ok(Some("https://a/s".to_owned())),
        ),
        (
            sign(&b, "https://b", "x"),
            Ok(Some("https://b/s".to_owned())),
        ),
        (
            sign(&b, "https://b", "y"),
            Ok(Some("https://b/s".to_owned())),
        ),
        (sign(&b, "https://b", "z"), Err(TokenError::Audience.into())),
        // The key of one issuer signs nothing for another, though both call it the same.
        (
            sign(&a, "https://b", "x"),
            Err(TokenError::Signature.into()),
        ),
    ] {
        let (told, _) = judge(&policies, "/", &[("authorization", &token)]).await;
        assert_eq!(told, expected);
    }
}

#[tokio::test]
async fn only_a_token_sets_the_headers_that_tell_of_it() {
    let signer = Signer::new("a");
    let claims = json!({ "iss": ISSUER, "sub": "me", "nested": { "group": "g" }, "n": 1 });
    let token = signer.token(&claims);
    let payload = token.split('.').nth(1).unwrap();
    let bearer = format!("Bearer {token}");
    let policies = [policy(
        ISSUER,
        &signer,
        json!({
            "outputPayloadToHeader": "x-payload",
            "outputClaimToHeaders": [
                { "header": "x-group", "claim": "nested.group" },
                { "header": "x-n", "claim": "n" },
                { "header": "x-missing", "claim": "missing" },
            ],
        }),
    )];
    let forged = [
        ("x-payload", "forged"),
        ("x-group", "admin"),
        ("x_group", "admin"),
        ("x-missing", "forged"),
        ("x-other", "stays"),
    ];
    let (_, left) = judge(&policies, "/", &forged).await;
    assert_eq!(left, "/ | x-other: stays");
    let mut signed = forged.to_vec();
    signed.push(("authorization", &bearer));
    let (_, left) = judge(&policies, "/", &signed).await;
    for part in [
        "x-other: stays",
        &format!("x-payload: {payload}"),
        "x-group: g",
        "x-n: 1",
    ] {
        assert!(left.contains(part), "{left}");
    }
    for part in ["forged", "admin"] {
        assert!(!left.contains(part), "{left}");
    }
}

#[tokio::test]
async fn a_token_that_must_be_there_is_asked_for() {
    let signer = Signer::new("a");
    let required = policy(ISSUER, &signer, json!({ "presence": "REQUIRED" }));
    let (told, _) = judge(&[required], "/", &[]).await;
    assert_eq!(told, Err(AuthenticationError::Missing));
}

#[test]
fn refusals_are_answered_as_clients_expect() {
    let challenge = "Bearer realm=\"shop:80\"";
    for (error, status, expected) in [
        (
            AuthenticationError::Missing,
            StatusCode::UNAUTHORIZED,
            Some(challenge.to_owned()),
        ),
        (
            TokenError::Expired.into(),
            StatusCode::UNAUTHORIZED,
            Some(format!("{challenge}, error=\"invalid_token\"")),
        ),
        (TokenError::Audience.into(), StatusCode::FORBIDDEN, None),
    ] {
        assert_eq!(error.status(), status);
        let told = error.challenge("s\"h\r\nop:80");
        assert_eq!(told.map(|it| it.to_str().unwrap().to_owned()), expected);
    }
}

#[tokio::test]
async fn a_token_in_use_counts_for_as_long_as_its_issuer_is_trusted_for_its_audience() {
    let signer = Signer::new("a");
    let signed = signer.token(&json!({ "iss": ISSUER, "sub": "me", "aud": ["shop"] }));
    let of = |issuer: &str, more: Value| policy(issuer, &signer, more);
    let trusted = of(ISSUER, json!({}));
    let mut request = request("/", &[("authorization", &format!("Bearer {signed}"))]);
    let authenticator = Authenticator::default();
    let told = authenticator.authenticate(std::slice::from_ref(&trusted), &mut request);
    let token = told.await.unwrap().unwrap();
    let (token, none) = (Some(&token), None);
    let audience = |name: &str| json!({ "audiences": [name] });
    let required = json!({ "presence": "REQUIRED" });
    let unknown = || Err(TokenError::UnknownIssuer.into());
    for (what, policies, before, expected) in [
        ("as it was", vec![trusted.clone()], token, Ok(token)),
        ("nobody is trusted", vec![], token, Ok(none)),
        (
            "another is",
            vec![of("https://other", json!({}))],
            token,
            unknown(),
        ),
        (
            "another is too",
            vec![of("https://other", json!({})), trusted.clone()],
            token,
            Ok(token),
        ),
        (
            "for it",
            vec![of(ISSUER, audience("shop"))],
            token,
            Ok(token),
        ),
        (
            "for others",
            vec![of(ISSUER, audience("bank"))],
            token,
            Err(TokenError::Audience.into()),
        ),
        ("there was none", vec![trusted], none, Ok(none)),
        (
            "there must be one",
            vec![of(ISSUER, required)],
            none,
            Err(AuthenticationError::Missing),
        ),
    ] {
        assert_eq!(still_holds(&policies, before), expected, "{what}");
    }
}
