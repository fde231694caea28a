use proptest::prelude::*;
use serde_norway::Value;

use super::*;

const EXAMPLE: &str = include_str!("../../../../deploy/bench/example.yaml");
const SHORT: &str = "{name: mine, command: [proxy], ready: {port: 15021}}";

#[test]
fn the_files_that_come_with_the_benchmark_are_adapters() {
    assert_eq!(haproxy().name(), "haproxy");
    assert_eq!(haproxy_http().name(), "haproxy-http");
    assert_eq!(envoy().name(), "envoy");
    assert_eq!(
        Adapter::parse("example.yaml", EXAMPLE).unwrap().name(),
        "example"
    );
}

#[test]
fn the_example_explains_every_placeholder() {
    for name in template::NAMES {
        assert!(EXAMPLE.contains(&format!("{{{name}}}")), "{name}");
    }
}

#[test]
fn what_is_left_out_has_the_documented_default() {
    let adapter = Adapter::parse("f", SHORT).unwrap();
    assert_eq!(
        (
            adapter.user,
            adapter.ipv6,
            adapter.http,
            adapter.configuration.as_str()
        ),
        (User::Proxy, false, false, "")
    );
    assert!(adapter.environment.is_empty() && adapter.ready.path.is_none());
}

#[test]
fn errors_name_file_field_and_cure() {
    let with = |from: &str, to: &str| SHORT.replace(from, to);
    let table = [
        (with("mine", "My_proxy"), ["f: name: ", "use 1 to 40"]),
        (with("mine", "haproxy"), ["f: name: ", "take another"]),
        (
            with("name: mine, ", ""),
            ["missing field `name`", "example.yaml"],
        ),
        (
            with("[proxy]", "[]"),
            ["f: command: ", "begin with the program"],
        ),
        (with("[proxy]", "proxy"), ["f: command: ", "example.yaml"]),
        (
            with("proxy]", "proxy, '{port}']"),
            ["f: command: there is no placeholder {port}", "inbound_port"],
        ),
        (
            with("15021}", "15021}, environment: {A: '{b}'}"),
            ["f: environment: ", "{b}"],
        ),
        (
            with("15021}", "15021}, configuration: '{configuration}'"),
            ["f: configuration: ", "{configuration}"],
        ),
        (with("15021", "15006"), ["f: ready.port: ", "15021"]),
        (with("15021", "99999"), ["f: ready.port: ", "example.yaml"]),
        (
            with("15021", "15021, path: ready"),
            ["f: ready.path: ", "begins with /"],
        ),
        (with("15021", "15021, paht: /"), ["f: ready", "paht"]),
        (
            with("15021}", "15021}, user: nobody"),
            ["f: user: ", "nobody"],
        ),
        ("{".into(), ["f: ", "example.yaml"]),
    ];
    for (text, parts) in table {
        let error = Adapter::parse("f", &text).unwrap_err().to_string();
        assert!(error.starts_with("f: "), "{error}");
        for part in parts {
            assert!(error.contains(part), "{text}: {error:?} lacks {part:?}");
        }
    }
    let absent = Adapter::read(Path::new("/nonexistent/a.yaml"))
        .unwrap_err()
        .to_string();
    assert!(absent.starts_with("/nonexistent/a.yaml: "), "{absent}");
}

#[test]
fn envoys_configuration_is_one_that_asks_for_certificates_on_both_sides() {
    let text = template::fill(&envoy().configuration, |name| match name {
        "inbound_port" | "outbound_port" | "ready_port" => Some("15021"),
        "mesh_prefix_ranges" => Some(r#"[{"address_prefix":"10.77.0.0","prefix_len":16}]"#),
        _ => Some("filled"),
    });
    let mut filled: Value = serde_norway::from_str(&text.unwrap()).unwrap();
    filled.apply_merge().unwrap();
    let at = |path: &str| {
        path.split('/')
            .fold(&filled, |value, part| match part.parse::<usize>() {
                Ok(index) => &value[index],
                Err(_) => &value[part],
            })
    };
    let listeners = "static_resources/listeners";
    let mesh = "static_resources/clusters/0";
    let tls = "transport_socket/typed_config";
    let table = [
        (
            format!("{listeners}/1/filter_chains/0/{tls}/require_client_certificate"),
            "true",
        ),
        (
            format!("{listeners}/1/filter_chains/1/{tls}/require_client_certificate"),
            "true",
        ),
        (
            format!("{listeners}/0/filter_chains/0/filter_chain_match/prefix_ranges/0/prefix_len"),
            "16",
        ),
        (format!("{mesh}/type"), "ORIGINAL_DST"),
        (
            format!("{mesh}/{tls}/common_tls_context/tls_params/tls_minimum_protocol_version"),
            "TLSv1_3",
        ),
        (
            format!("{mesh}/{tls}/common_tls_context/validation_context/trusted_ca/filename"),
            "filled",
        ),
        (
            "static_resources/clusters/2/upstream_bind_config/source_address/address".into(),
            "filled",
        ),
    ];
    for (path, expected) in table {
        let found = serde_norway::to_string(at(&path)).unwrap();
        assert_eq!(found.trim(), expected, "{path}");
    }
    // A client's own settings, not a server's.
    assert!(at(&format!("{mesh}/{tls}/require_client_certificate")).is_null());
}

proptest! {
    #[test]
    fn any_text_is_an_adapter_or_an_error_that_names_the_file(text in "[a-z{}\\[\\]:, \n'0-9]{0,60}") {
        if let Err(error) = Adapter::parse("f", &text) {
            prop_assert!(error.to_string().starts_with("f: "));
        }
    }
}
