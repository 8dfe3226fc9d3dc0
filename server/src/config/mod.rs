//! Settings: Kafka's names, each declared once with its type, default, range and documentation.
//!
//! A setting that is given takes effect or is refused with the reason; none is stored and ignored.
//! Code receives the typed structs ([`Config`], [`TopicSettings`]), never a name.
//!
//! | File | Thing |
//! |---|---|
//! | [`setting`] | one row of a table, and how values are parsed |
//! | [`topic`] | the settings of a topic |
//! | [`node`] | the settings of a node, and the [`Config`] that the broker is started with |

pub(crate) mod node;
pub(crate) mod setting;
pub(crate) mod topic;

pub use node::Config;
pub use setting::SettingError;
pub use topic::{TimestampType, TopicSettings};
