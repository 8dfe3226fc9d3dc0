//! Which topic names are allowed: Kafka's rule.

use super::outcome::Rejection;

/// Longest topic name in bytes.
const MAX_NAME_BYTES: usize = 249;
/// The controller's own log, which is no topic of the image.
const RESERVED: &str = "__cluster_metadata";

/// Checks a topic name.
///
/// # Errors
/// [`Rejection::InvalidTopicName`] with the reason.
pub fn check_topic_name(name: &str) -> Result<(), Rejection> {
    let why = if name.is_empty() {
        "it is empty"
    } else if name == "." || name == ".." {
        "it is '.' or '..'"
    } else if name.len() > MAX_NAME_BYTES {
        "it is longer than 249 characters"
    } else if !name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    {
        "only ASCII letters, digits, '.', '_' and '-' are allowed"
    } else if name == RESERVED {
        "it is reserved"
    } else {
        return Ok(());
    };
    // The name may be a megabyte of garbage, and the message is logged and answered.
    let shown = name.chars().take(MAX_NAME_BYTES).collect();
    Err(Rejection::InvalidTopicName { name: shown, why })
}

/// The form in which two names that would give the same metric name are equal.
pub(super) fn metric_name(name: &str) -> String {
    name.replace('.', "_")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn allows_what_kafka_allows() {
        for name in [
            "a",
            "A.b_c-9",
            "...",
            "__consumer_offsets",
            &"x".repeat(249),
        ] {
            check_topic_name(name).unwrap();
        }
    }

    #[test]
    fn refuses_what_kafka_refuses() {
        let names = [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "é",
            "a\0",
            "__cluster_metadata",
            &"x".repeat(250),
        ];
        for name in names {
            check_topic_name(name).unwrap_err();
        }
    }
}
