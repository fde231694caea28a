//! `ambit status`.

mod readiness;

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;

use super::{
    operator::Ask,
    table::{distance, printable, span},
};
use crate::admin::{
    CaptureView, CertificatesView, SourceView, SpliceView, StatusView, TunnelsView,
};

/// Pods that are named one by one; `-o json` has them all.
const NAMED: usize = 20;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Instead: which clients STRICT would break, by the plaintext that came for this node's pods since its
    /// agent began.
    #[arg(long)]
    readiness: bool,
    #[command(flatten)]
    ask: Ask,
}

pub(super) async fn run(arguments: Arguments) -> Result<()> {
    if arguments.readiness {
        return readiness::run(&arguments.ask).await;
    }
    let status: StatusView = arguments.ask.agent().ask("status").await?;
    let now = Timestamp::now();
    arguments.ask.show(&status, |status| text(status, now))
}

/// A line for each subject, and one more for each pod that waits.
fn text(status: &StatusView, now: Timestamp) -> String {
    let mut lines = vec![
        (
            "Agent",
            format!("{} on node {}", status.version, status.node),
        ),
        ("Uptime", span(status.uptime_seconds)),
        ("Ready", ready(status)),
        ("Source", source(&status.source)),
        ("Pods", pods(&status.capture)),
    ];
    let waiting = &status.capture.waiting;
    for pod in waiting.iter().take(NAMED) {
        lines.push(("", format!("{} waits: {}", pod.name, pod.reason)));
    }
    if let Some(more @ 1..) = waiting.len().checked_sub(NAMED) {
        lines.push(("", format!("and {more} more wait; -o json names them all")));
    }
    lines.extend([
        ("Maps", maps(&status.capture)),
        ("Splice", splice(&status.splice)),
        ("Connections", format!("{} open", status.connections)),
        ("Tunnels", tunnels(&status.tunnels)),
        ("Certificates", certificates(&status.certificates, now)),
        ("Problems", problems(status.problems)),
    ]);
    let line = |(subject, text): (&str, String)| {
        let subject = match subject {
            "" => String::new(),
            _ => format!("{subject}:"),
        };
        format!("{subject:14}{}\n", printable(text))
    };
    lines.into_iter().map(line).collect()
}

fn ready(status: &StatusView) -> String {
    let missing: Vec<&str> = status.missing().collect();
    match missing.is_empty() {
        true => "yes".to_owned(),
        false => format!("no, waits for: {}", missing.join(", ")),
    }
}

fn source(source: &SourceView) -> String {
    let SourceView { kind, location, .. } = source;
    match &source.reason {
        _ if source.in_sync => format!("{kind} {location}, in sync"),
        Some(reason) => format!("{kind} {location}, not in sync: {reason}"),
        None => format!("{kind} {location}, not in sync"),
    }
}

fn pods(capture: &CaptureView) -> String {
    let CaptureView {
        enrolled_pods,
        captured_pods,
        ..
    } = capture;
    format!("{enrolled_pods} of this node enrolled, {captured_pods} captured")
}

fn maps(capture: &CaptureView) -> String {
    match capture.entries_left_out {
        0 => "hold every address and service".to_owned(),
        left_out => format!(
            "have no room for {left_out} addresses and services: every connection of enrolled pods \
             is captured"
        ),
    }
}

fn splice(splice: &SpliceView) -> String {
    match &splice.reason {
        _ if splice.active => "on".to_owned(),
        Some(reason) => format!("off: {reason}"),
        None => "off".to_owned(),
    }
}

fn tunnels(tunnels: &TunnelsView) -> String {
    let TunnelsView { outbound, inbound } = tunnels;
    format!("{outbound} open to other agents, {inbound} from them")
}

