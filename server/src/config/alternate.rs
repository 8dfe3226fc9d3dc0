//! Other names and units that Kafka has for a setting, which count where the setting itself is not
//! given.

use super::node::Config;
use super::setting::{SettingError, number};

/// A name that stands for another setting.
pub(crate) struct Alternate {
    pub(crate) name: &'static str,
    /// The setting that it stands for.
    pub(crate) of: &'static str,
    /// How many of the setting's units one of its own is; nothing where the value is the same.
    unit: Option<i64>,
    /// Whether it must say the same where both are given. Otherwise the setting counts.
    pub(crate) must_agree: bool,
}

/// In the order in which they count: the finer unit of two first.
pub(crate) const ALTERNATES: &[Alternate] = &[
    Alternate {
        name: "broker.id",
        of: "node.id",
        unit: None,
        must_agree: true,
    },
    Alternate {
        name: "log.dir",
        of: "log.dirs",
        unit: None,
        must_agree: false,
    },
    Alternate {
        name: "log.retention.minutes",
        of: "log.retention.ms",
        unit: Some(60 * 1000),
        must_agree: false,
    },
    Alternate {
        name: "log.retention.hours",
        of: "log.retention.ms",
        unit: Some(60 * 60 * 1000),
        must_agree: false,
    },
    Alternate {
        name: "log.roll.hours",
        of: "log.roll.ms",
        unit: Some(60 * 60 * 1000),
        must_agree: false,
    },
];

/// The row of a name.
pub(crate) fn find(name: &str) -> Option<&'static Alternate> {
    ALTERNATES.iter().find(|alternate| alternate.name == name)
}

impl Alternate {
    /// Sets what it stands for; what is refused is refused by its own name.
    pub(crate) fn apply(&self, config: &mut Config, value: &str) -> Result<(), SettingError> {
        let refused = |reason| SettingError::Value {
            name: self.name,
            value: value.chars().take(200).collect(),
            reason,
        };
        let converted = self.convert(value.trim()).map_err(refused)?;
        config
            .set(self.of, &converted)
            .map_err(|error| match error {
                SettingError::Value { reason, .. } => refused(reason),
                other => other,
            })
    }

    fn convert(&self, value: &str) -> Result<String, String> {
        let Some(unit) = self.unit else {
            return Ok(value.to_owned());
        };
        match number(value, -1..=i64::MAX / unit)? {
            // As everywhere, it means no limit.
            -1 => Ok("-1".to_owned()),
            count => Ok((count * unit).to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_unit_is_turned_into_that_of_the_setting() {
        let mut config = Config::new("/data");
        config.set("log.roll.hours", "2").unwrap();
        assert_eq!(config.topic.segment_ms, 2 * 60 * 60 * 1000);
        config.set("broker.id", "7").unwrap();
        assert_eq!(config.node_id, 7);
        config.set("log.retention.hours", "-1").unwrap();
        let refused = config.set("log.retention.hours", "168").unwrap_err();
        let text = refused.to_string();
        assert!(text.contains("value 168 for log.retention.hours"), "{text}");
        assert!(text.contains("nothing is deleted by age"), "{text}");
        assert!(config.set("log.roll.hours", &i64::MAX.to_string()).is_err());
    }
}
