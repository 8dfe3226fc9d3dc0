//! Our field tables and error codes against facts taken from Kafka 4.4.0.

use std::collections::BTreeMap;

use crate::codec::testing::Tables;
use crate::{ApiKey, ErrorCode};

const MESSAGES: &str = include_str!("../../tests/data/kafka-4.4-messages.txt");
const ERROR_CODES: &str = include_str!("../../tests/data/kafka-4.4-error-codes.txt");

fn facts(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.lines().filter(|line| !line.starts_with('#'))
}

/// The rows of each API as Kafka has them, under its name, and the API's own line.
fn kafka_tables() -> BTreeMap<&'static str, (&'static str, Vec<&'static str>)> {
    let mut tables = BTreeMap::new();
    let mut api = "";
    for line in facts(MESSAGES) {
        if let Some(head) = line.strip_prefix("api ") {
            api = head.split(' ').next().unwrap();
            tables.insert(api, (head, Vec::new()));
        } else {
            tables.get_mut(api).unwrap().1.push(line);
        }
    }
    tables
}

/// The first version of a row.
fn first_version(row: &str) -> i16 {
    let versions = row
        .split(" versions ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap();
    versions
        .trim_end_matches('+')
        .split('-')
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

macro_rules! our_rows {
    ($( $Name:ident = $number:literal, $versions:expr, flexible $flexible:literal,
        $module:ident::{$Request:ident, $Response:ident}; )*) => {
        fn our_rows(api: ApiKey) -> Vec<String> {
            match api { $(
                ApiKey::$Name => <crate::api::$Request as Tables>::rows()
                    .into_iter()
                    .chain(<crate::api::$Response as Tables>::rows())
                    .collect(),
            )* }
        }
    };
}

crate::api_key::api_table!(our_rows);

/// The rows of each struct in their order, which is the order on the wire.
fn by_struct(rows: &[String]) -> BTreeMap<&str, Vec<&str>> {
    let mut structs = BTreeMap::<&str, Vec<&str>>::new();
    for row in rows {
        let fields = structs.entry(row.split('.').next().unwrap()).or_default();
        // A struct that request and response share has its rows once.
        if !fields.contains(&row.as_str()) {
            fields.push(row);
        }
    }
    structs
}

#[test]
fn every_field_table_says_what_kafkas_schema_says() {
    let tables = kafka_tables();
    for api in ApiKey::ALL {
        let (_, rows) = &tables[api.name()];
        let last = *api.versions().end();
        let spoken = rows.iter().filter(|row| first_version(row) <= last);
        let kafka: Vec<String> = spoken.map(|row| (*row).to_owned()).collect();
        assert_eq!(by_struct(&our_rows(*api)), by_struct(&kafka));
    }
}

#[test]
fn every_stable_version_of_kafka_is_spoken() {
    let tables = kafka_tables();
    assert_eq!(tables.len(), ApiKey::ALL.len());
    for api in ApiKey::ALL {
        let (first, mut last) = (*api.versions().start(), *api.versions().end());
        let (head, _) = tables[api.name()];
        let unstable = head.ends_with(" unstable-last");
        if unstable {
            last += 1;
        }
        let span = if first == last {
            format!("{first}")
        } else {
            format!("{first}-{last}")
        };
        let flexible = (0..=last)
            .find(|version| api.is_flexible(*version))
            .unwrap();
        let ours = format!(
            "{} {} versions {span} flexible {flexible}+",
            api.name(),
            api.number()
        );
        assert_eq!(ours, head.trim_end_matches(" unstable-last"));
        assert_eq!(ApiKey::from_number(api.number()), Some(*api));
    }
    assert_eq!(ApiKey::from_number(i16::MAX), None);
}

#[test]
fn error_codes_are_kafkas() {
    let ours = ErrorCode::ALL.iter().map(|code| {
        let class = if code.is_retriable() {
            " retriable"
        } else {
            ""
        };
        assert_eq!(ErrorCode::from_number(code.number()), Some(*code));
        assert!(!code.message().is_empty());
        format!("{} {}{class}", code.number(), code.name())
    });
    let kafka: Vec<_> = facts(ERROR_CODES).collect();
    assert_eq!(ours.collect::<Vec<_>>(), kafka);
    assert_eq!(ErrorCode::from_number(i16::MAX), None);
}
