//! `riverrun consume`: records out, from any position.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    time::Duration,
};

use anyhow::bail;
use riverrun_client::{
    Client, Consumer, ConsumerConfig, Error, Fetched, Record, Start, TopicPartition,
};
use serde::{Serialize, Serializer};
use tokio::time::timeout;

use crate::{
    base64,
    cli::{ConsumeArgs, Format, Global},
    cmd::{connect, now_ms},
    failure::Usage,
    output::{self, Stdout},
    position::Point,
    template::Template,
};

pub(super) async fn run(global: &Global, args: ConsumeArgs) -> anyhow::Result<()> {
    let shape = match (args.template, args.json || global.format == Format::Json) {
        (Some(template), _) => Shape::Template(template),
        (None, true) => Shape::Json,
        (None, false) => Shape::Template(Template::plain(args.key_delimiter.as_deref())),
    };
    if args.offset.to.is_some() && args.exit_at_end {
        bail!(Usage(
            "-e and an end in -o contradict each other: pass one of them".to_owned()
        ));
    }
    let client = connect(global).await?;
    let places = places(&client, &args.topics, &args.partitions).await?;
    let to = if args.exit_at_end {
        Some(Point::End)
    } else {
        args.offset.to
    };
    let now_ms = now_ms();
    // Ends first: what is written between the two questions then lies behind them.
    let ends = match to {
        Some(point) => offsets(&client, &places, point, now_ms).await?,
        None => BTreeMap::new(),
    };
    let starts = offsets(&client, &places, args.offset.from, now_ms).await?;
    let mut output = Output {
        out: output::stdout(),
        shape,
        left: args.count,
        ends,
    };
    let mut consumer = Consumer::new(client, ConsumerConfig::default())?;
    let starts = starts
        .into_iter()
        .filter(|(place, start)| !output.is_done(place, *start));
    let assigned = consumer
        .assign(starts.map(|(place, start)| (place, Start::Offset(start))))
        .await?;
    read(&mut consumer, assigned.len(), &mut output).await
}

/// Reads until all is done or the user has seen enough.
async fn read(consumer: &mut Consumer, mut open: usize, output: &mut Output) -> anyhow::Result<()> {
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    while open > 0 && output.left != Some(0) {
        // Written out whenever there is nothing more at hand, so that a person sees it at once.
        let fetched = match timeout(Duration::ZERO, consumer.next()).await {
            Ok(fetched) => fetched,
            Err(_) => {
                output.out.flush()?;
                tokio::select! {
                    fetched = consumer.next() => fetched,
                    _ = &mut interrupted => break,
                }
            }
        };
        let fetched = match fetched {
            Ok(fetched) => fetched,
            Err(error) => {
                output.out.flush()?;
                return Err(error.into());
            }
        };
        if output.write(&fetched)? {
            let place = TopicPartition::new(&*fetched.topic, fetched.partition);
            consumer.unassign(&place)?;
            open -= 1;
        }
    }
    output.out.flush()?;
    Ok(())
}

/// The partitions to read.
async fn places(
    client: &Client,
    topics: &[String],
    partitions: &[i32],
) -> anyhow::Result<Vec<TopicPartition>> {
    let mut places = Vec::new();
    for name in topics {
        let topic = client.topic(name).await?;
        if partitions.is_empty() {
            places.extend(
                topic
                    .partitions
                    .iter()
                    .map(|p| TopicPartition::new(name, p.number)),
            );
        }
        for partition in partitions {
            if topic.partition(*partition).is_none() {
                return Err(Error::UnknownPartition {
                    topic: name.clone(),
                    partition: *partition,
                }
                .into());
            }
            places.push(TopicPartition::new(name, *partition));
        }
    }
    places.sort();
    places.dedup();
    Ok(places)
}

/// The offset of a point in each partition.
///
/// An offset that a partition does not hold is an error where one partition is read; where several
/// are, it is taken to the nearest end, as partitions differ in length.
async fn offsets(
    client: &Client,
    places: &[TopicPartition],
    point: Point,
    now_ms: i64,
) -> anyhow::Result<BTreeMap<TopicPartition, i64>> {
    let all = |start: Start| {
        places
            .iter()
            .map(|place| (place.clone(), start))
            .collect::<BTreeMap<_, _>>()
    };
    let (start, is_exact) = match point {
        Point::Start => (Start::Beginning, false),
        Point::End => (Start::End, false),
        Point::Offset(offset) => (Start::Offset(offset), true),
        Point::AfterStart(n) => (Start::AfterBeginning(n), true),
        Point::BeforeEnd(n) => (Start::BeforeEnd(n), false),
        Point::Time(when) => (Start::Timestamp(when.resolve(now_ms)), false),
    };
    let mut found = client.resolve(&all(start)).await?;
    if !is_exact {
        return Ok(found);
    }
    let (first, last) = (
        client.resolve(&all(Start::Beginning)).await?,
        client.resolve(&all(Start::End)).await?,
    );
    for (place, offset) in &mut found {
        let start = first.get(place).copied().unwrap_or(0);
        let end = last.get(place).copied().unwrap_or(i64::MAX);
        if (start..=end).contains(offset) {
            continue;
        }
        if places.len() == 1 {
            let TopicPartition { topic, partition } = place.clone();
            return Err(Error::OffsetOutOfRange {
                topic,
                partition,
                offset: *offset,
                start,
                end,
            }
            .into());
        }
        *offset = (*offset).clamp(start, end);
    }
    Ok(found)
}

