#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::config::properties;

fn given(lines: &[&str]) -> Vec<Given> {
    let text = lines.join("\n");
    let found = properties::parse(text.as_bytes()).unwrap();
    found.into_iter().map(Given::from).collect()
}

fn load(lines: &[&str]) -> Result<Loaded, Vec<Refusal>> {
    let mut lines = lines.to_vec();
    lines.push("log.dirs=/data");
    Config::of_cluster().load(given(&lines))
}

/// The one thing that is refused.
#[track_caller]
fn refused(lines: &[&str]) -> String {
    let refused = load(lines).unwrap_err();
    assert_eq!(refused.len(), 1, "{refused:?}");
    refused.first().unwrap().to_string()
}

fn at(host: &str, port: u16) -> Option<(String, u16)> {
    Some((host.to_owned(), port))
}

const VOTERS: &str = "controller.quorum.voters=1@127.0.0.1:9093,2@127.0.0.1:9193,3@127.0.0.1:9293";

#[test]
fn the_lines_of_three_nodes_are_a_cluster() {
    for (node, port) in [(1, 9092), (2, 9192), (3, 9292)] {
        let loaded = load(&[
            &format!("node.id={node}"),
            &format!(
                "listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{}",
                port + 1
            ),
            VOTERS,
        ])
        .unwrap();
        let config = loaded.config;
        assert!(config.is_one_of_several());
        assert_eq!(config.listen.port(), port);
        assert_eq!(config.controller_listen.unwrap().port(), port + 1);
        assert_eq!(config.advertised, at("127.0.0.1", port));
        assert_eq!(config.controller_advertised, at("127.0.0.1", port + 1));
        let ids: Vec<_> = config.quorum_voters.iter().map(|v| v.id).collect();
        assert_eq!(ids, [1, 2, 3]);
        assert_eq!(loaded.ignored, []);
    }
}

#[test]
fn a_node_alone_tells_each_client_where_it_was_reached() {
    let config = load(&["listeners=PLAINTEXT://127.0.0.1:9092"])
        .unwrap()
        .config;
    assert_eq!(
        (config.advertised.clone(), config.controller_listen),
        (None, None)
    );
    assert!(!config.is_one_of_several());
    let config = load(&[]).unwrap().config;
    assert_eq!(config.controller_listen.unwrap().port(), 9093);
    // A port that nobody knows yet is not told to others.
    let free = "listeners=PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0";
    let config = load(&[free]).unwrap().config;
    assert_eq!(config.controller_advertised, None);
}

#[test]
fn joining_takes_others_than_itself() {
    const SERVERS: &str = "controller.quorum.bootstrap.servers";
    let join = |servers: &str| load(&[&format!("{SERVERS}={servers}")]).unwrap();
    let loaded = join("127.0.0.1:9193,[::1]:9293");
    assert_eq!(loaded.config.bootstrap_servers.len(), 2);
    assert!(loaded.config.is_one_of_several() && loaded.ignored.is_empty());
    // Kafka's own example of one node names the node itself.
    let loaded = join("localhost:9093");
    assert!(!loaded.config.is_one_of_several());
    let ignored = loaded.ignored.first().unwrap();
    assert_eq!(ignored.name, SERVERS);
    assert!(ignored.reason.contains("founds"), "{}", ignored.reason);
    let loaded = join("localhost:9093,localhost:9193");
    assert_eq!(
        loaded.config.bootstrap_servers,
        [("localhost".to_owned(), 9193)]
    );
    assert_eq!(loaded.ignored.len(), 1);
}

#[test]
fn what_does_not_fit_together_is_refused_with_the_reason() {
    let joins = "controller.quorum.bootstrap.servers=a.invalid:1";
    for (lines, says) in [
        (&["node.id=4", VOTERS][..], "node.id 4 is not among them"),
        (
            &["node.id=2", VOTERS],
            "is at port 9193, and its listener CONTROLLER is at 9093",
        ),
        (&[VOTERS, joins], "give one of the two"),
        (
            &[joins, "listeners=PLAINTEXT://127.0.0.1:9092"],
            "add CONTROLLER://HOST:PORT",
        ),
        (
            &["listeners=PLAINTEXT://:9092"],
            "0.0.0.0:9092 is not loopback",
        ),
        (
            &["listeners=PLAINTEXT://127.0.0.1:1,CONTROLLER://[::]:2"],
            "[::]:2 is not loopback",
        ),
    ] {
        let refused = refused(lines);
        assert!(refused.contains(says), "{lines:?}: {refused}");
    }
    let nothing = Config::of_cluster().load(Vec::new()).unwrap_err();
    let first = nothing.first().unwrap();
    assert_eq!((first.origin, first.error.name()), (None, "log.dirs"));
}

