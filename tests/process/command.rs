//! Other people's programs, with a deadline.

use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// What a program said.
pub(crate) struct Said {
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl Said {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }
}

/// Runs a program to its end with `input` on its standard input. An exit status other than 0, or
/// the deadline passing, is an error that carries what the program said.
pub(crate) fn run(command: &mut Command, input: &[u8], limit: Duration) -> Result<Said> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {name}"))?;
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let input = input.to_vec();
    // A program that ends before it has read all of its input is judged by its status.
    let feed = thread::spawn(move || drop(stdin.write_all(&input)));
    let out = thread::spawn(move || {
        let mut bytes = Vec::new();
        stdout.read_to_end(&mut bytes).map(|_| bytes)
    });
    let err = thread::spawn(move || {
        let mut bytes = Vec::new();
        stderr.read_to_end(&mut bytes).map(|_| bytes)
    });
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            break None;
        }
        thread::sleep(Duration::from_millis(2));
    };
    feed.join().unwrap();
    let out = out.join().unwrap()?;
    let err = String::from_utf8_lossy(&err.join().unwrap()?).into_owned();
    let said = Said { out, err };
    match status {
        Some(status) if status.success() => Ok(said),
        Some(status) => bail!(
            "{name} failed with {status}\n{}\n{}",
            tail(&said.text()),
            tail(&said.err)
        ),
        None => bail!(
            "{name} did not end in {limit:?}\n{}\n{}",
            tail(&said.text()),
            tail(&said.err)
        ),
    }
}

/// The last lines of a text, which is where programs say what went wrong.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
