//! A configuration as it was given, and what came of it.

use std::collections::BTreeMap;
use std::fmt;

use super::node::{Config, unknown};
use super::properties::Property;
use super::served::SETTINGS;
use super::setting::SettingError;
use super::{alternate, known, topic};

/// Where a setting was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// In the file.
    File {
        /// Counted from 1.
        line: usize,
    },
    /// On the command line.
    CommandLine,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { line } => write!(f, "line {line}"),
            Self::CommandLine => f.write_str("--set"),
        }
    }
}

/// A setting that a node is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Where.
    pub origin: Origin,
}

impl From<Property> for Given {
    fn from(property: Property) -> Self {
        Self {
            name: property.name,
            value: property.value,
            origin: Origin::File {
                line: property.line,
            },
        }
    }
}

/// A setting that was passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ignored {
    /// Its name.
    pub name: String,
    /// Why it has no meaning here.
    pub reason: String,
}

/// A setting that was refused, or that is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Where it was given, if it was.
    pub origin: Option<Origin>,
    /// What is wrong.
    pub error: SettingError,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.origin {
            Some(origin) => write!(f, "{origin}: {}", self.error),
            None => self.error.fmt(f),
        }
    }
}

/// A setting as it will be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// Where it was given; nowhere means that it is as it always is, or follows from another.
    pub origin: Option<Origin>,
}

/// A configuration that can be used.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What to start a node with.
    pub config: Config,
    /// What was passed over, in the order of the names.
    pub ignored: Vec<Ignored>,
    origins: BTreeMap<&'static str, Origin>,
}

impl Loaded {
    /// Every setting that is served as it will be used, in the order of the names.
    #[must_use]
    pub fn used(&self) -> Vec<Used> {
        let used = |name, value| Used {
            name,
            value,
            origin: self.origins.get(name).copied(),
        };
        let of_node = SETTINGS
            .iter()
            .map(|setting| used(setting.name, (setting.get)(&self.config)));
        let of_topics = topic::SETTINGS.iter().filter_map(|setting| {
            let value = (setting.get)(&self.config.topic);
            setting.synonym.map(|name| used(name, value))
        });
        let mut all: Vec<_> = of_node.chain(of_topics).collect();
        all.sort_by_key(|used| used.name);
        all
    }
}

/// What others are read by, in the order in which they are to be known.
const FIRST: [&str; 5] = [
    "controller.listener.names",
    "listener.security.protocol.map",
    "listeners",
    "inter.broker.listener.name",
    "advertised.listeners",
];

impl Config {
    /// Takes settings; of a name that is given twice the last counts.
    ///
    /// # Errors
    /// Everything that is refused, not only the first of it.
    pub fn load(mut self, given: impl IntoIterator<Item = Given>) -> Result<Loaded, Vec<Refusal>> {
        let given: BTreeMap<String, Given> = given
            .into_iter()
            .map(|given| (given.name.clone(), given))
            .collect();
        let mut loading = Loading {
            given: &given,
            origins: BTreeMap::new(),
            ignored: Vec::new(),
            refused: Vec::new(),
        };
        let early = FIRST.iter().filter_map(|name| given.get(*name));
        let late = given.values().filter(|g| !FIRST.contains(&g.name.as_str()));
        for given in early.chain(late) {
            loading.take(&mut self, given);
        }
        // The one that counts of several is known by their order in the table.
        for alternate in alternate::ALTERNATES {
            if let Some(given) = given.get(alternate.name) {
                loading.take_alternate(&mut self, given, alternate);
            }
        }
        loading.settle(&mut self);
        let Loading {
            origins,
            mut ignored,
            refused,
            ..
        } = loading;
        if !refused.is_empty() {
            return Err(refused);
        }
        ignored.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Loaded {
            config: self,
            ignored,
            origins,
        })
    }
}

struct Loading<'a> {
    given: &'a BTreeMap<String, Given>,
    origins: BTreeMap<&'static str, Origin>,
    ignored: Vec<Ignored>,
    refused: Vec<Refusal>,
}

impl Loading<'_> {
    fn refuse(&mut self, given: &Given, error: SettingError) {
        self.refused.push(Refusal {
            origin: Some(given.origin),
            error,
        });
    }

    fn ignore(&mut self, name: &str, reason: impl Into<String>) {
        self.ignored.push(Ignored {
            name: name.to_owned(),
            reason: reason.into(),
        });
    }

    /// Takes one that is served by this name, or says what comes of it.
    fn take(&mut self, config: &mut Config, given: &Given) {
        let name = given.name.as_str();
        if alternate::find(name).is_some() {
            return;
        }
        let synonyms = topic::SETTINGS.iter().filter_map(|setting| setting.synonym);
        let mut served = SETTINGS.iter().map(|setting| setting.name).chain(synonyms);
        if let Some(name) = served.find(|served| *served == name) {
            self.origins.insert(name, given.origin);
            if let Err(error) = config.set(name, &given.value) {
                self.refuse(given, error);
            }
            return;
        }
        match known::find(name) {
            Some(known) if known.refuses(&given.value) => {
                let error = SettingError::Refused {
                    name: name.to_owned(),
                    reason: known.reason,
                };
                self.refuse(given, error);
            }
            Some(known) => self.ignore(name, known.reason),
            None => self.refuse(given, unknown(name)),
        }
    }

    fn take_alternate(
        &mut self,
        config: &mut Config,
        given: &Given,
        alternate: &alternate::Alternate,
    ) {
        if !self.origins.contains_key(alternate.of) {
            self.origins.insert(alternate.of, given.origin);
            if let Err(error) = alternate.apply(config, &given.value) {
                self.refuse(given, error);
            }
            return;
        }
        let other = self.given.get(alternate.of);
        let differs = other.is_some_and(|other| other.value.trim() != given.value.trim());
        if alternate.must_agree && differs {
            let error = SettingError::Value {
                name: alternate.name,
                value: given.value.chars().take(200).collect(),
                reason: format!("{} says something else; give one of the two", alternate.of),
            };
            self.refuse(given, error);
        } else {
            self.ignore(alternate.name, format!("{} is given already", alternate.of));
        }
    }

    /// Looks at all of them together; what one of them was refused for may be why another does not
    /// fit, so that is not said too.
    fn settle(&mut self, config: &mut Config) {
        if !self.refused.is_empty() {
            return;
        }
        match config.settle() {
            Ok(left_out) => {
                for (name, why) in left_out {
                    self.ignore(name, why);
                }
            }
            Err(wrong) => {
                let refusals = wrong.into_iter().map(|error| Refusal {
                    origin: self.origins.get(error.name()).copied(),
                    error,
                });
                self.refused.extend(refusals);
            }
        }
    }
}

#[cfg(test)]
mod tests;
