//! The command tree. Every flag's text is its documentation: help is made from here.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{position::Position, template::Template};

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// JSON, whose field names scripts may rely on.
    Json,
}

/// An append-only event log you can join at any point, spoken to with any Kafka client.
#[derive(Debug, Parser)]
#[command(name = "riverrun", version, propagate_version = true)]
#[command(
    after_help = "Exit status: 0 done, 1 failed, 2 called wrongly, 10 not healthy, 70 a fault of the program."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// `riverrun log` as a program of its own.
#[derive(Debug, Parser)]
#[command(
    name = "log-dump",
    version,
    about = "Read Riverrun's files offline; never writes"
)]
pub(crate) struct LogDumpCli {
    /// How results are written
    #[arg(long, value_enum, default_value_t, global = true)]
    pub(crate) format: Format,
    #[command(subcommand)]
    pub(crate) command: LogCommand,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Brokers to ask first, separated by commas
    #[arg(
        short,
        long,
        visible_alias = "bootstrap-server",
        env = "RIVERRUN_BROKERS",
        default_value = "127.0.0.1:9092",
        value_name = "HOST:PORT,...",
        value_delimiter = ',',
        global = true
    )]
    pub(crate) brokers: Vec<String>,
    /// How results are written
    #[arg(long, value_enum, default_value_t, global = true)]
    pub(crate) format: Format,
    /// How long a command may wait for an answer, in seconds
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600), global = true, value_name = "SECONDS")]
    pub(crate) timeout: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start one node for development and print how to reach it
    Dev(DevArgs),
    /// Start a node with a configuration in Kafka's names
    Server(ServerArgs),
    /// Show the nodes of the cluster, and whether it is well
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// List, create, describe and delete topics
    #[command(subcommand)]
    Topic(TopicCommand),
    /// Write the lines of standard input as records
    Produce(ProduceArgs),
    /// Read records from any position
    Consume(ConsumeArgs),
    /// Read the files of a node offline; never writes
    #[command(subcommand)]
    Log(LogCommand),
    /// Change what a stopped node's data directory is counted for
    #[command(subcommand)]
    Node(NodeCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Take everything in a data directory out of use under another name, so that a new node may begin there
    SetAside(NodeSetAsideArgs),
}

#[derive(Debug, Args)]
pub(crate) struct NodeSetAsideArgs {
    /// The data directory
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
    /// Only show what would be moved
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// Directory to keep the events in; without it a temporary one, removed at the end
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Address to listen on for Kafka clients; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    pub(crate) kafka: String,
    /// Listen on an address that other machines reach, though nothing asks for a password
    #[arg(long)]
    pub(crate) insecure: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// File of settings, as Kafka's server.properties
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// A setting, which counts over the file; may be given again
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    pub(crate) set: Vec<(String, String)>,
    /// Show what would be used and what would be passed over, and start nothing
    #[arg(long)]
    pub(crate) check_config: bool,
    /// Listen on addresses that other machines reach, though nothing asks for a password
    #[arg(long)]
    pub(crate) insecure: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Show the brokers, and the nodes that keep the cluster's state
    Info,
    /// Show what is not as it should be; exits with 10 where anything is not
    Health(HealthArgs),
}

#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// Look again every second, and show what has changed
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// Look until all is well, and exit then; waits for nodes that do not run yet
    #[arg(short, long)]
    pub(crate) exit_when_healthy: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TopicCommand {
    /// Show the topics
    #[command(visible_alias = "ls")]
    List(TopicListArgs),
    /// Create topics
    Create(TopicCreateArgs),
    /// Show a topic's partitions, offsets and settings
    Describe(TopicDescribeArgs),
    /// Delete topics and all their events
    Delete(TopicDeleteArgs),
}

