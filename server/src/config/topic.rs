//! The settings of a topic.

use std::collections::BTreeMap;

use riverrun_replication::GroupSettings;
use riverrun_storage::LogConfig;

use super::setting::{Kind, Setting, SettingError, boolean, nearest, number, only};

pub use riverrun_record::TimestampType;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// The settings of one topic, typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSettings {
    /// `segment.bytes`
    pub segment_bytes: u64,
    /// `segment.ms`
    pub segment_ms: i64,
    /// `index.interval.bytes`
    pub index_interval_bytes: u32,
    /// `max.message.bytes`
    pub max_message_bytes: u32,
    /// `min.insync.replicas`
    pub min_insync_replicas: u32,
    /// `message.timestamp.type`
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`
    pub timestamp_after_max_ms: i64,
    /// `flush.messages`
    pub flush_messages: u64,
    /// `write.caching`
    pub write_caching: bool,
}

impl Default for TopicSettings {
    fn default() -> Self {
        Self {
            segment_bytes: 256 << 20,
            segment_ms: 7 * DAY_MS,
            index_interval_bytes: 4096,
            max_message_bytes: 1_048_588,
            min_insync_replicas: 1,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 60 * 60 * 1000,
            flush_messages: i64::MAX as u64,
            write_caching: false,
        }
    }
}

impl TopicSettings {
    /// A topic's settings: those it was given over the node's defaults.
    ///
    /// # Errors
    /// When a name is not served or a value is refused.
    pub fn with(&self, given: &BTreeMap<String, String>) -> Result<Self, SettingError> {
        let mut settings = self.clone();
        for (name, value) in given {
            find(name)?.apply(&mut settings, value)?;
        }
        Ok(settings)
    }

    /// The settings of the controller's own log: every command is on disk before it counts.
    pub(crate) fn controller_settings() -> GroupSettings {
        Self {
            write_caching: false,
            ..Self::default()
        }
        .group_settings()
    }

    /// What they mean to the topic's groups.
    #[must_use]
    pub fn group_settings(&self) -> GroupSettings {
        GroupSettings {
            log: LogConfig {
                segment_bytes: self.segment_bytes,
                segment_ms: self.segment_ms,
                index_interval_bytes: self.index_interval_bytes,
                ..LogConfig::default()
            },
            write_caching: self.write_caching,
            min_insync_replicas: self.min_insync_replicas,
            flush_messages: self.flush_messages,
        }
    }
}

/// The row of a name.
pub(crate) fn find(name: &str) -> Result<&'static Setting<TopicSettings>, SettingError> {
    SETTINGS
        .iter()
        .find(|setting| setting.name == name)
        .ok_or_else(|| SettingError::Unknown {
            name: name.chars().take(200).collect(),
            nearest: nearest(name, SETTINGS.iter().map(|setting| setting.name)),
        })
}

fn type_name(timestamp_type: TimestampType) -> &'static str {
    match timestamp_type {
        TimestampType::CreateTime => "CreateTime",
        TimestampType::LogAppendTime => "LogAppendTime",
    }
}

/// Every setting of a topic that is served, in the order of their names.
pub(crate) const SETTINGS: &[Setting<TopicSettings>] = &[
    Setting {
        name: "cleanup.policy",
        kind: Kind::List,
        synonym: Some("log.cleanup.policy"),
        doc: "What happens to old segments. Only delete is served.",
        get: |_| "delete".to_owned(),
        set: |_, value| only(value, "delete", "compaction is not there yet"),
    },
    Setting {
        name: "compression.type",
        kind: Kind::String,
        synonym: Some("compression.type"),
        doc: "How batches are stored. Only producer is served: as they were sent.",
        get: |_| "producer".to_owned(),
        set: |_, value| only(value, "producer", "batches are stored as they were sent"),
    },
    Setting {
        name: "flush.messages",
        kind: Kind::Long,
        synonym: Some("log.flush.interval.messages"),
        doc: "Records after which a flush is begun in a topic with write.caching, or for what \
              acks 0 and 1 left behind. It only adds flushes: without write.caching every \
              acks=all is on disk on a majority before it is answered.",
        get: |t| t.flush_messages.to_string(),
        set: |t, value| {
            t.flush_messages = number(value, 1..=i64::MAX as u64)?;
            Ok(())
        },
    },
    Setting {
        name: "index.interval.bytes",
        kind: Kind::Int,
        synonym: Some("log.index.interval.bytes"),
        doc: "Bytes of log between two entries of the offset index.",
        get: |t| t.index_interval_bytes.to_string(),
        set: |t, value| {
            t.index_interval_bytes = number(value, 0..=i32::MAX as u32)?;
            Ok(())
        },
    },
    Setting {
        name: "max.message.bytes",
        kind: Kind::Int,
        synonym: Some("message.max.bytes"),
        doc: "The largest record batch that is taken, as it was sent.",
        get: |t| t.max_message_bytes.to_string(),
        set: |t, value| {
            t.max_message_bytes = number(value, 0..=i32::MAX as u32)?;
            Ok(())
        },
    },
    Setting {
        name: "message.timestamp.after.max.ms",
        kind: Kind::Long,
        synonym: Some("log.message.timestamp.after.max.ms"),
        doc: "How far a record's timestamp may lie after the broker's clock (CreateTime only).",
        get: |t| t.timestamp_after_max_ms.to_string(),
        set: |t, value| {
            t.timestamp_after_max_ms = number(value, 0..=i64::MAX)?;
            Ok(())
        },
    },
    Setting {
        name: "message.timestamp.before.max.ms",
        kind: Kind::Long,
        synonym: Some("log.message.timestamp.before.max.ms"),
        doc: "How far a record's timestamp may lie before the broker's clock (CreateTime only).",
        get: |t| t.timestamp_before_max_ms.to_string(),
        set: |t, value| {
            t.timestamp_before_max_ms = number(value, 0..=i64::MAX)?;
            Ok(())
        },
    },
    Setting {
        name: "message.timestamp.type",
        kind: Kind::String,
        synonym: Some("log.message.timestamp.type"),
        doc: "Who sets the timestamps: CreateTime (the producer) or LogAppendTime (the broker).",
        get: |t| type_name(t.timestamp_type).to_owned(),
        set: |t, value| {
            t.timestamp_type = match value {
                "CreateTime" => TimestampType::CreateTime,
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => return Err("CreateTime or LogAppendTime is needed".to_owned()),
            };
            Ok(())
        },
    },
    Setting {
        name: "min.insync.replicas",
        kind: Kind::Int,
        synonym: Some("min.insync.replicas"),
        doc: "Replicas that an acks=all waits for, where that is more than a majority.",
        get: |t| t.min_insync_replicas.to_string(),
        set: |t, value| {
            t.min_insync_replicas = number(value, 1..=i32::MAX as u32)?;
            Ok(())
        },
    },
    Setting {
        name: "retention.bytes",
        kind: Kind::Long,
        synonym: Some("log.retention.bytes"),
        doc: "Bytes of a partition above which its oldest segments are deleted. Only -1 \
              (nothing is deleted) is served.",
        get: |_| "-1".to_owned(),
        set: |_, value| only(value, "-1", "nothing is deleted by size yet"),
    },
    Setting {
        name: "retention.ms",
        kind: Kind::Long,
        synonym: Some("log.retention.ms"),
        doc: "Age at which segments are deleted. Only -1 (nothing is deleted) is served.",
        get: |_| "-1".to_owned(),
        set: |_, value| only(value, "-1", "nothing is deleted by age yet"),
    },
    Setting {
        name: "segment.bytes",
        kind: Kind::Int,
        synonym: Some("log.segment.bytes"),
        doc: "Size at which a new segment is begun.",
        get: |t| t.segment_bytes.to_string(),
        set: |t, value| {
            t.segment_bytes = number(value, 4096..=1 << 30)?;
            Ok(())
        },
    },
    Setting {
        name: "segment.ms",
        kind: Kind::Long,
        synonym: Some("log.roll.ms"),
        doc: "Age at which a new segment is begun, even if the old one is not full.",
        get: |t| t.segment_ms.to_string(),
        set: |t, value| {
            t.segment_ms = number(value, 1..=i64::MAX)?;
            Ok(())
        },
    },
    Setting {
        name: "write.caching",
        kind: Kind::Boolean,
        synonym: Some("log.write.caching"),
        doc: "Answer acks=all from the memory of a majority and flush a little later. Faster; a \
              power cut of a majority may lose the last moments of what was acknowledged.",
        get: |t| t.write_caching.to_string(),
        set: |t, value| {
            t.write_caching = boolean(value)?;
            Ok(())
        },
    },
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn given(name: &str, value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn every_default_is_accepted_as_a_value_of_its_setting() {
        let defaults = TopicSettings::default();
        for setting in SETTINGS {
            let value = (setting.get)(&defaults);
            let settings = defaults.with(&given(setting.name, &value)).unwrap();
            assert_eq!(settings, defaults, "{}", setting.name);
        }
    }

    #[test]
    fn names_are_sorted_and_documented() {
        assert!(
            SETTINGS
                .windows(2)
                .all(|pair| pair.first().unwrap().name < pair.last().unwrap().name)
        );
        assert!(SETTINGS.iter().all(|setting| setting.doc.ends_with('.')));
    }

    #[test]
    fn a_value_that_would_be_ignored_is_refused_with_its_reason() {
        let defaults = TopicSettings::default();
        for (name, value) in [
            ("retention.ms", "1000"),
            ("cleanup.policy", "compact"),
            ("compression.type", "zstd"),
            ("segment.bytes", "2147483647"),
            ("write.caching", "yes"),
            ("min.insync.replicas", "0"),
        ] {
            let error = defaults.with(&given(name, value)).unwrap_err();
            assert!(
                matches!(error, SettingError::Value { .. }),
                "{name}: {error}"
            );
        }
        let error = defaults.with(&given("flush.ms", "5")).unwrap_err();
        assert!(matches!(error, SettingError::Unknown { .. }));
        assert!(error.to_string().contains("flush.ms"));
    }
}
