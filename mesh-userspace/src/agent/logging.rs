//! The log on standard error.

use tracing_subscriber::{EnvFilter, fmt};

use crate::cli::agent_args::LogFormat;

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The level cannot be read.
    #[error("--log-level {level}: {reason}: use error, warn, info, debug, trace, or zerohop=debug")]
    Level {
        /// As given.
        level: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Starts it for the whole process.
pub fn start(format: LogFormat, level: &str) -> Result<(), LoggingError> {
    let filter = EnvFilter::try_new(level).map_err(|error| LoggingError::Level {
        level: level.to_owned(),
        reason: error.to_string(),
    })?;
    let log = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    // The only error is that a log is there already, as in tests that start several agents.
    let _ = match format {
        LogFormat::Text => log.with_ansi(false).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    Ok(())
}
