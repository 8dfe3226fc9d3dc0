//! The node as one of several.
//!
//! | File | Thing |
//! |---|---|
//! | [`protocol`] | what nodes ask each other, beside the messages of their replicas |
//! | [`founding`] | the first start of a node, and every later one |
//! | [`cut_off`] | clients that are sent away by a node that hears no majority (X2) |
//! | [`leaders`] | who leads what, by the word of the leaders themselves (L6) |
//! | [`routes`] | which node a replica is on |
//! | [`duties`] | what the node that leads group 0 sees to |
//! | [`replacement`] | replicas of this node that cannot go on (R9) |
//! | [`asides`] | what was set aside, and when it goes (R10, R11) |
//! | [`host`] | the broker, as its links see it |

pub(crate) mod asides;
pub(crate) mod cut_off;
pub(crate) mod duties;
pub(crate) mod founding;
pub(crate) mod host;
pub(crate) mod leaders;
pub(crate) mod protocol;
pub(crate) mod replacement;
pub(crate) mod routes;
