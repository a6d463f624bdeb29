//! Logs: JSON lines on standard error.
//!
//! What is logged never holds credentials, parameters of statements or values of records.

use tracing_subscriber::EnvFilter;

/// Libraries that say too much at `info`.
const QUIET: &str = "rdkafka=warn,librdkafka=warn,h2=warn,hyper=warn,tonic=warn,datafusion=warn";

/// Checks a log setting such as `info` or `info,everwhen_ingest=debug`.
///
/// # Errors
/// A text that says what is wrong with it.
pub fn check_filter(directives: &str) -> Result<(), String> {
    EnvFilter::try_new(directives).map(|_| ()).map_err(|error| error.to_string())
}

/// Starts logging for the whole process; a second call changes nothing.
pub fn init(directives: &str) {
    let filter = EnvFilter::try_new(format!("{QUIET},{directives}"))
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // Where the log cannot be written, as on a full disk, its loss is no reason to stop.
        .log_internal_errors(false)
        .with_current_span(false)
        .with_span_list(false)
        .finish();
    if tracing::subscriber::set_global_default(lines).is_err() {
        tracing::debug!("logging was started before");
        return;
    }
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(panic = %panic, "a thread panicked: a fault of the program");
    }));
}