#[derive(Debug, Args)]
pub(crate) struct TopicListArgs {
    /// Show the cluster's own topics too
    #[arg(short, long)]
    pub(crate) internal: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TopicCreateArgs {
    /// Names of the topics
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Number of partitions; without it the broker's default
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) partitions: Option<i32>,
    /// Number of replicas of each partition; without it the broker's default
    #[arg(short, long = "replicas", visible_alias = "replication-factor", value_name = "R", value_parser = clap::value_parser!(i16).range(1..))]
    pub(crate) replicas: Option<i16>,
    /// A setting of the topic; may be given again
    #[arg(short, long = "config", value_name = "K=V", value_parser = setting)]
    pub(crate) configs: Vec<(String, String)>,
    /// Succeed when the topic is there already
    #[arg(long)]
    pub(crate) if_not_exists: bool,
    /// Only ask whether it could be done
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TopicDescribeArgs {
    /// Names of the topics
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct TopicDeleteArgs {
    /// Names of the topics
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
    /// Only show what would be deleted
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Compression of produced batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Codec {
    #[default]
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// When a produced record counts as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum AcksArg {
    /// On disk on a majority.
    #[default]
    All,
    /// Written by the leader; may be lost.
    #[value(name = "1")]
    One,
    /// Sent; nobody answers.
    #[value(name = "0")]
    Zero,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Each line is one record. Printed for each, in the order of the lines: TOPIC/PARTITION @OFFSET
  echo 'k1:{\"id\":1}' | riverrun produce orders -K:
  riverrun produce orders -p 3 -z zstd < events.ndjson")]
pub(crate) struct ProduceArgs {
    /// Topic to write to
    #[arg(value_name = "TOPIC")]
    pub(crate) topic: String,
    /// Text that splits a line into key and value; a line without it has no key
    #[arg(short = 'K', long = "key-delimiter", value_name = "TEXT", value_parser = delimiter)]
    pub(crate) key_delimiter: Option<String>,
    /// Key of every record
    #[arg(short = 'k', long, conflicts_with = "key_delimiter")]
    pub(crate) key: Option<String>,
    /// Partition to write to; without it chosen by the key, as Kafka's Java client does
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    pub(crate) partition: Option<i32>,
    /// A header of every record; may be given again
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE", value_parser = setting)]
    pub(crate) headers: Vec<(String, String)>,
    /// Compression of the batches
    #[arg(short = 'z', long, value_enum, default_value_t, value_name = "CODEC")]
    pub(crate) compression: Codec,
    /// Write an empty value (and an empty key) as null, which is a tombstone
    #[arg(short = 'Z', long)]
    pub(crate) null_empty: bool,
    /// When a record counts as written
    #[arg(long, value_enum, default_value_t)]
    pub(crate) acks: AcksArg,
    /// Print nothing for written records
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Positions (-o):
  start, end            the first record that is there, the next one to come
  N, +N, -N             offset N, N after the start, N before the end
  @TIME                 the first record at or after a time: milliseconds or seconds since 1970,
                        2026-11-01, 2026-11-01T12:00:00Z, or an age such as @-15m
  A:B                   from A up to, not with, B (either may be any of the above)
Letters (-f):  %t topic  %p partition  %o offset  %k key  %s or %v value  %K %S %V their lengths
  (-1 for null)  %R value length as 4 bytes  %T or %d timestamp in ms  %h headers  %%  \\n \\t \\r \\0 \\xHH")]
pub(crate) struct ConsumeArgs {
    /// Topics to read
    #[arg(required = true, value_name = "TOPIC")]
    pub(crate) topics: Vec<String>,
    /// Partitions to read, separated by commas; without it all
    #[arg(short, long = "partition", value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(i32).range(0..))]
    pub(crate) partitions: Vec<i32>,
    /// Where to begin, and with A:B where to stop
    #[arg(
        short,
        long,
        default_value = "start",
        value_name = "POSITION",
        allow_hyphen_values = true
    )]
    pub(crate) offset: Position,
    /// Stop after this many records
    #[arg(short = 'n', long, value_name = "COUNT", visible_short_alias = 'c')]
    pub(crate) count: Option<u64>,
    /// Stop at the end that each partition had when the command started
    #[arg(short = 'e', long)]
    pub(crate) exit_at_end: bool,
    /// How each record is written
    #[arg(
        short = 'f',
        long = "template",
        value_name = "FORMAT",
        conflicts_with = "json",
        allow_hyphen_values = true
    )]
    pub(crate) template: Option<Template>,
    /// Write each record as one line of JSON (same as --format json)
    #[arg(short = 'J', long)]
    pub(crate) json: bool,
    /// Write the key too, followed by this text
    #[arg(short = 'K', long = "key-delimiter", value_name = "TEXT", conflicts_with_all = ["template", "json"], value_parser = delimiter)]
    pub(crate) key_delimiter: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Show a segment, raft, index, producer snapshot or WAL file, or a whole data directory
    Dump(LogDumpArgs),
    /// Check every checksum, index and order in a data directory
    Verify(LogVerifyArgs),
}

#[derive(Debug, Args)]
pub(crate) struct LogDumpArgs {
    /// File or directory
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// Show the records, not only the batches
    #[arg(long)]
    pub(crate) records: bool,
    /// First offset to show; of .raft and .aux files the first index
    #[arg(long, value_name = "N")]
    pub(crate) from: Option<i64>,
    /// Last offset or index to show
    #[arg(long, value_name = "N")]
    pub(crate) to: Option<i64>,
}

#[derive(Debug, Args)]
pub(crate) struct LogVerifyArgs {
    /// Data directory, or the directory of one partition
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
}

/// Splits `name=value`.
fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected name=value".to_owned()),
    }
}

