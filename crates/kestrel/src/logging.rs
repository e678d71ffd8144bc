//! Log lines on stderr, and the trace file.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};

use anyhow::{Context, Result};
use indicatif::{MultiProgress, ProgressDrawTarget};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_chrome::{ChromeLayerBuilder, FlushGuard};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::cli::{LogFormat, LoggingArgs};

/// Completes the trace file when dropped.
pub(crate) struct Guard {
    _trace: Option<FlushGuard>,
}

/// Starts logging. Lines are written above the progress bars, never through them.
pub(crate) fn init(args: &LoggingArgs, bars: &MultiProgress) -> Result<Guard> {
    let level = match (args.quiet, args.verbose) {
        (0, 0) => "info",
        (0, 1) => "debug",
        (0, _) => "trace",
        (1, _) => "warn",
        _ => "error",
    };
    // Other crates speak only of trouble unless RUST_LOG asks for more.
    let ours = [
        "kestrel",
        "kestrel_data",
        "kestrel_models",
        "kestrel_train",
        "kestrel_kernels",
    ];
    let default = ours
        .iter()
        .map(|name| format!("{name}={level}"))
        .collect::<Vec<_>>()
        .join(",");
    let filter = match std::env::var("RUST_LOG") {
        Ok(directives) if !directives.is_empty() => {
            EnvFilter::try_new(&directives).with_context(|| format!("RUST_LOG={directives}"))?
        }
        _ => EnvFilter::try_new(format!("error,{default}")).context("the log filter")?,
    };
    let format = args.log_format.unwrap_or_default();
    if format == LogFormat::Json || args.quiet > 0 {
        // A program reads the lines, or nobody wants to look.
        bars.set_draw_target(ProgressDrawTarget::hidden());
    }
    let writer = AboveBars(bars.clone());
    let lines = match format {
        LogFormat::Text => tracing_subscriber::fmt::layer()
            .event_format(Plain)
            .with_writer(writer)
            .with_filter(filter)
            .boxed(),
        LogFormat::Json => tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(writer)
            .with_filter(filter)
            .boxed(),
    };
    let (trace, guard) = match &args.trace {
        None => (None, None),
        Some(path) => {
            let file = File::create(path)
                .with_context(|| format!("cannot write the trace file {}; choose another place", path.display()))?;
            let (layer, guard) = ChromeLayerBuilder::new().writer(file).include_args(true).build();
            let filter = EnvFilter::try_new(ours.iter().map(|n| format!("{n}=trace")).collect::<Vec<_>>().join(","));
            (
                Some(layer.with_filter(filter.context("the trace filter")?)),
                Some(guard),
            )
        }
    };
    tracing_subscriber::registry().with(lines).with(trace).init();
    Ok(Guard { _trace: guard })
}

/// The time now, as the JSON lines have it: `2026-01-31T12:00:00.000000Z`.
pub(crate) fn timestamp() -> String {
    let mut text = String::new();
    // A string takes all that is written.
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    text
}

/// Writes to stderr with the bars out of the way.
#[derive(Clone)]
struct AboveBars(MultiProgress);

impl Write for AboveBars {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl<'a> MakeWriter<'a> for AboveBars {
    type Writer = AboveBars;

    fn make_writer(&'a self) -> AboveBars {
        self.clone()
    }
}

/// Information is the message alone; trouble is named, and debugging shows its fields.
struct Plain;

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        match *event.metadata().level() {
            Level::ERROR => write!(writer, "error: {}", fields.message)?,
            Level::WARN => write!(writer, "warning: {}", fields.message)?,
            Level::INFO => return writeln!(writer, "{}", fields.message),
            Level::DEBUG => write!(writer, "debug: {}", fields.message)?,
            Level::TRACE => write!(writer, "trace: {}", fields.message)?,
        }
        writeln!(writer, "{}", fields.others)
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.others.push_str(&format!(" {}={value:?}", field.name()));
        }
    }
}