#[test]
fn several_nodes_must_say_where_they_are() {
    let everywhere = "listeners=PLAINTEXT://:9092,CONTROLLER://:9093";
    let load = |lines: &[&str]| {
        let mut config = Config::of_cluster();
        config.insecure = true;
        let mut given = given(lines);
        given.extend(self::given(&["log.dirs=/data"]));
        config.load(given)
    };
    let alone = load(&[everywhere]).unwrap().config;
    assert_eq!(
        (alone.advertised, alone.controller_advertised),
        (None, None)
    );
    let refused = load(&[everywhere, "controller.quorum.bootstrap.servers=other:1"]).unwrap_err();
    assert_eq!(refused.len(), 2, "{refused:?}");
    for refusal in refused {
        assert_eq!(refusal.error.name(), "advertised.listeners");
    }
    // The voters say where the node's own listener for nodes is.
    let refused = load(&[everywhere, VOTERS]).unwrap_err();
    assert_eq!(refused.len(), 1, "{refused:?}");
    let told = "advertised.listeners=PLAINTEXT://one.example:19092";
    let config = load(&[everywhere, VOTERS, told]).unwrap().config;
    assert_eq!(config.advertised, at("one.example", 19092));
    assert_eq!(config.controller_advertised, at("127.0.0.1", 9093));
    let both = "advertised.listeners=CONTROLLER://one.example:19093,PLAINTEXT://one.example:19092";
    let config = load(&[everywhere, VOTERS, both]).unwrap().config;
    assert_eq!(config.controller_advertised, at("one.example", 19093));
    let named = "listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093";
    let config = load(&[named, VOTERS]).unwrap().config;
    assert_eq!(config.advertised, at("localhost", 9092));
}

#[test]
fn settings_are_understood_in_whatever_order_they_stand() {
    let mut lines = vec![
        "advertised.listeners=OUT://localhost:9092,IN://localhost:9093",
        "inter.broker.listener.name=out",
        "listeners=OUT://127.0.0.1:9092,IN://127.0.0.1:9093",
        "listener.security.protocol.map=OUT:PLAINTEXT,IN:PLAINTEXT,SSL:SSL",
        "controller.listener.names=IN",
    ];
    let first = load(&lines).unwrap().config;
    lines.reverse();
    let second = load(&lines).unwrap().config;
    for config in [first, second] {
        assert_eq!(config.advertised, at("localhost", 9092));
        assert_eq!(config.controller_advertised, at("localhost", 9093));
    }
    let refused = refused(&["listeners=SSL://127.0.0.1:9092"]);
    assert!(
        refused.contains("SSL") && refused.contains("TLS"),
        "{refused}"
    );
}

#[test]
fn the_last_and_the_finest_of_what_is_given_counts() {
    let loaded = load(&["num.partitions=2", "log.roll.hours=1", "num.partitions=3"]).unwrap();
    assert_eq!(loaded.config.num_partitions, 3);
    assert_eq!(loaded.config.topic.segment_ms, 3_600_000);
    let used = loaded.used();
    let origin = |name: &str| used.iter().find(|u| u.name == name).unwrap().origin;
    assert_eq!(origin("num.partitions"), Some(Origin::File { line: 3 }));
    assert_eq!(origin("log.roll.ms"), Some(Origin::File { line: 2 }));
    assert_eq!(origin("log.segment.bytes"), None);
    assert!(
        used.windows(2)
            .all(|w| w.first().unwrap().name < w.last().unwrap().name)
    );

    let loaded = load(&["log.roll.hours=1", "log.roll.ms=5000", "log.dir=/other"]).unwrap();
    assert_eq!(loaded.config.topic.segment_ms, 5000);
    assert_eq!(loaded.config.data_dir.to_str(), Some("/data"));
    let ignored: Vec<_> = loaded.ignored.iter().map(|i| i.name.as_str()).collect();
    assert_eq!(ignored, ["log.dir", "log.roll.hours"]);

    load(&["log.retention.minutes=-1", "log.retention.hours=168"]).unwrap();
    assert_eq!(
        load(&["broker.id=3", "node.id=3"]).unwrap().config.node_id,
        3
    );
    assert!(refused(&["broker.id=3", "node.id=4"]).contains("one of the two"));
}

