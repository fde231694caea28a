//! What must hold of any input.

use ipnet::IpNet;
use proptest::{collection::vec, prelude::*, sample::Index};
use serde_json::{Value, json};

use super::{
    super::values::{Principal, Readable},
    authorization_policy, peer_authentication,
};
use crate::{fuzzing::manifest::places, policy::model::Pattern};

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z*/.:0-9 ]{0,8}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    let keys = prop::sample::select(vec![
        "metadata",
        "name",
        "spec",
        "rules",
        "from",
        "source",
        "principals",
        "to",
        "operation",
        "ports",
        "when",
        "key",
        "values",
        "selector",
        "matchLabels",
        "mtls",
        "mode",
        "zzz",
    ]);
    leaf.prop_recursive(6, 48, 4, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((keys.clone(), inner), 0..4).prop_map(|fields| {
                let fields = fields.into_iter();
                fields.map(|(key, value)| (key.to_owned(), value)).collect()
            }),
        ]
    })
}

fn valid() -> Value {
    json!({
        "metadata": { "name": "p", "namespace": "foo" },
        "spec": {
            "selector": { "matchLabels": { "app": "httpbin" } },
            "action": "DENY",
            "rules": [{
                "from": [{ "source": { "principals": ["a"], "ipBlocks": ["10.0.0.0/8"] } }],
                "to": [{ "operation": { "ports": ["80"], "methods": ["GET"] } }],
                "when": [{ "key": "source.ip", "values": ["10.0.0.0/8"] }],
            }],
        },
    })
}

proptest! {
    #[test]
    fn any_input_is_read_or_refused(value in any_json()) {
        let _ = authorization_policy(value.clone());
        let _ = peer_authentication(value);
    }

    #[test]
    fn a_change_anywhere_is_read_or_refused_by_name(place in any::<Index>(), change in any_json()) {
        let mut value = valid();
        let mut found = Vec::new();
        places(&value, "", &mut found);
        let place = place.get(&found);
        prop_assume!(!place.is_empty() && !place.starts_with("/metadata"));
        *value.pointer_mut(place).unwrap() = change;
        if let Err(error) = authorization_policy(value) {
            let text = error.to_string();
            prop_assert!(text.starts_with("AuthorizationPolicy foo/p: spec"), "{}", text);
        }
    }

    #[test]
    fn a_field_that_is_not_known_is_refused_anywhere(place in any::<Index>()) {
        let mut value = valid();
        let mut found = Vec::new();
        places(&value, "", &mut found);
        found.retain(|place| value.pointer(place).is_some_and(Value::is_object));
        // Both take any key.
        found.retain(|place| place != "/metadata" && !place.ends_with("/matchLabels"));
        let place = place.get(&found);
        value.pointer_mut(place).unwrap()["typo"] = json!(["a"]);
        let error = authorization_policy(value).unwrap_err().to_string();
        prop_assert!(error.contains("unknown field `typo`"), "{}", error);
    }

    #[test]
    fn a_port_is_a_number_from_1_to_65535_in_its_usual_spelling(text in "[+ 0-9a]{0,6}") {
        let number = text.parse::<u64>().ok().filter(|number| number.to_string() == text);
        let port = number.and_then(|number| u16::try_from(number).ok()).filter(|port| *port != 0);
        prop_assert_eq!(u16::read(&text).ok(), port);
    }

    #[test]
    fn a_pattern_is_written_as_it_is_read(text in "[ab*/]{0,5}") {
        if let Ok(pattern) = Pattern::read(&text) {
            prop_assert_eq!(pattern.to_string(), text);
        }
    }

    #[test]
    fn a_pattern_without_wildcard_fits_itself_alone(text in "[a-c]{1,3}", other in "[a-c]{1,3}") {
        let Principal(pattern) = Principal::read(&text).unwrap();
        prop_assert!(pattern.fits(&text));
        prop_assert_eq!(pattern.fits(&other), text == other);
    }

    #[test]
    fn every_network_is_read(address in any::<std::net::IpAddr>(), length in 0..=128_u8) {
        let length = if address.is_ipv4() { length % 33 } else { length };
        let network = IpNet::new(address, length).unwrap();
        let read = IpNet::read(&network.to_string()).unwrap();
        prop_assert!(read.contains(&address.to_canonical()) || read.contains(&address));
        prop_assert_eq!(read, read.trunc());
    }
}
