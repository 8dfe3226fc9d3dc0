//! Settings: Kafka's names, each declared once with its type, default, range and documentation.
//!
//! A setting that is given takes effect or is refused with the reason; none is stored and ignored.
//! Of Kafka's names that mean nothing here, those that nobody relies on are passed over, and the
//! operator is told each with its reason.
//! Code receives the typed structs ([`Config`], [`TopicSettings`]), never a name.
//!
//! | File | Thing |
//! |---|---|
//! | [`setting`] | one row of a table, and how values are parsed |
//! | [`topic`] | the settings of a topic |
//! | [`node`] | the [`Config`] that a broker is started with, and what must fit in it |
//! | [`served`] | the settings of a node |
//! | [`alternate`] | other names and units of settings |
//! | [`known`] | what comes of Kafka's other names |
//! | [`listeners`] | listeners, hosts and ports |
//! | [`properties`] | the syntax of a file |
//! | [`loaded`] | settings from a file and the command line |

pub(crate) mod alternate;
pub(crate) mod known;
pub(crate) mod listeners;
pub(crate) mod loaded;
pub(crate) mod node;
pub mod properties;
pub(crate) mod served;
pub(crate) mod setting;
pub(crate) mod topic;

pub use loaded::{Given, Ignored, Loaded, Origin, Refusal, Used};
pub use node::{Config, Voter};
pub use setting::SettingError;
pub use topic::{TimestampType, TopicSettings};