#[test]
fn all_that_is_refused_is_said_at_once() {
    let refused = load(&[
        "# a file",
        "log.retention.hours=168",
        "num.partitons=1",
        "ssl.keystore.password=secret",
        "authorizer.class.name=some.Class",
        "num.io.threads=8",
    ])
    .unwrap_err();
    let texts: Vec<_> = refused.iter().map(ToString::to_string).collect();
    for says in [
        "line 2: invalid value 168 for log.retention.hours",
        "line 3: unknown setting num.partitons; did you mean num.partitions?",
        "line 4: ssl.keystore.password is refused",
        "line 5: authorizer.class.name is refused",
    ] {
        assert!(texts.iter().any(|text| text.starts_with(says)), "{texts:?}");
    }
    assert_eq!(texts.len(), 4, "{texts:?}");
    assert!(!texts.concat().contains("secret"));
}

/// The names are those of Kafka 4.4's own table.
#[test]
fn every_name_of_kafka_is_served_or_answered_with_a_reason() {
    let names: Vec<&str> = include_str!("../kafka_names.txt").lines().collect();
    assert!(names.len() > 370);
    let served: Vec<_> = crate::config::node::served_names().collect();
    for name in &names {
        let is_known = known::find(name).is_some();
        assert_ne!(served.contains(name), is_known, "{name}");
    }
    // And no name is one that only we know, but for those that are ours.
    let ours = [
        "log.scrub.interval.ms",
        "log.write.caching",
        "log.write.caching.window.ms",
    ];
    for name in served {
        assert!(names.contains(&name) || ours.contains(&name), "{name}");
    }
}

mod documentation {
    use std::fmt::Write;

    use crate::config::known::{KNOWN, Verdict};
    use crate::config::{Config, TopicSettings, alternate, served, topic};

    /// The tables of the page, from the tables of the code.
    fn tables() -> [(&'static str, String); 3] {
        let config = Config::of_cluster();
        let topic = TopicSettings::default();
        let mut rows: Vec<_> = served::SETTINGS
            .iter()
            .map(|s| (s.name, (s.get)(&config), s.doc))
            .collect();
        rows.extend(topic::SETTINGS.iter().filter_map(|setting| {
            let name = setting.synonym?;
            Some((name, (setting.get)(&topic), setting.doc))
        }));
        rows.sort_unstable();
        let mut served = String::from("| Name | Default | |\n|---|---|---|\n");
        for (name, value, doc) in rows {
            let value = match value.as_str() {
                "" => String::new(),
                value => format!("`{value}`"),
            };
            let _ = writeln!(served, "| `{name}` | {value} | {doc} |");
        }
        for alternate in alternate::ALTERNATES {
            let (name, of) = (alternate.name, alternate.of);
            let counts = if alternate.must_agree {
                "The older name; where both are given they must agree"
            } else {
                "Counts where neither that nor a finer unit of it is given"
            };
            let _ = writeln!(served, "| `{name}` | | For `{of}`. {counts}. |");
        }
        let known = |ignored: bool| {
            let mut table = String::from("| Names | Because |\n|---|---|\n");
            for known in KNOWN {
                let but = match known.verdict {
                    Verdict::Ignored if ignored => String::new(),
                    Verdict::Refused if !ignored => String::new(),
                    Verdict::Only(&[""]) if !ignored => " (but for no value)".to_owned(),
                    Verdict::Only(values) if !ignored => {
                        format!(" (but for `{}`)", values.join("`, `"))
                    }
                    _ => continue,
                };
                let names = known.names.join("`, `");
                let _ = writeln!(table, "| `{names}`{but} | {} |", known.reason);
            }
            table
        };
        [
            ("served", served),
            ("refused", known(false)),
            ("passed over", known(true)),
        ]
    }

    /// With `UPDATE_DOCS=1` the page is written instead.
    #[test]
    fn the_page_says_what_the_tables_say() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/CONFIGURATION.md");
        let old = std::fs::read_to_string(page).unwrap();
        let mut new = old.clone();
        for (name, table) in tables() {
            let (begin, end) = (
                format!("<!-- {name}: begin -->\n"),
                format!("<!-- {name}: end -->"),
            );
            let (before, rest) = new.split_once(&begin).unwrap();
            let (_, after) = rest.split_once(&end).unwrap();
            new = format!("{before}{begin}{table}{end}{after}");
        }
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(page, &new).unwrap();
        } else {
            assert!(
                old == new,
                "docs/CONFIGURATION.md is old: run this with UPDATE_DOCS=1"
            );
        }
    }
}
