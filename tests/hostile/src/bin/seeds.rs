//! `seeds TARGET DIRECTORY`: writes the good bytes that a target begins with as files, one each.

use std::io::{Error, Result};
use std::path::PathBuf;

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let (Some(name), Some(directory)) = (words.next(), words.next()) else {
        return Err(Error::other("seeds TARGET DIRECTORY"));
    };
    let targets = riverrun_hostile::TARGETS;
    let target = targets.iter().find(|target| target.name == name);
    let target = target.ok_or_else(|| Error::other(format!("no target {name}")))?;
    for (number, seed) in (target.seeds)().into_iter().enumerate() {
        std::fs::write(
            PathBuf::from(&directory).join(format!("seed-{number}")),
            seed,
        )?;
    }
    Ok(())
}
