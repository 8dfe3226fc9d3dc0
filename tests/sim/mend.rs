//! Bytes at rest that a start finds to be bad: put right by production code, with the entries of the other
//! replicas that can be asked then. What comes of it is held against what was ever written.
//!
//! A simulated replica whose bad bytes nobody can put right at its start waits until somebody can, where only
//! records of batches are bad, and is taken out of service where more may be: the simulator reads all of a log
//! to compare it. A real one goes on beside them.

use riverrun_replication::PartitionHandle;
use riverrun_replication::node::mend::Mended;
use riverrun_replication::shard::Input;
use riverrun_storage::LogEntry;

use crate::host::Process;
use crate::world::World;

/// Entries of one place that are put right together.
const MOST_ENTRIES: usize = 64;

impl World {
    /// Puts right what is bad in a replica's files, if the others have it; the inputs tell its shard.
    pub fn mend_at_start(
        &mut self,
        node: usize,
        process: &Process,
        handle: &PartitionHandle,
    ) -> Vec<Input> {
        let mut inputs = Vec::new();
        let reader = handle.reader();
        let mut index = reader.first_index();
        while index <= reader.last_index() {
            if reader.verify(index).is_ok() {
                index += 1;
                continue;
            }
            let (input, count) = self.mend_run(node, process, handle, index);
            inputs.extend(input);
            if count == 0 {
                return inputs;
            }
            self.summary.entries_mended += count;
            index += count;
        }
        inputs
    }

    /// Puts one place right, with what the page cache or the others have; how many entries that were, and what
    /// the shard is to be told.
    pub fn mend_run(
        &self,
        node: usize,
        process: &Process,
        handle: &PartitionHandle,
        first: u64,
    ) -> (Option<Input>, u64) {
        let reader = handle.reader();
        let mut entries = Vec::new();
        for bad in reader.bad_run(first, MOST_ENTRIES).unwrap_or_default() {
            let term = reader.term(bad);
            let own = reader.entries(bad, bad + 1, u64::MAX).ok();
            let own = own.and_then(|mut own| own.pop());
            let entry = own.or_else(|| self.ask_others(node, handle.group(), bad, term));
            let Some(entry) = entry else {
                break;
            };
            entries.push(entry);
        }
        if entries.is_empty() {
            return (None, 0);
        }
        let count = entries.len() as u64;
        match process.node.mend(handle.group(), &entries) {
            Ok(Mended::Sighted(input)) => (Some(*input), count),
            Ok(Mended::Done) => (None, count),
            Ok(Mended::Gone) | Err(_) => (None, 0),
        }
    }

    /// An entry as another replica has it.
    fn ask_others(
        &self,
        node: usize,
        group: u64,
        index: u64,
        term: Option<u64>,
    ) -> Option<LogEntry> {
        let others = (0..self.hosts.len()).filter(|other| *other != node);
        let connected = others.filter(|other| !self.network.is_cut(node, *other));
        let handles = connected.filter_map(|other| self.process(other)?.node.handle(group));
        let have = handles.filter(|handle| term.is_some() && handle.reader().term(index) == term);
        let mut read = have.filter_map(|handle| {
            let entries = handle.reader().entries(index, index + 1, u64::MAX).ok()?;
            entries.into_iter().next()
        });
        read.next()
    }
}
