//! The agent's own log: format, filter, and where lines go.
//!
//! Lines go to standard error by way of a bounded queue and a thread of its own: a slow reader of
//! the container's log never stops a connection. When the queue is full, lines are dropped, and
//! counted in `ambit_log_lines_dropped_total`. So are those that can't be written, as to a disk that is full.

mod text;

use std::{
    fmt, io,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    fmt::MakeWriter,
    layer::SubscriberExt,
    reload,
    util::{SubscriberInitExt, TryInitError},
};

/// Lines that may wait for the writing thread: about 2 MiB of access log.
const QUEUED_LINES: usize = 4_096;

/// Bytes written to standard error at once, where lines wait.
const BATCH: usize = 64 * 1024;

/// How long lines are gathered after some were written. To wake the writing thread for each costs whoever serves a
/// request as much as making the line does.
const GATHER: Duration = Duration::from_millis(10);

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// A line for people: `key=value`.
    #[default]
    Text,
    /// A JSON object a line, fields at its top level.
    Json,
}

/// Why logging can't be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Neither a level nor a list of directives.
    #[error(
        "{filter:?} is not a log level or filter ({reason}); \
         use for example `debug` or `info,ambit::access=off`"
    )]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Logging was set up before.
    #[error("the log is set up already: {0}")]
    Installed(#[from] TryInitError),
    /// The subscriber that this belongs to is gone.
    #[error("the log is shut down: {0}")]
    Gone(#[from] reload::Error),
}

/// Sets up the log for the process, records of the `log` crate included.
///
/// `filter` is `--log-level`: a level, or directives as `RUST_LOG` takes them.
///
/// # Errors
/// [`LogError`]: a filter that can't be parsed, or a log that is set up already.
pub fn install(format: LogFormat, filter: &str) -> Result<Logging, LogError> {
    let unwritten = Arc::<AtomicU64>::default();
    let (writer, guard) = queue(Counting {
        inner: io::BufWriter::with_capacity(BATCH, io::stderr()),
        unwritten: unwritten.clone(),
    });
    let dropped = writer.error_counter();
    let (subscriber, control) = subscriber(format, filter, writer)?;
    subscriber.try_init()?;
    Ok(Logging {
        format,
        control,
        dropped,
        unwritten,
        _writes_the_rest: guard,
    })
}

/// The log of the process. Hold it until the end: dropping it writes what still waits.
pub struct Logging {
    format: LogFormat,
    control: LogControl,
    dropped: ErrorCounter,
    unwritten: Arc<AtomicU64>,
    _writes_the_rest: WorkerGuard,
}

impl Logging {
    /// What has another process of this program log likewise: arguments for its command line.
    ///
    /// # Errors
    /// [`LogError::Gone`].
    pub fn arguments(&self) -> Result<[String; 4], LogError> {
        let format = match self.format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        let filter = self.control.filter()?;
        Ok(["--log-format", format, "--log-level", &filter].map(str::to_owned))
    }

    /// A handle that changes the filter.
    #[must_use]
    pub fn control(&self) -> LogControl {
        self.control.clone()
    }

    /// Reads how many lines were dropped or couldn't be written, for `Metrics::observe_log_drops`.
    pub fn dropped_lines(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let (dropped, unwritten) = (self.dropped.clone(), self.unwritten.clone());
        move || {
            let dropped = u64::try_from(dropped.dropped_lines()).unwrap_or(u64::MAX);
            dropped.saturating_add(unwritten.load(Ordering::Relaxed))
        }
    }
}

impl fmt::Debug for Logging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logging").finish_non_exhaustive()
    }
}

/// Counts lines that couldn't be written. What its writer holds meanwhile is written when that is possible again.
/// It is flushed when no line waits any more, and has the thread pause then.
struct Counting<W> {
    inner: W,
    unwritten: Arc<AtomicU64>,
}

impl<W: io::Write> io::Write for Counting<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(line);
        if written.is_err() {
            self.unwritten.fetch_add(1, Ordering::Relaxed);
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.inner.flush();
        thread::sleep(GATHER);
        flushed
    }
}

/// Changes the filter while the agent runs.
#[derive(Debug, Clone)]
pub struct LogControl {
    handle: reload::Handle<EnvFilter, Registry>,
}

impl LogControl {
    /// The filter in force.
    ///
    /// # Errors
    /// [`LogError::Gone`] after shutdown.
    pub fn filter(&self) -> Result<String, LogError> {
        Ok(self.handle.with_current(ToString::to_string)?)
    }

    /// Puts another filter in force.
    ///
    /// # Errors
    /// [`LogError::Filter`] if it can't be parsed; the old one stays.
    pub fn apply(&self, filter: &str) -> Result<(), LogError> {
        Ok(self.handle.reload(parse(filter)?)?)
    }
}

fn queue(writer: impl io::Write + Send + 'static) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default()
        .buffered_lines_limit(QUEUED_LINES)
        .lossy(true)
        .thread_name("log")
        .finish(writer)
}

pub(crate) fn subscriber<W>(
    format: LogFormat,
    filter: &str,
    writer: W,
) -> Result<(impl Subscriber + Send + Sync + 'static, LogControl), LogError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(writer);
    let lines = match format {
        LogFormat::Text => lines.event_format(text::Text::default()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let subscriber = Registry::default().with(filter).with(lines);
    Ok((subscriber, LogControl { handle }))
}

/// Stricter than [`EnvFilter`] alone, which takes a misspelt level for the name of a module and
/// then logs nothing at all.
fn parse(filter: &str) -> Result<EnvFilter, LogError> {
    let refuse = |reason: String| LogError::Filter {
        filter: filter.to_owned(),
        reason,
    };
    let directives: Vec<_> = filter.split(',').map(str::trim).collect();
    for directive in &directives {
        if directive.is_empty() {
            return Err(refuse("a directive is empty".to_owned()));
        }
        let a_bare_word = directive.chars().all(|c| c.is_ascii_alphanumeric());
        if a_bare_word && LevelFilter::from_str(directive).is_err() {
            return Err(refuse(format!("there is no level {directive:?}")));
        }
    }
    EnvFilter::builder()
        .parse(directives.join(","))
        .map_err(|error| refuse(error.to_string()))
}

#[cfg(test)]
mod tests;