/// Text between two parts of a line.
fn delimiter(text: &str) -> Result<String, String> {
    if text.is_empty() {
        Err("it must not be empty".to_owned())
    } else {
        Ok(unescape(text))
    }
}

/// Turns `\t`, `\n`, `\r`, `\0` and `\\` into what they stand for: a shell makes them hard to type.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('t') => out.push('\t'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('0') => out.push('\0'),
            Some('\\') => out.push('\\'),
            Some(other) => {
                out.push('\\');
                out.push(other);
            }
            None => out.push('\\'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once(&"riverrun").chain(line))
    }

    #[test]
    fn the_tree_is_sound() {
        Cli::command().debug_assert();
        LogDumpCli::command().debug_assert();
    }

    #[test]
    fn the_forms_that_scripts_rely_on_are_accepted() {
        for line in [
            "dev",
            "dev --data d --kafka 127.0.0.1:0",
            "server",
            "server --config f --set a=b --set c=d=e --check-config --insecure",
            "cluster info",
            "cluster health --format json",
            "cluster health --watch --exit-when-healthy",
            "topic list",
            "topic list --format json",
            "topic create orders -p 3 -r 1 --config k=v --config a=b=c",
            "topic describe orders -b a:1,b:2",
            "topic delete orders --yes",
            "-b a:1 topic list",
            "--bootstrap-server a:1 topic list",
            "produce orders",
            "produce orders -K:",
            "produce orders -K: -p 2",
            "consume orders",
            "consume orders -o start -n 1 -J",
            "consume orders -o end -e",
            "consume orders -o 7",
            "consume orders -o +7",
            "consume orders -o -7",
            "consume orders -o @1700000000000",
            "consume orders -o @2026-11-01:end",
            "consume orders -p 0 -p 1 -f %o\\n",
            "consume orders -p 0,1",
            "log dump d --records --from 1 --to 2 --format json",
            "log verify d",
        ] {
            let args: Vec<&str> = line.split(' ').collect();
            if let Err(e) = parse(&args) {
                panic!("{line}: {e}");
            }
        }
    }

    #[test]
    fn what_is_called_wrongly_is_refused() {
        for line in [
            "",
            "server --set novalue",
            "cluster",
            "topic",
            "topic create",
            "topic create orders -p 0",
            "topic create orders --config novalue",
            "consume",
            "consume orders -o sometime",
            "consume orders -J -f %s",
            "consume orders -f %q",
            "produce orders -k a -K:",
            "produce orders -z brotli",
            "topic list --format yaml",
            "topic list --timeout 0",
        ] {
            let args: Vec<&str> = line.split(' ').filter(|w| !w.is_empty()).collect();
            assert!(parse(&args).is_err(), "{line}");
        }
    }

    #[test]
    fn brokers_are_a_list() {
        let Ok(cli) = parse(&["topic", "list", "-b", "a:1,b:2"]) else {
            panic!("parses")
        };
        assert_eq!(cli.global.brokers, ["a:1", "b:2"]);
    }

    #[test]
    fn delimiters_may_be_escaped() {
        assert_eq!(unescape("\\t"), "\t");
        assert_eq!(unescape(":\\n\\\\"), ":\n\\");
        assert_eq!(unescape("a\\qb\\"), "a\\qb\\");
    }
}
