//! `riverrun server`: a node with a configuration.

use std::borrow::Cow;
use std::io::{self, Write};

use riverrun_server::Config;
use riverrun_server::config::{Given, Loaded, Origin, Refusal, properties};
use serde::Serialize;
use tracing::info;

use super::service;
use crate::cli::{Format, ServerArgs};
use crate::failure::Usage;
use crate::output;

/// Runs a node until it is told to stop, or says what its configuration comes to.
pub(crate) fn run(args: &ServerArgs, format: Format) -> anyhow::Result<()> {
    let loaded = load(args)?;
    if args.check_config {
        return show(&loaded, format);
    }
    for ignored in &loaded.ignored {
        info!(
            name = ignored.name,
            reason = ignored.reason,
            "passed over a setting"
        );
    }
    let config = loaded.config;
    let data = config.data_dir.clone();
    let nodes = config.controller_listen;
    service::run(config, |kafka| {
        let place = Where {
            kafka: kafka.to_string(),
            controller: nodes.map(|nodes| nodes.to_string()),
            data: data.to_string_lossy(),
        };
        // A reader that went away is no reason to stop serving.
        let _ = match format {
            Format::Table => announce(&place),
            Format::Json => service::announce_json(&place),
        };
    })
}

/// The configuration of the file, and over it that of the command line.
fn load(args: &ServerArgs) -> anyhow::Result<Loaded> {
    let mut given: Vec<Given> = Vec::new();
    if let Some(path) = &args.config {
        let properties = properties::read(path)
            .map_err(|error| Usage(format!("cannot read {}: {error}", path.display())))?;
        given.extend(properties.into_iter().map(Given::from));
    }
    given.extend(args.set.iter().map(|(name, value)| Given {
        name: name.trim().to_owned(),
        value: value.clone(),
        origin: Origin::CommandLine,
    }));
    let mut config = Config::of_cluster();
    config.insecure = args.insecure;
    config
        .load(given)
        .map_err(|refused| Usage(refusal(args, &refused)).into())
}

/// All that is wrong, and what may be done about it.
fn refusal(args: &ServerArgs, refused: &[Refusal]) -> String {
    let of_file = |refusal: &Refusal| match (&args.config, refusal.origin) {
        (Some(path), Some(Origin::File { line })) => {
            format!("{}:{line}: {}", path.display(), refusal.error)
        }
        _ => refusal.error.to_string(),
    };
    let lines: Vec<_> = refused.iter().map(of_file).collect();
    let text = match lines.as_slice() {
        [one] => one.clone(),
        several => format!("the configuration is refused:\n  {}", several.join("\n  ")),
    };
    let next = if refused.iter().any(|refusal| refusal.origin.is_none()) {
        "give what is missing in the file or with --set NAME=VALUE"
    } else {
        "correct or drop what is named; --set NAME=VALUE counts over the file"
    };
    format!("{text}\n  next: {next}")
}

/// One setting as `--check-config` shows it.
#[derive(Debug, Serialize)]
struct Setting<'a> {
    name: &'a str,
    value: &'a str,
    /// `default`, `file` or `command-line`.
    source: &'static str,
}

/// One that is passed over.
#[derive(Debug, Serialize)]
struct Ignored<'a> {
    name: &'a str,
    reason: &'a str,
}

#[derive(Debug, Serialize)]
struct Checked<'a> {
    settings: Vec<Setting<'a>>,
    ignored: Vec<Ignored<'a>>,
}

fn show(loaded: &Loaded, format: Format) -> anyhow::Result<()> {
    let used = loaded.used();
    let settings = used.iter().map(|used| Setting {
        name: used.name,
        value: &used.value,
        source: match used.origin {
            None => "default",
            Some(Origin::File { .. }) => "file",
            Some(Origin::CommandLine) => "command-line",
        },
    });
    let ignored = loaded.ignored.iter().map(|ignored| Ignored {
        name: &ignored.name,
        reason: &ignored.reason,
    });
    let checked = Checked {
        settings: settings.collect(),
        ignored: ignored.collect(),
    };
    let mut out = output::stdout();
    match format {
        Format::Json => output::json(&mut out, &checked)?,
        Format::Table => {
            let rows = checked.settings.iter().map(|setting| {
                [setting.name, setting.value, setting.source]
                    .map(str::to_owned)
                    .to_vec()
            });
            output::table(&mut out, &["NAME", "VALUE", "FROM"], rows)?;
            if !checked.ignored.is_empty() {
                let rows = checked
                    .ignored
                    .iter()
                    .map(|ignored| [ignored.name, ignored.reason].map(str::to_owned).to_vec());
                writeln!(out)?;
                output::table(&mut out, &["PASSED OVER", "BECAUSE"], rows)?;
            }
        }
    }
    out.flush()?;
    Ok(())
}

/// Where a node is, for scripts.
#[derive(Debug, Serialize)]
struct Where<'a> {
    kafka: String,
    /// Where other nodes reach it.
    controller: Option<String>,
    data: Cow<'a, str>,
}

fn announce(place: &Where) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "listening on kafka://{}", place.kafka)?;
    if let Some(controller) = &place.controller {
        writeln!(out, "controller on {controller}")?;
    }
    writeln!(out, "events are kept in {}", place.data)?;
    out.flush()
}
