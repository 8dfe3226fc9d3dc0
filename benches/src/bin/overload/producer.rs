//! Producers that offer by a clock, whatever is answered.

use std::fmt;
use std::io::Write;
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use riverrun_record::{BatchBuilder, Compression};
use riverrun_wire::api::produce::{PartitionProduceData, TopicProduceData};
use riverrun_wire::api::{ProduceRequest, ProduceResponse};
use riverrun_wire::{Records, decode_response, encode_request};

use crate::broker::{self, PATIENCE, read_frame};

const PRODUCE: i16 = 9;
const REQUEST_TIMED_OUT: i16 = 7;
const RECORD_BYTES: usize = 1024;
/// Where the number of a request stands in it, behind its length, API and version.
const NUMBER_AT: usize = 8;
/// Requests whose answers are waited for where a producer does not hold itself back.
const GREEDY: usize = 1 << 16;

/// What is offered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) producers: usize,
    /// 0: what the socket takes.
    pub(crate) in_flight: usize,
    /// Of all together; `None`: the next batch when there is room for it.
    pub(crate) bytes_per_s: Option<f64>,
    pub(crate) seconds: u64,
    pub(crate) batch_bytes: usize,
    pub(crate) partitions: usize,
}

/// What was taken.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) bytes: u64,
    pub(crate) batches: u64,
    /// Answers with which a node asks to be tried again: it has too much to do (REQUEST_TIMED_OUT).
    pub(crate) refused: u64,
    pub(crate) errors: u64,
    pub(crate) seconds: f64,
}

impl Taken {
    pub(crate) fn mb_per_s(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a figure to be read")]
        let bytes = self.bytes as f64;
        if self.seconds > 0.0 {
            bytes / 1e6 / self.seconds
        } else {
            0.0
        }
    }
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rate, batches) = (self.mb_per_s(), self.batches);
        let (seconds, refused, errors) = (self.seconds, self.refused, self.errors);
        write!(
            f,
            "{rate:.1} MB/s acknowledged, {batches} batches in {seconds:.1} s, {refused} to be tried again, {errors} errors"
        )
    }
}

impl Load {
    /// Runs it on a topic.
    pub(crate) fn run(&self, brokers: &[String], topic: &str) -> Result<Taken> {
        let leaders = broker::leaders(brokers, topic)?;
        let end = Instant::now() + Duration::from_secs(self.seconds);
        let begun = Instant::now();
        let each: Result<Vec<Taken>> = thread::scope(|threads| {
            let running: Vec<_> = (0..self.producers)
                .map(|number| {
                    let partition = number % self.partitions;
                    let leader = leaders.get(partition).cloned();
                    threads.spawn(move || {
                        let leader = leader.context("a partition without a leader")?;
                        self.produce(&leader, topic, partition, end)
                    })
                })
                .collect();
            let ended = running.into_iter();
            ended
                .map(|thread| {
                    thread
                        .join()
                        .unwrap_or_else(|_| Err(anyhow::anyhow!("a panic")))
                })
                .collect()
        });
        let mut all = Taken {
            seconds: begun.elapsed().as_secs_f64(),
            ..Taken::default()
        };
        for taken in each? {
            all.bytes += taken.bytes;
            all.batches += taken.batches;
            all.refused += taken.refused;
            all.errors += taken.errors;
        }
        // Up to the last answer, or what was queued at the end would count as taken in time.
        Ok(all)
    }

    fn request(&self, topic: &str, partition: usize) -> Result<Vec<u8>> {
        let mut builder = BatchBuilder::new(Compression::None, None);
        let mut value = vec![0; RECORD_BYTES];
        ChaCha8Rng::seed_from_u64(partition as u64).fill_bytes(&mut value);
        while builder.is_empty() || builder.estimated_len() + RECORD_BYTES < self.batch_bytes {
            builder.append(1_700_000_000_000, None, Some(&value), &[])?;
        }
        let request = ProduceRequest {
            acks: -1,
            timeout_ms: 30_000,
            topic_data: vec![TopicProduceData {
                name: topic.to_owned(),
                partition_data: vec![PartitionProduceData {
                    index: i32::try_from(partition)?,
                    records: Some(Records::from(builder.build()?)),
                }],
                ..TopicProduceData::default()
            }],
            ..ProduceRequest::default()
        };
        Ok(encode_request(&request, PRODUCE, 0, Some("overload"))?
            .into_bytes()
            .to_vec())
    }

    fn produce(&self, leader: &str, topic: &str, partition: usize, end: Instant) -> Result<Taken> {
        let mut request = self.request(topic, partition)?;
        let bytes = request.len() as u64;
        let mut stream = TcpStream::connect(leader)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let answers = stream.try_clone()?;
        let in_flight = if self.in_flight == 0 {
            GREEDY
        } else {
            self.in_flight
        };
        // What is in the channel is in flight: to send waits for room.
        let (sent, to_come) = sync_channel(in_flight.saturating_sub(1));
        thread::scope(|threads| {
            let reader = threads.spawn(move || count(answers, &to_come, bytes));
            let written = self.write(&mut stream, &mut request, &sent, end);
            drop(sent);
            let taken = reader.join().unwrap_or_default();
            // A connection that was closed is among the errors.
            drop(written);
            Ok(taken)
        })
    }

    fn write(
        &self,
        stream: &mut TcpStream,
        request: &mut [u8],
        sent: &SyncSender<i32>,
        end: Instant,
    ) -> Result<()> {
        let share = self.bytes_per_s.map(|all| {
            #[expect(clippy::cast_precision_loss, reason = "a rate")]
            let batches = all / self.producers as f64 / request.len() as f64;
            Duration::from_secs_f64(1.0 / batches)
        });
        let mut due = Instant::now();
        for number in 1.. {
            let now = Instant::now();
            if now >= end {
                break;
            }
            if let Some(share) = share {
                due += share;
                if let Some(early) = due.checked_duration_since(now) {
                    thread::sleep(early);
                }
            }
            sent.send(number)?;
            let at = request
                .get_mut(NUMBER_AT..NUMBER_AT + 4)
                .context("a request")?;
            at.copy_from_slice(&number.to_be_bytes());
            stream.write_all(request)?;
        }
        Ok(())
    }
}

/// Counts answers until all have come. What is never answered is an error.
fn count(mut answers: TcpStream, to_come: &Receiver<i32>, bytes: u64) -> Taken {
    let mut taken = Taken::default();
    while let Ok(number) = to_come.recv() {
        match read_frame(&mut answers).and_then(|answer| error_of(&answer, number)) {
            Ok(0) => {
                taken.bytes += bytes;
                taken.batches += 1;
            }
            Ok(REQUEST_TIMED_OUT) => taken.refused += 1,
            Ok(_) => taken.errors += 1,
            Err(_) => {
                taken.errors += 1 + to_come.try_iter().count() as u64;
                break;
            }
        }
    }
    taken
}

fn error_of(answer: &bytes::Bytes, number: i32) -> Result<i16> {
    anyhow::ensure!(answer.starts_with(&number.to_be_bytes()), "out of order");
    let response = decode_response::<ProduceResponse>(answer, PRODUCE)?;
    let topic = response.responses.first().context("a topic")?;
    Ok(topic
        .partition_responses
        .first()
        .context("a partition")?
        .error_code)
}
