use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use super::*;
use crate::telemetry::fixtures::Written;

#[test]
fn filters_are_taken_or_refused_with_a_reason() {
    let cases = [
        ("info", None),
        ("DEBUG", None),
        ("off", None),
        ("info,ambit::access=off", None),
        ("warn, ambit::proxy=trace", None),
        ("verbose", Some("there is no level \"verbose\"")),
        ("info,debgu", Some("there is no level \"debgu\"")),
        ("ambit=loud", Some("error parsing level filter")),
        ("", Some("a directive is empty")),
        ("info,", Some("a directive is empty")),
    ];
    for (filter, refused) in cases {
        let error = parse(filter).err().map(|error| error.to_string());
        match (error, refused) {
            (None, None) => {}
            (Some(error), Some(reason)) => assert!(error.contains(reason), "{filter:?}: {error}"),
            (error, _) => panic!("{filter:?}: {error:?}"),
        }
    }
}

#[test]
fn the_level_changes_while_the_log_is_in_use() {
    let written = Written::default();
    let (subscriber, control) = subscriber(LogFormat::Text, "info", written.clone()).unwrap();
    tracing::subscriber::with_default(subscriber, || {
        tracing::debug!("one");
        control.apply("debug").unwrap();
        tracing::debug!("two");
        assert!(control.apply("verbose").is_err());
        tracing::debug!("three");
        control.apply("warn").unwrap();
        tracing::info!("four");
    });
    assert_eq!(control.filter().ok(), None, "the log is gone");
    let text = written.text();
    let found = ["one", "two", "three", "four"].map(|word| text.contains(word));
    assert_eq!(found, [false, true, true, false], "{text}");
}

#[test]
fn the_filter_in_force_can_be_read() {
    let (_subscriber, control) = subscriber(LogFormat::Text, "info", Written::default()).unwrap();
    assert_eq!(control.filter().unwrap(), "info");
    control.apply("ambit=debug").unwrap();
    assert_eq!(control.filter().unwrap(), "ambit=debug");
}

/// Waits in every write until a lock can be had.
struct Slow {
    gate: Arc<Mutex<()>>,
    written: Written,
}

impl Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _pass = self.gate.lock().unwrap();
        self.written.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_stands_still_costs_lines_and_stops_nobody() {
    let gate = Arc::new(Mutex::new(()));
    let written = Written::default();
    let slow = Slow {
        gate: gate.clone(),
        written: written.clone(),
    };
    let (writer, guard) = queue(slow);
    let dropped = writer.error_counter();
    let (subscriber, _) = subscriber(LogFormat::Text, "info", writer).unwrap();
    let closed = gate.lock().unwrap();
    let lines = QUEUED_LINES + 100;
    tracing::subscriber::with_default(subscriber, || {
        for number in 0..lines {
            tracing::info!(number, "line");
        }
    });
    // One line is in the writer's hands, or none yet.
    let lost = dropped.dropped_lines();
    assert!((99..=100).contains(&lost), "{lost}");
    drop(closed);
    drop(guard);
    assert_eq!(written.text().lines().count(), lines - lost);
}
