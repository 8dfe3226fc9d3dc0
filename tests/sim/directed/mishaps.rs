//! One message is lost, arrives twice, or arrives when all is over, or its receiver starts again
//! before it arrives: each of those that are sent while replicas are elected, become whole, are
//! filled, cut and replaced.

use riverrun_replication::conf::Change;
use riverrun_replication::shard::Input;

use super::cluster::{A, C, Cluster, D, E, F, GROUP, Plan};
use super::recovering::{ALL, all_lose_power, one_to_fill};
use super::replaced::dropped_head;
use super::stops::{about_to_cut, is_sound};
use super::wire::Fate;

const OF_MESSAGES: [Fate; 3] = [Fate::Lost, Fate::Twice, Fate::Late];
const ALL_FATES: [Fate; 5] = [
    Fate::Lost,
    Fate::Twice,
    Fate::Late,
    Fate::PowerCut,
    Fate::Killed,
];

/// Takes the steps as often as messages are sent in them, with something happening to another one
/// each time. Then these nodes must have the same, and nothing that was acknowledged is missing.
fn meddling(
    fates: &[Fate],
    among: &[u64],
    begin: impl Fn() -> Cluster,
    steps: impl Fn(&mut Cluster),
    then: impl Fn(&mut Cluster),
) {
    for fate in fates.iter().copied() {
        let mut after = 0;
        loop {
            // Seen where the test fails.
            eprintln!("message {after}: {fate:?}");
            let mut cluster = begin();
            cluster.meddle(after, fate);
            steps(&mut cluster);
            let met = cluster.meddled();
            is_sound(&mut cluster, among);
            then(&mut cluster);
            if met == 0 {
                assert!(after > 10, "the steps send nothing");
                break;
            }
            after += 1;
        }
    }
}

#[test]
fn in_an_election_of_the_recovering() {
    let begin = || {
        let mut cluster = all_lose_power();
        ALL.iter().for_each(|at| cluster.start(*at));
        cluster
    };
    let steps = |cluster: &mut Cluster| cluster.pass(&ALL, 45);
    meddling(&ALL_FATES, &ALL, begin, steps, |cluster| {
        assert!(ALL.iter().all(|at| !cluster.partition(*at).is_recovering()));
        let leader = cluster.leader().unwrap();
        assert_eq!(cluster.consume(leader)[..3], ["base", "second", "third"]);
    });
}

#[test]
fn in_becoming_whole() {
    let steps = |cluster: &mut Cluster| cluster.pass(&ALL, 10);
    // With the power of A goes what the topic asked to be lost with a majority.
    let fates = [OF_MESSAGES.as_slice(), &[Fate::Killed]].concat();
    meddling(&fates, &ALL, one_to_fill, steps, |cluster| {
        assert!(ALL.iter().all(|at| !cluster.partition(*at).is_recovering()));
    });
}

#[test]
fn in_a_change_of_leaders() {
    let begin = || {
        let mut cluster = Cluster::of_three(Plan::voters(&ALL));
        cluster.produce_as_p(A, 0, "zero");
        cluster.run(&[A, F]);
        cluster.produce_as_p(A, 1, "one");
        cluster.deliver(|sent| sent.to == F);
        cluster
    };
    let steps = |cluster: &mut Cluster| {
        if cluster.runs(A) {
            cluster.kill(A);
        }
        cluster.pass(&[F, C], 25);
        cluster.start(A);
        cluster.pass(&ALL, 5);
    };
    meddling(&ALL_FATES, &ALL, begin, steps, |cluster| {
        let leader = cluster.leader().unwrap();
        for (sequence, event) in (0..).zip(["zero", "one"]) {
            let again = cluster.produce_as_p(leader, sequence, event);
            cluster.run(&ALL);
            assert!(cluster.acked(again).is_some());
            let there = cluster.consume(leader);
            assert_eq!(there.iter().filter(|other| *other == event).count(), 1);
        }
    });
}