fn certificates(certificates: &CertificatesView, now: Timestamp) -> String {
    let CertificatesView {
        valid,
        missing,
        failing,
        ..
    } = certificates;
    let mut text = format!("{valid} valid, {missing} missing, {failing} failing");
    let soonest = certificates.soonest_expiry.as_ref();
    if let Some(soonest) = soonest.and_then(|text| text.parse().ok()) {
        text += &format!("; the first expires {}", distance(soonest, now));
    }
    if missing + failing > 0 {
        text += "; `ambit certificates` says why";
    }
    text
}

fn problems(count: usize) -> String {
    match count {
        0 => "none".to_owned(),
        1 => "1 object can't be used as it is; see `ambit problems`".to_owned(),
        _ => format!("{count} objects can't be used as they are; see `ambit problems`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::WaitingPodView;

    fn well() -> StatusView {
        StatusView {
            version: "1.2.3".into(),
            node: "a".into(),
            instance: None,
            uptime_seconds: 3_700,
            conditions: [("capture".into(), true)].into(),
            source: SourceView {
                kind: "directory".into(),
                location: "/etc/ambit/manifests".into(),
                in_sync: true,
                reason: None,
            },
            capture: CaptureView {
                enrolled_pods: 3,
                captured_pods: 3,
                waiting: Vec::new(),
                entries_left_out: 0,
            },
            splice: SpliceView {
                active: true,
                reason: None,
            },
            connections: 12,
            tunnels: TunnelsView {
                outbound: 2,
                inbound: 1,
            },
            certificates: CertificatesView {
                valid: 2,
                missing: 0,
                failing: 0,
                soonest_expiry: Some("2030-01-01T00:09:50Z".into()),
            },
            problems: 0,
        }
    }

    fn check(status: &StatusView, expected: &str) {
        let now = "2030-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(text(status, now), expected);
    }

    #[test]
    fn an_agent_that_is_well_takes_a_line_a_subject() {
        check(
            &well(),
            "\
Agent:        1.2.3 on node a
Uptime:       1h1m
Ready:        yes
Source:       directory /etc/ambit/manifests, in sync
Pods:         3 of this node enrolled, 3 captured
Maps:         hold every address and service
Splice:       on
Connections:  12 open
Tunnels:      2 open to other agents, 1 from them
Certificates: 2 valid, 0 missing, 0 failing; the first expires in 9m50s
Problems:     none
",
        );
    }

    #[test]
    fn whatever_is_amiss_is_told_with_its_reason() {
        let mut status = well();
        status.conditions.insert("sync".into(), false);
        status.conditions.insert("capture".into(), false);
        status.source.in_sync = false;
        status.source.reason = Some("gone; its last state serves".into());
        status.capture.captured_pods = 0;
        status.capture.entries_left_out = 7;
        status.capture.waiting = (0..22)
            .map(|number| WaitingPodView {
                name: format!("shop/web-{number}"),
                reason: "it has no address yet".into(),
            })
            .collect();
        status.splice.active = false;
        status.splice.reason = Some("self-test:\nno".into());
        status.certificates = CertificatesView {
            valid: 0,
            missing: 2,
            failing: 1,
            soonest_expiry: None,
        };
        status.problems = 1;
        let waiting: String = (0..20)
            .map(|number| format!("              shop/web-{number} waits: it has no address yet\n"))
            .collect();
        let expected = format!(
            "\
Agent:        1.2.3 on node a
Uptime:       1h1m
Ready:        no, waits for: capture, sync
Source:       directory /etc/ambit/manifests, not in sync: gone; its last state serves
Pods:         3 of this node enrolled, 0 captured
{waiting}              and 2 more wait; -o json names them all
Maps:         have no room for 7 addresses and services: every connection of enrolled pods is captured
Splice:       off: self-test: no
Connections:  12 open
Tunnels:      2 open to other agents, 1 from them
Certificates: 0 valid, 2 missing, 1 failing; `ambit certificates` says why
Problems:     1 object can't be used as it is; see `ambit problems`
"
        );
        check(&status, &expected);
    }
}
