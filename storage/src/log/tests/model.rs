//! A log against a vector.

use proptest::prelude::*;

use crate::disk::MemDisk;
use crate::entry::{EntryKind, LogEntry};
use crate::recovered::{LogStart, StoredConf};

use super::harness::{Maker, all, create, no_producers_before, open, record};

#[derive(Debug, Clone)]
enum Op {
    Append(Vec<u8>),
    Truncate(u8),
    DropHead(u8),
    Reset,
    Reopen,
    Fetch(u8, u16),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => proptest::collection::vec(any::<u8>(), 1..20).prop_map(Op::Append),
        2 => any::<u8>().prop_map(Op::Truncate),
        1 => any::<u8>().prop_map(Op::DropHead),
        1 => Just(Op::Reset),
        2 => Just(Op::Reopen),
        3 => (any::<u8>(), any::<u16>()).prop_map(|(at, max)| Op::Fetch(at, max)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_log_is_a_vector_of_entries(ops in proptest::collection::vec(op(), 1..40)) {
        let disk = MemDisk::new();
        let mut start = LogStart { prev_index: 4, prev_term: 2, offset: 50 };
        let mut birth = start;
        let mut log = create(&disk, start);
        let mut model: Vec<LogEntry> = Vec::new();
        let mut term = 3;
        for op in ops {
            match op {
                Op::Append(kinds) => {
                    let mut make = Maker::after(&model, start);
                    make.term = make.term.max(term - 1);
                    let mut entries = vec![];
                    if make.term < term {
                        entries.push(make.noop());
                    }
                    for kind in kinds {
                        entries.push(match kind % 8 {
                            0 => make.conf("conf"),
                            1 => make.command("command"),
                            _ => make.data(1 + usize::from(kind % 3), usize::from(kind) * 4),
                        });
                    }
                    log.append(&entries).unwrap();
                    model.extend(entries);
                }
                Op::Truncate(at) => {
                    let at = usize::from(at) * (model.len() + 1) / 256;
                    log.truncate_from(start.prev_index + 1 + at as u64).unwrap();
                    model.truncate(at);
                    term += 1;
                }
                Op::DropHead(at) => {
                    let at = start.prev_index + 1 + (usize::from(at) * (model.len() + 1) / 256) as u64;
                    let new = log.drop_head(at, &StoredConf::default()).unwrap();
                    prop_assert!(new.prev_index < at);
                    model.drain(..(new.prev_index - start.prev_index) as usize);
                    start = new;
                }
                Op::Reset => {
                    let last = log.last_index();
                    start = LogStart { prev_index: last + 10, prev_term: term, offset: log.next_offset() + 7 };
                    birth = start;
                    term += 1;
                    model.clear();
                    no_producers_before(&mut log, start);
                    log.reset(start, &StoredConf::default()).unwrap();
                }
                Op::Reopen => {
                    drop(log);
                    let mut known = record(birth);
                    known.durable_index = start.prev_index + model.len() as u64;
                    let (opened, recovery) = open(&disk, &known).unwrap();
                    prop_assert_eq!(recovery.cut_at, None);
                    log = opened;
                }
                Op::Fetch(at, max) => {
                    let data: Vec<_> = model.iter().filter(|e| e.kind == EntryKind::Data).collect();
                    let end = log.next_offset();
                    let from = start.offset + (end - start.offset) * i64::from(at) / 256;
                    let fetched = log.reader().fetch(from, end, usize::from(max), false).unwrap();
                    let mut want = vec![];
                    for entry in data.iter().filter(|entry| entry.next_offset() > from) {
                        if want.len() + entry.payload.len() > usize::from(max) {
                            break;
                        }
                        want.extend_from_slice(&entry.payload);
                    }
                    prop_assert_eq!(fetched.batches.concat(), want);
                }
            }
            prop_assert_eq!(log.start(), start);
            prop_assert_eq!(log.last_index(), start.prev_index + model.len() as u64);
            prop_assert_eq!(all(&log), model.clone());
            for entry in &model {
                prop_assert_eq!(log.reader().term(entry.index), Some(entry.term));
            }
        }
    }
}
