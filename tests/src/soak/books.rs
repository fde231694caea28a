//! Whether counters say what applications did.

use std::time::Duration;

use super::Stage;
use crate::{Error, Lab, Result, wait};

/// The counters may take a moment to hear of a connection that passes in the kernel.
const DEADLINE: Duration = Duration::from_secs(30);
/// How many bytes each transfer sends, and gets back.
const BYTES: u64 = 300_000;
/// Label of the auditor's connections.
const AUDITOR: (&str, &str) = (
    "source_principal",
    "spiffe://cluster.local/ns/shop/sa/auditor",
);

/// Of the auditor's connections, as its node's agent counts them: opened, closed, and bytes in both directions.
fn read(lab: &Lab) -> Result<[f64; 4]> {
    let count = |name: &str| {
        let name = format!("istio_tcp_{name}_total");
        let labels = [AUDITOR, ("reporter", "source")];
        lab.node("a").metric(&name, &labels)
    };
    Ok([
        count("connections_opened")?,
        count("connections_closed")?,
        count("sent_bytes")?,
        count("received_bytes")?,
    ])
}

/// Has the auditor transfer bytes each way, compares their hashes at both ends, and then the counters with what
/// was transferred. How many bytes that was, both directions together.
///
/// # Errors
/// If something differs.
pub(super) fn audit(stage: &Stage, lab: &Lab) -> Result<u64> {
    // What it did before is counted by now, or comes while we look.
    let mut before = settled(lab)?;
    let mut transferred = 0;
    for (way, server) in stage.servers() {
        let (connect, bytes) = (server.to_string(), BYTES.to_string());
        let arguments = ["transfer-client", "--connect", &connect, "--bytes", &bytes];
        let told = stage.auditor.peer(arguments)?;
        let is_whole = told["sent_bytes"] == BYTES
            && told["received_bytes"] == BYTES
            && told["sent_sha256"] == told["received_sha256"];
        if !is_whole {
            let found = format!("{way}: {told}");
            return Err(Error::violated("\"bytes are equal at both ends\"", found));
        }
        transferred += 2 * BYTES;
        #[expect(clippy::cast_precision_loss, reason = "counters are small enough")]
        let bytes = BYTES as f64;
        for (counter, more) in before.iter_mut().zip([1.0, 1.0, bytes, bytes]) {
            *counter += more;
        }
    }
    wait::poll("counters to say what was done", DEADLINE, || {
        let now = read(lab).map_err(|error| error.to_string())?;
        match now == before {
            true => Ok(()),
            false => Err(format!(
                "opened, closed, sent and received are {now:?} instead of {before:?}"
            )),
        }
    })?;
    Ok(transferred)
}

/// Waits until all connections that were opened are closed, which is when no more bytes will be counted.
fn settled(lab: &Lab) -> Result<[f64; 4]> {
    wait::poll("earlier connections to be counted", DEADLINE, || {
        let counters = read(lab).map_err(|error| error.to_string())?;
        match counters[0] == counters[1] {
            true => Ok(counters),
            false => Err(format!("{counters:?}")),
        }
    })
}
