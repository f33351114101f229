//! Logs of the controller and the agent. Under systemd they go to the journal with their fields (app, node, slot, epoch, term), so that
//! `journalctl CLUSTERCTL_APP=database` finds them; elsewhere to standard error.

use std::error::Error;
use std::fmt::Write as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Prefix of the journal's field names.
const FIELD_PREFIX: &str = "CLUSTERCTL";

/// Starts logging. `RUST_LOG` sets the filter, `info` (and `warn` for the NATS client) is the default.
pub fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,async_nats=warn"));
    // JOURNAL_STREAM is set where systemd connected our output to the journal.
    let journal = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    let registry = tracing_subscriber::registry().with(filter);
    // Logging was started before only if somebody calls this twice; the first one stays.
    let _started = match journal {
        Some(layer) => registry.with(layer.with_field_prefix(Some(FIELD_PREFIX.to_owned()))).try_init(),
        None => registry.with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false)).try_init(),
    };
}

/// Logs the error that ends the process, with its whole chain, and says the same on standard error.
#[expect(clippy::print_stderr, reason = "the last word of a process, for who started it by hand")]
pub fn fatal(error: &dyn Error) {
    let text = chain(error);
    tracing::error!("{text}");
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        return;
    }
    eprintln!("error: {text}");
}

/// An error with its sources, `outer: inner: innermost`.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        // Writing into a String cannot fail.
        let _infallible = write!(text, ": {inner}");
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_chain_names_every_source_once() {
        let inner = std::io::Error::other("disk full");
        let outer = std::io::Error::new(std::io::ErrorKind::StorageFull, Wrapped(inner));
        assert_eq!(super::chain(&outer), "cannot write: disk full");
    }

    #[derive(Debug)]
    struct Wrapped(std::io::Error);

    impl std::fmt::Display for Wrapped {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("cannot write")
        }
    }

    impl std::error::Error for Wrapped {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }
}
