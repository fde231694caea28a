//! Lines for people.

use std::{
    cell::RefCell,
    fmt::{self, Write},
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Writer},
    },
    registry::LookupSpan,
};

use crate::telemetry::access_log;

/// The usual form. Lines of the access log, one for each request, are written in it by shorter code: the usual
/// took a tenth of the time that a waypoint spends on a request.
#[derive(Debug, Default)]
pub(super) struct Text {
    usual: Format,
}

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        // Those of the access log belong to no span.
        if metadata.target() != access_log::TARGET {
            return self.usual.format_event(context, writer, event);
        }
        write_time(&mut writer, SystemTime::now())?;
        write!(writer, " {:>5} ", metadata.level().as_str())?;
        writer.write_str(access_log::TARGET)?;
        writer.write_char(':')?;
        let mut fields = Fields {
            writer: writer.by_ref(),
            written: Ok(()),
        };
        event.record(&mut fields);
        fields.written?;
        writer.write_char('\n')
    }
}

thread_local! {
    /// The second of a thread's last line since 1970, and how that is written.
    static SECOND: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

/// In UTC, with microseconds. A date is worked out once a second.
fn write_time(writer: &mut Writer<'_>, now: SystemTime) -> fmt::Result {
    let since = now.duration_since(SystemTime::UNIX_EPOCH);
    let since = since.unwrap_or(Duration::ZERO);
    SECOND.with_borrow_mut(|(second, written)| {
        if *second != since.as_secs() || written.is_empty() {
            *second = since.as_secs();
            let second = i64::try_from(*second).map(Timestamp::from_second);
            let second = second.map_err(|_| fmt::Error)?.map_err(|_| fmt::Error)?;
            written.clear();
            write!(written, "{}", second.strftime("%Y-%m-%dT%H:%M:%S"))?;
        }
        writer.write_str(written)
    })?;
    write!(writer, ".{:06}Z", since.subsec_micros())
}

/// The field that stands without its name.
const MESSAGE: &str = "message";

struct Fields<'a> {
    writer: Writer<'a>,
    written: fmt::Result,
}

impl Fields<'_> {
    fn write(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        let write = |writer: &mut Writer<'_>| {
            writer.write_char(' ')?;
            if field.name() != MESSAGE {
                writer.write_str(field.name())?;
                writer.write_char('=')?;
            }
            value(writer)
        };
        if self.written.is_ok() {
            self.written = write(&mut self.writer);
        }
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.write(field, |writer| {
            if value.bytes().all(stands_for_itself) {
                writer.write_char('"')?;
                writer.write_str(value)?;
                writer.write_char('"')
            } else {
                // With escapes: a client's path could otherwise look like another line.
                write!(writer, "{value:?}")
            }
        });
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.write(field, |writer| write!(writer, "{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.write(field, |writer| write!(writer, "{value:?}"));
    }
}

/// Whether a string's `Debug` leaves a byte as it is, whatever stands beside it.
fn stands_for_itself(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::fixtures::Written;

    /// One event with every kind of value that the access log has, as `subscriber` writes it.
    fn line(written: &Written, subscriber: impl Subscriber + Send + Sync + 'static) -> String {
        tracing::subscriber::with_default(subscriber, || {
            let _span = tracing::info_span!("a span", of = "the task").entered();
            macro_rules! write {
                ($level:ident) => {
                    tracing::event!(
                        target: access_log::TARGET,
                        parent: None,
                        tracing::Level::$level,
                        method = "GET",
                        path = "/a\"b\\c\n2026 \u{1b}[31m\u{e4}\u{7f}'",
                        none = None::<&str>,
                        empty = "",
                        status = 200_u16,
                        bytes_sent = u64::MAX,
                        retransmits = Some(-1_i64),
                        src.addr = %"10.0.0.1:80",
                        allowed = true,
                        "request complete"
                    )
                };
            }
            write!(INFO);
            write!(WARN);
        });
        written.text()
    }

    #[test]
    fn an_access_log_line_reads_as_any_other_line() {
        use tracing_subscriber::{fmt::layer, layer::SubscriberExt, registry};
        let (ours, usual) = (Written::default(), Written::default());
        let layer = || layer().with_ansi(false);
        let ours = line(
            &ours,
            registry().with(
                layer()
                    .event_format(Text::default())
                    .with_writer(ours.clone()),
            ),
        );
        let usual = line(&usual, registry().with(layer().with_writer(usual.clone())));
        let without_times = |text: &str| -> Vec<String> {
            let cut = |line: &str| line.split_once(' ').unwrap().1.to_owned();
            text.lines().map(cut).collect()
        };
        assert_eq!(without_times(&ours), without_times(&usual));
        let length = |text: &str| text.find(' ');
        assert_eq!(length(&ours), length(&usual), "{ours}{usual}");
        let time: jiff::Timestamp = ours.split_once(' ').unwrap().0.parse().unwrap();
        let age = jiff::Timestamp::now().duration_since(time).as_secs();
        assert!((0..60).contains(&age), "{time}");
    }
}
