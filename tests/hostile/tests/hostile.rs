//! The fuzz targets as property tests: random bytes, and good ones with a few places changed. A
//! decoder never panics on them, and never holds more than 64 KiB and 64 times its input.
//!
//! The allocator of this binary counts. The tests take turns, so that it counts one target at a
//! time; what the test harness itself allocates is little beside the 64 KiB.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::sync::{Mutex, PoisonError};

use peak_alloc::PeakAlloc;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestRunner;
use riverrun_hostile::{TARGETS, Target};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

static TURN: Mutex<()> = Mutex::new(());

/// Gives bytes to a target and says how much memory it held at most.
fn peak_of(target: &Target, bytes: &[u8]) -> usize {
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    (target.run)(bytes);
    ALLOCATOR.peak_usage().saturating_sub(before)
}

fn held(target: &Target, bytes: &[u8]) -> Result<(), TestCaseError> {
    let allowed = target.allowed_bytes(bytes);
    let peak = peak_of(target, bytes);
    prop_assert!(peak <= allowed, "{peak} bytes held, {allowed} allowed");
    Ok(())
}

/// One change to good bytes, of the kind that lengths and counts mind most.
#[derive(Debug, Clone)]
enum Change {
    Set(Index, u8),
    Flip(Index, u8),
    Fill(Index, u8, usize),
    Remove(Index, usize),
    Insert(Index, Vec<u8>),
    Repeat(Index, usize),
    Truncate(Index),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let len = bytes.len();
        let end = |at: usize, count: usize| len.min(at + count);
        match self {
            Self::Set(at, byte) => bytes[at.index(len)] = *byte,
            Self::Flip(at, bit) => bytes[at.index(len)] ^= 1 << bit,
            Self::Fill(at, byte, count) => {
                let at = at.index(len);
                bytes[at..end(at, *count)].fill(*byte);
            }
            Self::Remove(at, count) => {
                let at = at.index(len);
                drop(bytes.drain(at..end(at, *count)));
            }
            Self::Insert(at, more) => {
                let at = at.index(len);
                drop(bytes.splice(at..at, more.iter().copied()));
            }
            Self::Repeat(at, count) => {
                let at = at.index(len);
                let piece = bytes[at..end(at, *count)].to_vec();
                drop(bytes.splice(at..at, piece));
            }
            Self::Truncate(at) => bytes.truncate(at.index(len)),
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    let telling = prop_oneof![
        Just(0),
        Just(1),
        Just(0x7f),
        Just(0x80),
        Just(0xff),
        any::<u8>()
    ];
    prop_oneof![
        (at(), telling.clone()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (at(), 0..8_u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        (at(), telling, 1..9_usize).prop_map(|(at, byte, len)| Change::Fill(at, byte, len)),
        (at(), 1..40_usize).prop_map(|(at, len)| Change::Remove(at, len)),
        (at(), vec(any::<u8>(), 1..20)).prop_map(|(at, more)| Change::Insert(at, more)),
        (at(), 1..300_usize).prop_map(|(at, len)| Change::Repeat(at, len)),
        at().prop_map(Change::Truncate),
    ]
}

fn survives(name: &str) {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let seeds = (target.seeds)();
    assert!(!seeds.is_empty());
    for seed in &seeds {
        held(target, seed).unwrap();
    }
    // What fails is printed, smallest first; proptest's own seed is in its file of regressions.
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let random = prop_oneof![vec(any::<u8>(), 0..600), vec(0..4_u8, 0..4000)];
    runner.run(&random, |bytes| held(target, &bytes)).unwrap();
    let mutated = (any::<Index>(), vec(change(), 1..6)).prop_map(|(seed, changes)| {
        let mut bytes = seed.get(&seeds).clone();
        for change in &changes {
            change.apply(&mut bytes);
        }
        bytes
    });
    runner.run(&mutated, |bytes| held(target, &bytes)).unwrap();
    drop(turn);
}

macro_rules! targets {
    ($($name:ident)*) => {
        $( #[test]
        fn $name() {
            survives(stringify!($name));
        } )*

        #[test]
        fn every_target_is_tried() {
            let tried = [$(stringify!($name)),*];
            let all: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(all, tried);
        }
    };
}

targets! {
    request response batch gzip snappy lz4 zstd sidecar index snapshot wal peer_frame properties
    command checkpoint
}

// The rule above is worth nothing if the allocator does not count.
#[test]
fn a_decoder_that_allocates_too_much_is_found_out() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let greedy = Target {
        name: "greedy",
        run: |bytes| {
            let claimed = bytes
                .first_chunk()
                .map_or(0, |len| u32::from_be_bytes(*len));
            drop(std::hint::black_box(Vec::<u8>::with_capacity(
                claimed as usize,
            )));
        },
        seeds: Vec::new,
        fixed_bytes: |_| 0,
    };
    held(&greedy, &[0, 0, 1, 0]).unwrap();
    held(&greedy, &[0, 1, 2, 0]).unwrap_err();
}
