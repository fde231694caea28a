use std::time::UNIX_EPOCH;

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::fuzzing;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn fresh() -> Fresh {
    Fresh {
        trace: TraceId::new([0x11; 16]),
        span: SpanId::new([0x22; 8]),
    }
}

/// What whoever is asked next gets.
fn passed_on(trace: &RequestTrace, mut headers: HeaderMap) -> [Option<String>; 2] {
    trace.insert_into(&mut headers);
    ["traceparent", "tracestate"].map(|name| {
        let all: Vec<_> = headers.get_all(name).iter().collect();
        assert!(all.len() <= 1, "{all:?}");
        all.first().map(|value| value.to_str().unwrap().to_owned())
    })
}

#[test]
fn a_trace_context_is_read_only_if_well_formed() {
    for (version, rest, valid) in [
        ("00", format!("{TRACE}-{PARENT}-01"), true),
        ("00", format!("{TRACE}-{PARENT}-00"), true),
        ("00", format!("{TRACE}-{PARENT}-ff"), true),
        ("cc", format!("{TRACE}-{PARENT}-01"), true),
        ("cc", format!("{TRACE}-{PARENT}-01-"), true),
        ("cc", format!("{TRACE}-{PARENT}-01-more"), true),
        ("cc", format!("{TRACE}-{PARENT}-01.more"), false),
        (
            "cc",
            format!("{TRACE}-{PARENT}-01-{}", "x".repeat(300)),
            false,
        ),
        ("00", format!("{TRACE}-{PARENT}-01-more"), false),
        ("00", format!("{TRACE}-{PARENT}-01-"), false),
        ("ff", format!("{TRACE}-{PARENT}-01"), false),
        ("0", format!("{TRACE}-{PARENT}-01"), false),
        ("00", format!("{}-{PARENT}-01", "0".repeat(32)), false),
        ("00", format!("{TRACE}-{}-01", "0".repeat(16)), false),
        ("00", format!("{}-{PARENT}-01", TRACE.to_uppercase()), false),
        ("00", format!("{TRACE}-{PARENT}-0"), false),
        ("00", format!("{TRACE}-{PARENT}-0g"), false),
        ("00", format!("{TRACE}-{PARENT}"), false),
        ("00", format!("{TRACE}_{PARENT}-01"), false),
        ("00", format!("{TRACE}-{PARENT}_01"), false),
        ("00", format!("{}-{PARENT}-01", &TRACE[1..]), false),
        ("00", String::new(), false),
    ] {
        let text = format!("{version}-{rest}");
        assert_eq!(SpanContext::parse(&text).is_some(), valid, "{text}");
    }
    assert_eq!(SpanContext::parse("00"), None);
    assert_eq!(SpanContext::parse(&"é".repeat(28)), None);
}

#[test]
fn flags_that_are_not_of_version_00_are_dropped() {
    for (flags, written, sampled) in [("00", "00", false), ("01", "01", true), ("fe", "02", false)]
    {
        let context = SpanContext::parse(&format!("cc-{TRACE}-{PARENT}-{flags}-more")).unwrap();
        assert_eq!(context.sampled(), sampled, "{flags}");
        assert_eq!(
            context.to_string(),
            format!("00-{TRACE}-{PARENT}-{written}")
        );
    }
}

#[test]
fn the_callers_decision_holds_whatever_the_share() {
    let all = Sampling::new(1.0).unwrap();
    let none = Sampling::new(0.0).unwrap();
    let parent = |flags: &str| format!("00-{TRACE}-{PARENT}-{flags}");
    let child = format!("00-{TRACE}-2222222222222222-01");
    let begun = |flags: &str| format!("00-{}-2222222222222222-{flags}", "1".repeat(32));
    for (came, sampling, recorded, goes) in [
        (Some(parent("01")), none, true, child),
        (Some(parent("00")), all, false, parent("00")),
        (None, all, true, begun("03")),
        (None, none, false, begun("02")),
        (Some("garbage".to_owned()), all, true, begun("03")),
    ] {
        let headers = match &came {
            Some(text) => headers(&[("traceparent", text)]),
            None => HeaderMap::new(),
        };
        let trace = RequestTrace::begin(&headers, sampling, fresh(), UNIX_EPOCH);
        assert_eq!(trace.recorded().is_some(), recorded, "{came:?}");
        assert_eq!(
            passed_on(&trace, headers)[0].as_ref(),
            Some(&goes),
            "{came:?}"
        );
    }
}

#[test]
fn where_nothing_is_recorded_headers_pass_as_they_came() {
    for came in [
        headers(&[("traceparent", "garbage"), ("tracestate", "=")]),
        headers(&[("traceparent", &format!("cc-{TRACE}-{PARENT}-01-more"))]),
        HeaderMap::new(),
    ] {
        let mut goes = came.clone();
        Tracer::default().begin(&came).insert_into(&mut goes);
        assert_eq!(goes, came);
    }
}

#[test]
fn a_span_knows_its_parent() {
    let headers = headers(&[("traceparent", &format!("00-{TRACE}-{PARENT}-01"))]);
    let trace = RequestTrace::begin(&headers, Sampling::default(), fresh(), UNIX_EPOCH);
    let own = trace.recorded().unwrap();
    assert_eq!(own.parent.unwrap().to_string(), PARENT);
    assert_eq!(own.context.span.trace.to_string(), TRACE);
    assert_eq!(trace.id().unwrap().to_string(), TRACE);
}

