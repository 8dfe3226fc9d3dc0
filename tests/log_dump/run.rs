//! Running the two programs and reading what they say.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

pub(crate) const RIVERRUN: &str = env!("CARGO_BIN_EXE_riverrun");
pub(crate) const LOG_DUMP: &str = env!("CARGO_BIN_EXE_log-dump");

/// What a program said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs a program, which must not crash, and must not hang for long whatever it reads.
pub(crate) fn run(program: &str, args: &[&OsStr]) -> Said {
    let ran = Command::new(program).args(args).output().unwrap();
    let said = Said {
        status: ran.status.code(),
        out: String::from_utf8_lossy(&ran.stdout).into_owned(),
        err: String::from_utf8_lossy(&ran.stderr).into_owned(),
    };
    assert!(!said.err.contains("panicked"), "{args:?}: {said:?}");
    assert!(matches!(said.status, Some(0..=2)), "{args:?}: {said:?}");
    said
}

/// `riverrun log dump PATH` and what else is given.
pub(crate) fn dump(path: &Path, more: &[&str]) -> Said {
    let mut args: Vec<&OsStr> = vec!["log".as_ref(), "dump".as_ref(), path.as_ref()];
    args.extend(more.iter().map(|arg| -> &OsStr { arg.as_ref() }));
    run(RIVERRUN, &args)
}

/// `riverrun log verify DIR`.
pub(crate) fn verify(dir: &Path) -> Said {
    let args: [&OsStr; 5] = [
        "log".as_ref(),
        "verify".as_ref(),
        dir.as_ref(),
        "--format".as_ref(),
        "json".as_ref(),
    ];
    run(RIVERRUN, &args)
}

impl Said {
    /// The lines of JSON of one type.
    pub(crate) fn lines(&self, kind: &str) -> Vec<Value> {
        let parse = |line: &str| -> Value {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
        };
        let lines = self.out.lines().map(parse);
        lines.filter(|line| line["type"] == kind).collect()
    }

    /// Where damage was found: file and byte.
    pub(crate) fn damage(&self) -> Vec<(String, Option<u64>)> {
        let lines = self.lines("damage");
        lines
            .iter()
            .map(|line| {
                let file = line["file"].as_str().unwrap().to_owned();
                (file, line["position"].as_u64())
            })
            .collect()
    }

    /// Demands that this place, and nothing else, is to be made anew by the next start: no failure.
    #[track_caller]
    pub(crate) fn rebuilds(&self, path: &Path, position: Option<u64>) {
        assert_eq!(self.status, Some(0), "{self:?}");
        let lines = self.lines("rebuild");
        let is_here = |line: &Value| line["position"].as_u64() == position;
        assert!(lines.iter().any(is_here), "{self:?}");
        for line in lines {
            assert_eq!(line["file"].as_str(), path.to_str(), "{self:?}");
        }
    }

    /// Demands that this place, and no other file, was found damaged.
    #[track_caller]
    pub(crate) fn names(&self, path: &Path, positions: std::ops::Range<u64>) {
        assert_eq!(self.status, Some(1), "{self:?}");
        let path = path.to_str().unwrap();
        let damage = self.damage();
        assert!(
            damage
                .iter()
                .any(|(file, at)| file == path && at.is_some_and(|at| positions.contains(&at))),
            "{path} {positions:?} is not in {damage:?}"
        );
        assert!(
            damage.iter().all(|(file, _)| file == path),
            "only {path} is damaged: {self:?}"
        );
    }
}
