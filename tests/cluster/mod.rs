//! Several real nodes on loopback: killed at any moment, wiped, joined, put back from a copy.

mod clients;
mod cut;
mod damage;
pub(crate) mod events;
mod founding;
mod frozen;
mod fsync;
mod hand_over;
mod kill_loop;
mod loss;
mod ours;
mod scrub;
mod strangers;
mod topics;
pub(crate) mod trio;
mod view;
mod wires;

use crate::trial::trial;
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        trial(
            "cluster::acknowledged_events_survive_any_kill_of_three_nodes",
            kill_loop::acknowledged_events_survive,
        ),
        trial(
            "cluster::a_wiped_node_comes_back_as_a_new_replica_and_is_filled",
            loss::a_wiped_node_is_filled,
        ),
        trial(
            "cluster::a_wiped_node_makes_no_majority",
            loss::a_wiped_node_makes_no_majority,
        ),
        trial(
            "cluster::two_wiped_nodes_of_three_serve_no_guess",
            loss::two_wiped_nodes_are_no_cluster,
        ),
        trial(
            "cluster::an_older_copy_of_a_directory_is_refused",
            loss::an_older_copy_is_refused,
        ),
        trial(
            "cluster::a_copy_that_catches_up_unheard_is_refused",
            loss::a_copy_that_catches_up_is_refused,
        ),
        trial(
            "cluster::bad_bytes_on_all_replicas_are_put_right",
            damage::bad_bytes_are_put_right,
        ),
        trial(
            "cluster::what_nobody_reads_is_looked_at_and_put_right",
            scrub::what_nobody_reads_is_looked_at,
        ),
        trial(
            "cluster::a_node_with_a_damaged_identity_is_set_aside_and_joins_anew",
            loss::an_identity_is_damaged,
        ),
        trial(
            "cluster::one_node_grows_to_three_that_do_without_it",
            founding::one_grows_to_three,
        ),
        trial(
            "cluster::nodes_with_different_voters_found_nothing",
            founding::different_voters_found_nothing,
        ),
        trial(
            "cluster::two_nodes_with_one_number_are_not_let_in",
            strangers::a_number_is_given_once,
        ),
        trial(
            "cluster::a_directory_of_another_cluster_is_refused",
            strangers::another_clusters_directory_is_refused,
        ),
        trial(
            "cluster::our_client_does_without_a_frozen_node",
            frozen::our_client_does_without_it,
        ),
        trial(
            "cluster::a_change_is_made_without_a_frozen_controller",
            frozen::a_change_is_made_without_the_controller,
        ),
        trial(
            "cluster::a_topic_deleted_while_a_node_is_away_stays_deleted",
            topics::a_deleted_topic_stays_deleted,
        ),
        trial(
            "cluster::librdkafka_stores_nothing_twice_through_hand_overs",
            hand_over::librdkafka_stores_nothing_twice,
        ),
        trial(
            "cluster::java_stores_nothing_twice_through_hand_overs",
            hand_over::java_stores_nothing_twice,
        ),
        trial(
            "cluster::fsync_two_blocked_disks_hold_every_acknowledgement",
            fsync::two_blocked_disks_hold_every_acknowledgement,
        ),
        trial(
            "cluster::fsync_one_blocked_disk_holds_nothing",
            fsync::one_blocked_disk_holds_nothing,
        ),
        trial(
            "cluster::fsync_two_failed_disks_hold_every_acknowledgement",
            fsync::two_failed_disks_hold_every_acknowledgement,
        ),
        trial(
            "cluster::fsync_one_failed_disk_holds_nothing",
            fsync::one_failed_disk_holds_nothing,
        ),
    ];
    trials.extend(clients::trials());
    trials.extend(cut::trials());
    trials
}
