//! `ambit observe`.

use std::{io, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Args;
use jiff::{Timestamp, tz::TimeZone};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::{signal, time};

use super::{
    connections::bytes,
    operator::{Ask, OfNamespace, Output, write},
    table::{self, NOTHING},
};
use crate::telemetry::flows::{FlowFilter, FlowLine, FlowView, Verdict};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    ask: Ask,
    #[command(flatten)]
    of: OfNamespace,
    /// Only those of this pod, at either end: namespace/name, or a name in any namespace.
    #[arg(long)]
    pod: Option<String>,
    /// Only those to this port of the server, behind any service.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Only those of which this became. Those that have just opened aren't shown then.
    #[arg(long, value_enum)]
    verdict: Option<Verdict>,
}

/// How often to look whether anybody reads. Nothing tells.
const LOOK: Duration = Duration::from_secs(1);

/// Headers, and how wide their columns are: what is usual has room, what is longer moves its own line
/// alone.
const COLUMNS: [(&str, usize); 15] = [
    ("TIME", 12),
    ("EVENT", 7),
    ("VERDICT", 7),
    ("DIRECTION", 9),
    ("SOURCE", 24),
    ("FROM", 21),
    ("DESTINATION", 24),
    ("TO", 21),
    ("SERVICE", 20),
    ("TO-CLIENT", 9),
    ("TO-SERVER", 9),
    ("DURATION", 8),
    ("RTT/RETRANSMITS", 15),
    ("IDENTITIES", 72),
    ("WHY", 0),
];

pub(super) async fn run(arguments: Arguments) -> Result<()> {
    tokio::select! {
        result = observe(&arguments) => result,
        told = signal::ctrl_c() => told.context("waiting for Ctrl-C"),
        () = unread() => Ok(()),
    }
}

/// Waits until nobody can read what is written, which a write would tell only when there is one. So `kubectl
/// exec` that is gone leaves nobody behind.
async fn unread() {
    let stdout = io::stdout();
    loop {
        time::sleep(LOOK).await;
        // Not for room: for what is told unasked.
        let mut asked = [PollFd::new(&stdout, PollFlags::empty())];
        let told = poll(&mut asked, Some(&Timespec::default()));
        let ends = PollFlags::ERR | PollFlags::HUP;
        if told.is_ok() && asked[0].revents().intersects(ends) {
            return;
        }
    }
}

async fn observe(arguments: &Arguments) -> Result<()> {
    let query = arguments.filter().query();
    let mut lines = arguments.ask.agent().follow("observe", &query).await?;
    let is_table = arguments.ask.output == Output::Table;
    if is_table && !write(&row(COLUMNS.map(|(header, _)| header.to_owned())))? {
        return Ok(());
    }
    while let Some(line) = lines.line().await? {
        let parsed = serde_json::from_slice(&line);
        let parsed = parsed.map_err(|cause| lines.not_understood(cause))?;
        let text = match parsed {
            _ if !is_table => format!("{}\n", String::from_utf8_lossy(&line)),
            FlowLine::Flow(view) => row(cells(&view)),
            FlowLine::Lost { lost } => {
                eprintln!("{lost} events are missing here: they came faster than they were read");
                continue;
            }
        };
        if !write(&text)? {
            return Ok(());
        }
    }
    bail!("the agent has ended, or another took over from it: observe again")
}

impl Arguments {
    fn filter(&self) -> FlowFilter {
        FlowFilter {
            namespace: self.of.namespace.clone(),
            pod: self.pod.clone(),
            port: self.port,
            verdict: self.verdict,
        }
    }
}

fn row(cells: [String; COLUMNS.len()]) -> String {
    let cells = cells.map(table::printable);
    table::line(
        cells
            .iter()
            .map(String::as_str)
            .zip(COLUMNS.map(|(_, width)| width)),
    )
}

fn cells(view: &FlowView) -> [String; COLUMNS.len()] {
    let identity = |id: &Option<String>| id.as_deref().map_or(NOTHING.to_owned(), table::identity);
    let path = view.rtt_us.zip(view.retransmits);
    let why = [view.policy.as_ref(), view.reason.as_ref()];
    let why = why.into_iter().flatten().cloned().collect::<Vec<_>>();
    [
        clock(&view.time),
        view.event.as_str().to_owned(),
        table::list(view.verdict.map(Verdict::as_str)),
        view.reporter.direction().as_str().to_owned(),
        table::known(&view.source),
        view.source_address.to_string(),
        table::known(&view.destination),
        table::list(view.destination_address),
        table::known(&view.service),
        bytes(view.bytes_sent),
        bytes(view.bytes_received),
        format!("{}ms", view.duration.as_millis()),
        table::list(path.map(|(rtt, sent_again)| format!("{rtt}us/{sent_again}"))),
        format!(
            "{}->{}",
            identity(&view.source_identity),
            identity(&view.destination_identity)
        ),
        table::or_nothing(&[request(view), why.join(": ")].concat()),
    ]
}

/// `GET web.shop/cart 503 `, or nothing.
fn request(view: &FlowView) -> String {
    let Some(request) = &view.request else {
        return String::new();
    };
    let status = table::list(request.status);
    let authority = request.authority.as_deref().unwrap_or_default();
    format!("{} {authority}{} {status} ", request.method, request.path)
}

/// The time of day of this machine's clock in UTC.
fn clock(time: &str) -> String {
    match time.parse::<Timestamp>() {
        Ok(time) => {
            let time = time.to_zoned(TimeZone::UTC).time();
            format!(
                "{:02}:{:02}:{:02}.{:03}",
                time.hour(),
                time.minute(),
                time.second(),
                time.millisecond()
            )
        }
        Err(_) => time.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_stands_beneath_its_headers_and_why_comes_last() {
        let view: FlowView = serde_json::from_value(json!({
            "time": "2026-11-22T12:00:01.234567Z",
            "event": "closed",
            "verdict": "denied",
            "reason": "denied by\nAuthorizationPolicy shop/deny",
            "policy": "shop/deny",
            "flags": "DENY",
            "reporter": "destination",
            "connection": 7,
            "source": null,
            "source_identity": "spiffe://cluster.local/ns/shop/sa/web",
            "source_address": "10.1.0.1:40000",
            "destination": "till/kasse",
            "destination_identity": "spiffe://cluster.local/ns/till/sa/kasse",
            "destination_address": "10.1.1.1:8080",
            "tunnel": null,
            "service": null,
            "waypoint": null,
            "secured": true,
            "passed": false,
            "bytes_sent": 0,
            "bytes_received": 1536,
            "duration_ms": 12,
            "rtt_us": 250,
            "retransmits": 1,
            "request": null,
        }))
        .unwrap();
        let headers = row(COLUMNS.map(|(header, _)| header.to_owned()));
        let shown = row(cells(&view));
        for (header, expected) in [
            ("TIME", "12:00:01.234 "),
            ("EVENT", "closed "),
            ("VERDICT", "denied "),
            ("DIRECTION", "inbound "),
            ("SOURCE", "- "),
            ("DESTINATION", "till/kasse "),
            ("TO ", "10.1.1.1:8080 "),
            ("TO-SERVER", "1.5KiB "),
            ("DURATION", "12ms "),
            ("RTT", "250us/1 "),
            (
                "WHY",
                "shop/deny: denied by AuthorizationPolicy shop/deny\n",
            ),
        ] {
            let at = headers.find(header).unwrap();
            assert!(shown[at..].starts_with(expected), "{header}: {shown}");
        }
    }
}