#[test]
fn the_state_of_a_trace_goes_with_it_if_it_is_as_it_should_be() {
    let many = |count: usize| {
        let members: Vec<_> = (0..count).map(|index| format!("k{index}=v")).collect();
        members.join(",")
    };
    let parent = format!("00-{TRACE}-{PARENT}-01");
    let long_value = format!("a={}", "x".repeat(256));
    let long_key = format!("{}=x", "a".repeat(257));
    for (state, goes) in [
        (&["a=1"][..], Some("a=1")),
        (
            &["a=1,tenant@system=2 3", "c_-*/=~"],
            Some("a=1,tenant@system=2 3,c_-*/=~"),
        ),
        (&["a=1 ,\t b=2,,"], Some("a=1 ,\t b=2,,")),
        (&[&many(32)], Some(&*many(32))),
        (&[&long_value], Some(&*long_value)),
        (&[&many(33)], None),
        (&[&format!("{long_value}x")], None),
        (&[&long_key], None),
        (&["a=1,a=2"], None),
        (&["A=1"], None),
        (&["a"], None),
        (&["a="], None),
        (&["=1"], None),
        (&["a=b=c"], None),
        (&[","], None),
        (&[""], None),
    ] {
        let mut came = headers(&[("traceparent", &parent)]);
        for value in state {
            came.append("tracestate", HeaderValue::from_str(value).unwrap());
        }
        let trace = RequestTrace::begin(&came, Sampling::default(), fresh(), UNIX_EPOCH);
        assert_eq!(passed_on(&trace, came)[1].as_deref(), goes, "{state:?}");
    }
}

#[test]
fn a_state_without_its_trace_is_worth_nothing() {
    let parent = format!("00-{TRACE}-{PARENT}-01");
    for came in [
        headers(&[("tracestate", "a=1")]),
        headers(&[("traceparent", "garbage"), ("tracestate", "a=1")]),
        headers(&[
            ("traceparent", &parent),
            ("traceparent", &parent),
            ("tracestate", "a=1"),
        ]),
    ] {
        let trace = RequestTrace::begin(&came, Sampling::default(), fresh(), UNIX_EPOCH);
        assert_eq!(trace.id(), Some(fresh().trace));
        assert_eq!(passed_on(&trace, came)[1], None);
    }
}

#[test]
fn a_share_is_from_0_to_1() {
    for (share, valid) in [
        (0.0, true),
        (0.01, true),
        (1.0, true),
        (1.01, false),
        (-0.01, false),
        (f64::NAN, false),
        (f64::INFINITY, false),
    ] {
        assert_eq!(Sampling::new(share).is_some(), valid, "{share}");
    }
}

/// Text that is nearly a trace context, so that all branches are met.
fn near_traceparent() -> impl Strategy<Value = String> {
    (
        "[0-9a-f]{2}|0|00|ff",
        "[0-9a-f]{30,33}|0{32}",
        "[0-9a-f]{15,17}|0{16}",
        "[0-9a-fA-F]{1,3}",
        "(-.{0,9})?|x",
    )
        .prop_map(|(version, trace, span, flags, more)| {
            format!("{version}-{trace}-{span}-{flags}{more}")
        })
}

fn near_tracestate() -> impl Strategy<Value = String> {
    vec("[a-c0@A]{0,3}[= ]{0,2}[ -~]{0,4}[ \t]?", 0..40).prop_map(|members| members.join(","))
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(
        trace in any::<[u8; 16]>(),
        span in any::<[u8; 8]>(),
        sampled in any::<bool>(),
        child in any::<[u8; 8]>(),
    ) {
        let context = SpanContext::begin(TraceId::new(trace), SpanId::new(span), sampled);
        prop_assert_eq!(SpanContext::parse(&context.to_string()), Some(context));
        let child = context.child(SpanId::new(child));
        prop_assert_eq!(SpanContext::parse(&child.to_string()), Some(child));
        prop_assert_eq!(child.trace, context.trace);
    }

    #[test]
    fn what_is_read_is_written_and_read_alike(text in prop_oneof![".{0,80}", near_traceparent()]) {
        fuzzing::headers::check_traceparent(&text);
    }

    #[test]
    fn any_headers_are_tolerated_and_good_ones_go_on(
        parents in vec(prop_oneof![vec(any::<u8>(), 0..80), near_traceparent().prop_map(String::into_bytes)], 0..3),
        states in vec(prop_oneof![vec(any::<u8>(), 0..80), near_tracestate().prop_map(String::into_bytes)], 0..3),
    ) {
        let mut came = HeaderMap::new();
        for (name, values) in [("traceparent", parents), ("tracestate", states)] {
            for value in values {
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    came.append(HeaderName::from_static(name), value);
                }
            }
        }
        fuzzing::headers::check_trace(&came);
    }

    #[test]
    fn a_greater_share_takes_all_that_a_smaller_one_does(
        trace in any::<[u8; 16]>(),
        smaller in 0.0..=1.0_f64,
        greater in 0.0..=1.0_f64,
    ) {
        let (smaller, greater) = (smaller.min(greater), smaller.max(greater));
        let takes = |share| Sampling::new(share).unwrap().takes(TraceId::new(trace));
        prop_assert!(takes(greater) || !takes(smaller));
        prop_assert!(takes(1.0));
        prop_assert!(!takes(0.0));
    }
}
