//! What a failed command prints and exits with.

use std::{fmt, io, process::ExitCode};

use riverrun_client::{Error, ErrorCode};
use riverrun_server::StartError;

/// A command that was called in a way that cannot work: exits with 2 instead of 1.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Something that failed, with what may be done about it.
#[derive(Debug)]
pub(crate) struct Advised {
    pub(crate) what: String,
    pub(crate) next: &'static str,
}

impl fmt::Display for Advised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Advised {}

/// A command that has already said, in its own output, what failed.
#[derive(Debug)]
pub(crate) struct Reported;

impl fmt::Display for Reported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failed")
    }
}

impl std::error::Error for Reported {}

/// A cluster that is not as it should be: exits with 10, and its report has said why.
#[derive(Debug)]
pub(crate) struct Unhealthy;

impl fmt::Display for Unhealthy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the cluster is not healthy")
    }
}

impl std::error::Error for Unhealthy {}

/// Turns a command's result into an exit status, printing the error.
pub(crate) fn finish(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    if is_broken_pipe(&error) {
        // Whoever read our output has seen enough (`riverrun consume t | head -1`).
        return ExitCode::SUCCESS;
    }
    if error.is::<Reported>() {
        return ExitCode::FAILURE;
    }
    if error.is::<Unhealthy>() {
        return ExitCode::from(10);
    }
    report(&error);
    status(&error)
}

/// The exit status of a failed command.
fn status(error: &anyhow::Error) -> ExitCode {
    if error.is::<Usage>() {
        return ExitCode::from(2);
    }
    let of_node = error.downcast_ref().map(StartError::exit_status);
    of_node.map_or(ExitCode::FAILURE, ExitCode::from)
}

/// Prints one error, with its causes and the next step where one is known.
pub(crate) fn report(error: &anyhow::Error) {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Errors of libraries often repeat their source in their own text.
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    eprintln!("error: {text}");
    if let Some(next) = error.chain().find_map(next) {
        eprintln!("  next: {next}");
    }
}

/// What a person may do about one of the errors of a chain.
fn next(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    if let Some(error) = error.downcast_ref() {
        return next_step(error);
    }
    if let Some(error) = error.downcast_ref() {
        return Some(start_again(error).to_owned());
    }
    if let Some(Advised { next, .. }) = error.downcast_ref() {
        return Some((*next).to_owned());
    }
    // A usage error that knows better says so in its own words.
    let Usage(text) = error.downcast_ref()?;
    (!text.contains("next:")).then(|| "see what the command takes with --help".to_owned())
}

/// What a person may do about a node that does not start, or had to stop.
fn start_again(error: &StartError) -> &'static str {
    match error {
        StartError::NotLoopback { .. } => {
            "listen on 127.0.0.1, or pass --insecure where everybody who can connect may"
        }
        StartError::Bind { .. } => {
            "stop what listens there, or choose another address: `dev --kafka HOST:PORT`, listeners of `server` (port 0 takes a free one)"
        }
        StartError::Data { .. } => {
            "see that no other node runs on it and that it can be written, check it with `riverrun log verify DIR`, or name another: `dev --data DIR`, log.dirs of `server`"
        }
        StartError::Controller(_) => {
            "see what is damaged with `riverrun log verify DIR`, and restore that directory from a copy"
        }
        StartError::Thread(_) => "allow the process more threads (`ulimit -u`)",
        StartError::Fatal(_) => {
            "see that its disk is whole and has room, and start again: what was acknowledged is there"
        }
        StartError::Ended { .. } => {
            "start it again: what was acknowledged is there; this is a fault of the program, which its log describes"
        }
        _ => "see the lines above",
    }
}

/// What a person may do about an error of the client.
fn next_step(error: &Error) -> Option<String> {
    let step = match error {
        Error::NoBroker { .. } | Error::Connection { .. } | Error::Disconnected { .. } => {
            "see that a node runs there (`riverrun dev` starts one), or name another with -b HOST:PORT".to_owned()
        }
        Error::Timeout { .. } => "see whether the node is overloaded, or wait longer with --timeout SECONDS".to_owned(),
        Error::GaveUp { last: Some(last), .. } => return next_step(last),
        Error::GaveUp { last: None, .. } => {
            "see whether the node is overloaded, or wait longer with --timeout SECONDS".to_owned()
        }
        Error::Malformed { .. } | Error::Protocol { .. } | Error::UnsupportedVersion { .. } => {
            "see that the address is that of a Kafka-compatible broker, without TLS".to_owned()
        }
        Error::UnknownTopic { topic } => {
            format!("create it with `riverrun topic create {topic}`, or see `riverrun topic list`")
        }
        Error::UnknownPartition { topic, .. } => format!("see `riverrun topic describe {topic}`"),
        Error::RecordTooLarge { .. } => "send smaller records, or keep the large part elsewhere".to_owned(),
        Error::OffsetOutOfRange { .. } => "read what is there with -o start, or wait for more with -o end".to_owned(),
        Error::CorruptBatch { .. } => {
            "check the files of the node that leads it with `riverrun log verify DIR`".to_owned()
        }
        Error::Refused { code, .. } => match *code {
            ErrorCode::TopicAlreadyExists => "choose another name, or pass --if-not-exists".to_owned(),
            ErrorCode::InvalidReplicationFactor => "pass -r with at most the number of brokers".to_owned(),
            ErrorCode::InvalidTopicException => {
                "use letters, digits, '.', '_' and '-', at most 249 of them".to_owned()
            }
            ErrorCode::InvalidConfig => "correct or drop the --config that is named".to_owned(),
            ErrorCode::UnknownTopicOrPartition => "see `riverrun topic list`".to_owned(),
            ErrorCode::MessageTooLarge => {
                "send smaller records, or create the topic with a larger --config max.message.bytes".to_owned()
            }
            ErrorCode::KafkaStorageError => "see the node's log: its disk is full or failing".to_owned(),
            ErrorCode::InvalidPartitions => "pass -p with a number that the message allows".to_owned(),
            ErrorCode::InvalidTimestamp => {
                "see message.timestamp.before.max.ms and .after.max.ms of the topic (`riverrun topic describe`), and the clock".to_owned()
            }
            ErrorCode::NotEnoughReplicas | ErrorCode::NotEnoughReplicasAfterAppend => {
                "see which replicas are in sync with `riverrun topic describe`: min.insync.replicas wants more".to_owned()
            }
            code if code.is_retriable() => "try again; if that does not help, see the node's log".to_owned(),
            _ => "see the node's log, which has a line about it".to_owned(),
        },
        Error::LogTruncated { end, .. } => {
            format!("read on from where the two part with -o {end}, if what was read before is taken back")
        }
        Error::InvalidRecord { .. } => "change the record that is named".to_owned(),
        _ => return None,
    };
    Some(step)
}

/// Prints what clap found wrong, or the help that was asked for.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    // Nobody is left to tell if even this cannot be written.
    let _ = error.print();
    if error.use_stderr() {
        ExitCode::from(2)
    } else {
        ExitCode::SUCCESS
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|e| {
        e.downcast_ref::<io::Error>()
            .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    })
}
