//! Bytes at rest that a start finds to be bad: put right by production code, with the entries of the other
//! replicas that can be asked then. What comes of it is held against what was ever written.
//!
//! A simulated replica whose bad bytes nobody can put right at its start is taken out of service, as the
//! simulator reads all of a log to compare it; a real one goes on beside them.

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
            let Ok(run) = reader.bad_run(index, MOST_ENTRIES) else {
                return inputs;
            };
            let mut entries = Vec::new();
            for bad in &run {
                let Some(entry) = self.ask_others(node, handle.group(), *bad, reader.term(*bad))
                else {
                    break;
                };
                entries.push(entry);
            }
            let Some(last) = entries.last().map(|entry| entry.index) else {
                return inputs;
            };
            match process.node.mend(handle.group(), &entries) {
                Ok(Mended::Sighted(input)) => inputs.push(*input),
                Ok(Mended::Done) => {}
                Ok(Mended::Gone) | Err(_) => return inputs,
            }
            self.summary.entries_mended += entries.len() as u64;
            index = last + 1;
        }
        inputs
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
