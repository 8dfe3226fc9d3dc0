//! What an operator writes, and what the controller remembers.

use riverrun_replication::controller::{Controller, decode_batch, decode_command};
use riverrun_server::Config;
use riverrun_server::config::{Given, properties};

use crate::sealed;

/// A properties file, read and taken.
pub(crate) fn properties(bytes: &[u8]) {
    if let Ok(properties) = properties::parse(bytes) {
        let given = properties.into_iter().map(Given::from);
        drop(Config::of_cluster().load(given.filter(|given| !is_looked_up(given))));
    }
}

/// A listener on a host that has a name: no made-up name shall be asked for.
fn is_looked_up(given: &Given) -> bool {
    let numeric = |place: &str| place.chars().all(|c| "0123456789.:[]".contains(c));
    let mut entries = given.value.split(',');
    given.name.ends_with("listeners")
        && entries.any(|entry| {
            !entry
                .split_once("://")
                .is_some_and(|(_, place)| numeric(place))
        })
}

/// A batch of the controller's commands, and the value of one record.
pub(crate) fn command(bytes: &[u8]) {
    drop(decode_command(Some(bytes)));
    sealed::both(bytes, sealed::batch, |bytes| {
        if decode_batch(bytes).is_ok() {
            // What cannot be done is a rejection, never a crash: every node would crash by it.
            drop(Controller::new().apply_batch(bytes));
        }
    });
}

/// An image of the controller: a good one is written again as itself.
pub(crate) fn checkpoint(bytes: &[u8]) {
    sealed::both(bytes, sealed::checkpoint, |bytes| {
        if let Ok(controller) = Controller::from_checkpoint(bytes) {
            let again = Controller::from_checkpoint(&controller.checkpoint());
            let again = again.expect("what was written can be read");
            assert_eq!(controller.image(), again.image());
        }
    });
}
