//! The Raft library logs through slog; its lines go on to `tracing`, filtered before formatting.

use slog::{Drain, KV, Key, Level, Logger, Never, OwnedKVList, Record, Serializer};

struct ToTracing;

#[derive(Default)]
struct Fields(String);

impl Serializer for Fields {
    fn emit_arguments(&mut self, key: Key, value: &std::fmt::Arguments<'_>) -> slog::Result {
        use std::fmt::Write;
        write!(self.0, " {key}={value}").map_err(|_| slog::Error::Other)
    }
}

impl Drain for ToTracing {
    type Ok = ();
    type Err = Never;

    fn is_enabled(&self, level: Level) -> bool {
        match level {
            Level::Critical | Level::Error => {
                tracing::enabled!(target: "raft", tracing::Level::ERROR)
            }
            Level::Warning | Level::Info => {
                tracing::enabled!(target: "raft", tracing::Level::DEBUG)
            }
            Level::Debug | Level::Trace => false,
        }
    }

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        if !self.is_enabled(record.level()) {
            return Ok(());
        }
        let mut fields = Fields::default();
        let _ = record.kv().serialize(record, &mut fields);
        let _ = values.serialize(record, &mut fields);
        match record.level() {
            Level::Critical | Level::Error => {
                tracing::error!(target: "raft", "{}{}", record.msg(), fields.0);
            }
            // An election is news to an operator only by its result, which the group reports itself.
            _ => tracing::debug!(target: "raft", "{}{}", record.msg(), fields.0),
        }
        Ok(())
    }
}

/// The logger that every group hands to the library.
pub(crate) fn logger() -> Logger {
    Logger::root(ToTracing, slog::o!())
}
