//! The `riverrun` command line.
//!
//! What it is: the command tree, the forms in which offsets, times and output are written, and one
//! file for each command. What it is not: a home for logic that others need; that is in
//! `riverrun-client` (talking to brokers), `riverrun-server` (being one) and `riverrun-storage`.
//!
//! | File | Holds |
//! |---|---|
//! | `cli` | the command tree |
//! | `failure` | what a failed command prints and exits with |
//! | `output` | tables and JSON |
//! | `template` | kcat's and rpk's format letters |
//! | `position` | the forms of `-o` |
//! | `timestamp` | the forms of a point in time |
//! | `base64` | topic ids and bytes that are not text |
//! | `dump` | the files of a node, read offline |
//! | `cmd/*` | one command each |
//!
//! What scripts may rely on: the flags and arguments, the names of JSON fields, and the exit
//! status: 0 done, 1 failed, 2 called wrongly.
#![forbid(unsafe_code)]

mod base64;
mod cli;
mod cmd;
mod dump;
mod failure;
mod output;
mod position;
mod template;
mod timestamp;

use std::{ffi::OsString, process::ExitCode};

use clap::Parser;

/// Runs `riverrun` with the arguments given (the first is the program's name).
pub fn run<I, T>(args: I) -> ExitCode
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    match cli::Cli::try_parse_from(args) {
        Ok(cli) => failure::finish(cmd::run(cli)),
        Err(e) => failure::usage(&e),
    }
}

/// Runs `log-dump`: the subcommands of `riverrun log`, without the rest.
pub fn run_log_dump<I, T>(args: I) -> ExitCode
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    match cli::LogDumpCli::try_parse_from(args) {
        Ok(cli) => failure::finish(cmd::log::run(&cli.command, cli.format)),
        Err(e) => failure::usage(&e),
    }
}
