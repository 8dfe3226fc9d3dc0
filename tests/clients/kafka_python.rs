//! kafka-python, with the codecs of its lz4, snappy and zstd extras.

use super::scripted;
use crate::installed::kafka_python;
use anyhow::Result;
use std::process::Command;

pub(super) fn records(brokers: &str) -> Result<()> {
    let mut command = Command::new(kafka_python()?);
    command.args(["-c", include_str!("kafka_python.py")]);
    // It refuses to send a header whose value is null, and a record that is null as a whole.
    scripted::check("python", command, &[], brokers, false)
}