/// D takes the place of F.
fn replace(cluster: &mut Cluster) {
    let all = [A, F, C, D];
    let filled = [Change::AddLearner(D)];
    let instead = [Change::AddVoter(D), Change::Remove(F)];
    for (changes, voters) in [
        (filled.as_slice(), [A, F, C]),
        (instead.as_slice(), [A, C, D]),
    ] {
        for _ in 0..8 {
            let Some(leader) = cluster.leader() else {
                cluster.pass(&all, 5);
                continue;
            };
            let conf = cluster.partition(leader).group().conf().1.clone();
            let mut there = conf.get_voters().to_vec();
            there.sort_unstable();
            let filled = conf.get_learners() == [D] || voters.contains(&D);
            if there == voters && filled && conf.get_voters_outgoing().is_empty() {
                break;
            }
            cluster.change(leader, changes);
            cluster.pass(&all, 4);
        }
    }
    // And leads.
    if let Some(leader) = cluster.leader() {
        let (group, to) = (GROUP, D);
        cluster.turn(leader, vec![Input::Transfer { group, to }]);
    }
    cluster.pass(&all, 4);
}

#[test]
fn in_a_replacement() {
    meddling(&ALL_FATES, &[A, C, D], dropped_head, replace, |cluster| {
        let conf = cluster.partition(D).group().conf().1.clone();
        assert_eq!(riverrun_replication::conf::members(&conf), [A, C, D]);
        let leader = cluster.leader().unwrap();
        let again = cluster.produce_as_p(leader, 0, "of P");
        let next = cluster.produce_as_p(leader, 1, "next of P");
        cluster.run(&[A, C, D]);
        assert_eq!(cluster.acked(again), Some(1));
        assert!(cluster.acked(next).is_some());
    });
}

#[test]
fn in_a_cut() {
    let all = [A, F, C, D, E];
    let steps = |cluster: &mut Cluster| {
        cluster.pass(&[F, C, D, E], 3);
        if let Some(leader) = cluster.leader() {
            cluster.produce_great(leader, "great");
        }
        cluster.pass(&[F, C, D, E], 2);
        cluster.start(A);
        cluster.pass(&all, 3);
    };
    meddling(&ALL_FATES, &all, || about_to_cut(false), steps, |_| {});
}

/// Draws by a seed.
struct Draws(u64);

impl Draws {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// Ten mishaps within some steps, drawn by a seed.
fn ten_at_once(seed: u64) {
    eprintln!("seed {seed}");
    let mut draws = Draws(seed);
    let all = [A, F, C, D, E];
    let which = draws.below(4);
    let (mut cluster, among) = match which {
        0 => (dropped_head(), [A, C, D].as_slice()),
        1 => (about_to_cut(draws.below(2) == 0), all.as_slice()),
        2 => {
            let mut cluster = all_lose_power();
            ALL.iter().for_each(|at| cluster.start(*at));
            (cluster, ALL.as_slice())
        }
        _ => (Cluster::of_three(Plan::voters(&ALL)), ALL.as_slice()),
    };
    for _ in 0..10 {
        let fate = ALL_FATES[draws.below(5) as usize];
        cluster.meddle(draws.below(300), fate);
    }
    match which {
        0 => replace(&mut cluster),
        1 => {
            cluster.pass(&[F, C, D, E], 6);
            cluster.start(A);
            cluster.pass(&all, 6);
        }
        2 => cluster.pass(&ALL, 60),
        _ => {
            for sequence in 0..4 {
                if let Some(leader) = cluster.leader() {
                    cluster.produce_as_p(leader, sequence, "of P");
                }
                cluster.pass(&ALL, 5);
            }
        }
    }
    cluster.meddled();
    is_sound(&mut cluster, among);
}

#[test]
fn ten_of_them_at_once() {
    // Any other seeds: RIVERRUN_MISHAP_SEEDS=FROM-TO.
    let seeds = std::env::var("RIVERRUN_MISHAP_SEEDS");
    let seeds = seeds.unwrap_or_else(|_| "0-300".to_owned());
    let (from, to) = seeds.split_once('-').unwrap();
    for seed in from.parse().unwrap()..to.parse().unwrap() {
        ten_at_once(seed);
    }
}
