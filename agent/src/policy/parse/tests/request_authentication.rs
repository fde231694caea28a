//! What is read of a RequestAuthentication.

use std::time::Duration;

use serde_json::{Value, json};

use super::{object, refuses};
use crate::policy::{
    jwt::testing::{Signer, key_set},
    model::{JwtRule, KeySource, TokenPlace},
    parse::request_authentication,
};

fn rule(fields: &Value) -> JwtRule {
    let mut object = object("{selector: {matchLabels: {app: web}}}");
    object["spec"]["jwtRules"] = json!([fields]);
    let policy = request_authentication(object).unwrap();
    policy.rules.into_iter().next().unwrap()
}

#[test]
fn every_field_of_a_rule_is_read() {
    let keys = key_set(&[Signer::new("a").jwk()]);
    let rule = rule(&json!({
        "issuer": "https://issuer", "audiences": ["a"], "jwks": keys,
        "fromHeaders": [{ "name": "X-Token", "prefix": "T " }], "fromParams": ["p"],
        "fromCookies": ["c"], "forwardOriginalToken": true, "outputPayloadToHeader": "x-payload",
        "outputClaimToHeaders": [{ "header": "x-group", "claim": "nested.group" }],
        "timeout": "1.5s", "presence": "REQUIRED", "spaceDelimitedClaims": ["roles"],
    }));
    assert!(matches!(rule.keys, KeySource::Inline(_)));
    assert_eq!(
        rule.places,
        [
            TokenPlace::Header {
                name: "x-token".parse().unwrap(),
                prefix: "T ".to_owned()
            },
            TokenPlace::Parameter("p".to_owned()),
            TokenPlace::Cookie("c".to_owned()),
        ]
    );
    assert!(rule.keeps_token && rule.is_required);
    assert_eq!(rule.payload_to.unwrap(), "x-payload");
    assert_eq!(rule.claims_to[0].1, ["nested", "group"]);
    assert_eq!(rule.timeout, Duration::from_millis(1500));
    assert_eq!(rule.word_lists, ["roles"]);
}

#[test]
fn what_is_not_said_is_as_istio_has_it() {
    let bearer = TokenPlace::Bearer;
    let parameter = TokenPlace::Parameter("access_token".to_owned());
    let discovered = rule(&json!({ "issuer": "https://issuer/" }));
    let url = "https://issuer/.well-known/openid-configuration";
    assert_eq!(discovered.keys, KeySource::Discovered(url.into()));
    assert_eq!(discovered.places, [bearer.clone(), parameter]);
    assert!(!discovered.keeps_token && !discovered.is_required);
    for uri in ["jwksUri", "jwks_uri"] {
        let rule = rule(&json!({ "issuer": "i", uri: "http://a/keys" }));
        assert_eq!(rule.keys, KeySource::Url("http://a/keys".into()));
    }
    // The usual way to write the default.
    let header = json!({ "name": "Authorization", "prefix": "Bearer " });
    let rule = rule(&json!({ "issuer": "i", "jwksUri": "http://a", "fromHeaders": [header] }));
    assert_eq!(rule.places, [bearer]);
}

#[test]
fn a_wrong_rule_is_refused_by_path() {
    let path = "RequestAuthentication foo/p: spec.jwtRules[0]";
    for (rule, problem) in [
        ("{}", "missing field `issuer`"),
        ("{issuer: ''}", ".issuer: the string is empty"),
        (
            "{issuer: i}",
            "issuer \"i\" is no URL that could tell its keys: write jwks or jwksUri",
        ),
        (
            "{issuer: i, jwksUri: 'ftp://a'}",
            ".jwksUri: \"ftp://a\" is no URL",
        ),
        ("{issuer: i, jwksUri: a}", ".jwksUri: \"a\" is no URL"),
        (
            "{issuer: i, jwksUri: 'https://u@a'}",
            ".jwksUri: \"https://u@a\" is no URL",
        ),
        ("{issuer: i, jwks: abc}", ".jwks: not a JSON Web Key Set"),
        (
            "{issuer: i, jwks: '{\"keys\": []}'}",
            ".jwks: none of its 0 keys",
        ),
        (
            "{issuer: i, jwksUri: 'http://a', audiences: []}",
            ".audiences: the list is empty",
        ),
        (
            "{issuer: i, jwksUri: 'http://a', timeout: '0s'}",
            ".timeout: \"0s\" is no time between",
        ),
        (
            "{issuer: i, jwksUri: 'http://a', timeout: '2h'}",
            ".timeout: \"2h\" is no time between",
        ),
        (
            "{issuer: i, jwksUri: 'http://a', timeout: x}",
            ".timeout: \"x\" is no time between",
        ),
        (
            "{issuer: i, jwksUri: 'http://a', presence: x}",
            ".presence: \"x\" is neither",
        ),
        (
            "{issuer: i, jwksUri: 'http://a', fromHeaders: [{name: 'a b'}]}",
            "can't be the name of a header",
        ),
        (
            "{issuer: i, jwksUri: 'http://a', outputClaimToHeaders: [{header: x}]}",
            "missing field `claim`",
        ),
        ("{issuer: i, audience: [a]}", "unknown field `audience`"),
    ] {
        let spec = format!("{{jwtRules: [{rule}]}}");
        refuses(request_authentication(object(&spec)), path);
        refuses(request_authentication(object(&spec)), problem);
    }
    refuses(
        request_authentication(object(
            "{selector: {}, targetRef: {kind: Service, name: a}}",
        )),
        "spec: only one of selector",
    );
}