/// How records are written.
enum Shape {
    Template(Template),
    Json,
}

/// Where records go, and how many more of them.
struct Output {
    out: Stdout,
    shape: Shape,
    left: Option<u64>,
    ends: BTreeMap<TopicPartition, i64>,
}

impl Output {
    /// Whether nothing of a partition is wanted from this offset on.
    fn is_done(&self, place: &TopicPartition, next_offset: i64) -> bool {
        self.ends.get(place).is_some_and(|end| next_offset >= *end)
    }

    /// Writes what is wanted of it, and says whether the partition is done.
    fn write(&mut self, fetched: &Fetched) -> anyhow::Result<bool> {
        let place = TopicPartition::new(&*fetched.topic, fetched.partition);
        for record in &fetched.records {
            if self.left == Some(0) || self.is_done(&place, record.offset) {
                break;
            }
            match &self.shape {
                Shape::Template(template) => {
                    template.write(&mut self.out, &fetched.topic, fetched.partition, record)?;
                }
                Shape::Json => {
                    let line = Line::new(fetched, record);
                    serde_json::to_writer(&mut self.out, &line).map_err(io::Error::from)?;
                    self.out.write_all(b"\n")?;
                }
            }
            self.left = self.left.map(|left| left - 1);
        }
        Ok(self.is_done(&place, fetched.next_offset))
    }
}

/// A record as JSON, with kcat's names. Bytes that are not text stand under a name of their own.
#[derive(Debug, Serialize)]
struct Line<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    ts: i64,
    /// Names and values in turn.
    headers: Vec<Text<'a>>,
    #[serde(skip_serializing_if = "is_binary")]
    key: Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "is_binary")]
    payload: Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

#[derive(Debug)]
enum Text<'a> {
    Null,
    Plain(&'a str),
    Binary(&'a [u8]),
}

impl<'a> Text<'a> {
    fn of(bytes: Option<&'a [u8]>) -> Self {
        match bytes.map(|b| (std::str::from_utf8(b), b)) {
            None => Self::Null,
            Some((Ok(text), _)) => Self::Plain(text),
            Some((Err(_), bytes)) => Self::Binary(bytes),
        }
    }

    fn base64(&self) -> Option<String> {
        match self {
            Self::Binary(bytes) => Some(base64::standard(bytes)),
            _ => None,
        }
    }
}

fn is_binary(text: &Text<'_>) -> bool {
    matches!(text, Text::Binary(_))
}

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_none(),
            Self::Plain(text) => serializer.serialize_str(text),
            // In a list of headers there is no other name to put it under.
            Self::Binary(bytes) => {
                serializer.serialize_str(&format!("base64:{}", base64::standard(bytes)))
            }
        }
    }
}

impl<'a> Line<'a> {
    fn new(fetched: &'a Fetched, record: &'a Record) -> Self {
        let (key, payload) = (
            Text::of(record.key.as_deref()),
            Text::of(record.value.as_deref()),
        );
        let headers = record.headers.iter();
        Self {
            topic: &fetched.topic,
            partition: fetched.partition,
            offset: record.offset,
            ts: record.timestamp,
            headers: headers
                .flat_map(|(n, v)| [Text::of(Some(n)), Text::of(v.as_deref())])
                .collect(),
            key_base64: key.base64(),
            key,
            payload_base64: payload.base64(),
            payload,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn line(key: Option<&'static [u8]>, value: Option<&'static [u8]>) -> String {
        let record = Record {
            offset: 7,
            timestamp: 5,
            key: key.map(Bytes::from_static),
            value: value.map(Bytes::from_static),
            headers: vec![(Bytes::from_static(b"h"), None)],
        };
        let fetched = Fetched {
            topic: "t".into(),
            partition: 1,
            records: vec![record.clone()],
            next_offset: 8,
            high_watermark: 8,
        };
        serde_json::to_string(&Line::new(&fetched, &record)).unwrap_or_default()
    }

    #[test]
    fn json_has_kcats_names_and_loses_nothing() {
        assert_eq!(
            line(Some(b"k"), None),
            r#"{"topic":"t","partition":1,"offset":7,"ts":5,"headers":["h",null],"key":"k","payload":null}"#
        );
        assert_eq!(
            line(None, Some(b"\xff")),
            r#"{"topic":"t","partition":1,"offset":7,"ts":5,"headers":["h",null],"key":null,"payload_base64":"/w=="}"#
        );
    }
}
