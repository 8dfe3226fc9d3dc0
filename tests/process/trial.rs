//! A test of this binary, and the list of what was left out.

use anyhow::Result;
use libtest_mimic::{Completion, Failed, Trial};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::sync::Mutex;

static SKIPPED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Something that this machine lacks; returned as an error, it makes a test count as ignored.
#[derive(Debug)]
pub(crate) struct Skip {
    what: String,
    why: String,
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SKIPPED: {} ({})", self.what, self.why)
    }
}

impl std::error::Error for Skip {}

/// What was left out, why, and how to run it.
pub(crate) fn skip(what: impl Into<String>, why: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Skip {
        what: what.into(),
        why: why.into(),
    })
}

/// One named test. An error is a failure, a [`Skip`] anywhere in its chain is not.
pub(crate) fn trial(
    name: impl Into<String>,
    body: impl FnOnce() -> Result<()> + Send + 'static,
) -> Trial {
    Trial::ignorable_test(name, move || match body() {
        Ok(()) => Ok(Completion::Completed),
        Err(error) => match error.downcast_ref::<Skip>() {
            Some(skip) => {
                say(skip);
                Ok(Completion::ignored_with(&skip.what))
            }
            None => Err(Failed::from(format!("{error:#}"))),
        },
    })
}

/// One line on the raw standard error, and noted for the summary; the same line only once.
fn say(skip: &Skip) {
    let line = skip.to_string();
    let mut skipped = SKIPPED.lock().unwrap();
    if !skipped.contains(&line) {
        note(&line);
        skipped.push(line);
    }
}

/// A line about a run that is worth reading (a seed, a count), past any capturing.
pub(crate) fn note(line: impl fmt::Display) {
    // In one call, so that no other line comes between this one and its end.
    drop(std::io::stderr().write_all(format!("{line}\n").as_bytes()));
}

/// A number that no other run has had. It is printed where it decides anything.
pub(crate) fn fresh_seed() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// Everything that was left out, once more, as the last thing on the screen.
pub(crate) fn summary() {
    let skipped = SKIPPED.lock().unwrap();
    if !skipped.is_empty() {
        note(format_args!("\nleft out of this run ({}):", skipped.len()));
        for line in skipped.iter() {
            note(line);
        }
    }
}
