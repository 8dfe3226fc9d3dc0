//! From a place to an offset.

use std::collections::BTreeMap;

use crate::{
    admin::{OffsetSpec, TopicPartition},
    cluster::Client,
    error::Result,
};

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the first record that is there.
    Beginning,
    /// Behind the last one.
    End,
    /// At an offset.
    Offset(i64),
    /// So many offsets after the first record.
    AfterBeginning(i64),
    /// So many offsets before the end, but not before the first record.
    BeforeEnd(i64),
    /// At the first record at or after a time, in milliseconds since 1970; behind the last record
    /// if all are older.
    Timestamp(i64),
}

impl Client {
    /// The offsets of these places as they are now.
    ///
    /// # Errors
    /// If a partition does not exist, or its leader cannot be asked in time.
    pub async fn resolve(
        &self,
        places: &BTreeMap<TopicPartition, Start>,
    ) -> Result<BTreeMap<TopicPartition, i64>> {
        resolve(self, places).await
    }
}

/// All asked of the leaders in as few requests as there are kinds.
async fn resolve(
    client: &Client,
    places: &BTreeMap<TopicPartition, Start>,
) -> Result<BTreeMap<TopicPartition, i64>> {
    let wants = |want: fn(&Start) -> bool, spec: OffsetSpec| -> Vec<_> {
        places
            .iter()
            .filter(|(_, start)| want(start))
            .map(|(place, _)| (place.clone(), spec))
            .collect()
    };
    let needs_start = |s: &Start| {
        matches!(
            s,
            Start::Beginning | Start::AfterBeginning(_) | Start::BeforeEnd(_)
        )
    };
    let needs_end = |s: &Start| matches!(s, Start::End | Start::BeforeEnd(_) | Start::Timestamp(_));
    let times: Vec<_> = places
        .iter()
        .filter_map(|(place, start)| match start {
            Start::Timestamp(ms) => Some((place.clone(), OffsetSpec::Timestamp(*ms))),
            _ => None,
        })
        .collect();
    // Ends are asked for before times: a record that is written between the two questions is then
    // found by its time, or lies at or behind the end. It is never skipped.
    let ends = client
        .list_offsets(&wants(needs_end, OffsetSpec::End))
        .await?;
    let times = client.list_offsets(&times).await?;
    let starts = client
        .list_offsets(&wants(needs_start, OffsetSpec::Start))
        .await?;
    let of = |map: &BTreeMap<_, crate::ListedOffset>, place: &TopicPartition| {
        map.get(place).and_then(|l| l.offset)
    };
    let mut resolved = BTreeMap::new();
    for (place, start) in places {
        let first = of(&starts, place).unwrap_or(0);
        let end = of(&ends, place).unwrap_or(0);
        let offset = match *start {
            Start::Beginning => first,
            Start::End => end,
            Start::Offset(offset) => offset,
            Start::AfterBeginning(n) => first.saturating_add(n),
            Start::BeforeEnd(n) => end.saturating_sub(n).max(first),
            Start::Timestamp(_) => of(&times, place).unwrap_or(end),
        };
        resolved.insert(place.clone(), offset);
    }
    Ok(resolved)
}
