//! What a set of messages has shown of its field tables: a codec that was never given a field, a
//! null or an unknown tag has not been tested on it, however many messages there were.

#![allow(clippy::indexing_slicing, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::codec::Rule;
use crate::codec::testing::Random;

/// The forms in which a field, or the tagged section of a struct, can stand on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Form {
    /// Not its default.
    Set,
    /// Its default, which for a tagged field means that it is left out.
    Default,
    Null,
    /// A tag that no table knows.
    UnknownTag,
}

/// Forms by struct and field, of the messages of one version.
pub(crate) type Forms = BTreeSet<(&'static str, &'static str, Form)>;

/// The name under which the tagged section of a struct is noted.
const TAGS: &str = "(tags)";

/// Adds what a field must show in a version that has it.
pub(crate) fn expect_field(
    forms: &mut Forms,
    table: &'static str,
    field: &'static str,
    rule: Rule,
    version: i16,
) {
    forms.insert((table, field, Form::Set));
    if rule.nullable(version) {
        forms.insert((table, field, Form::Null));
    }
    if rule.tag.is_some() {
        forms.insert((table, field, Form::Default));
    }
}

pub(crate) fn expect_tags(forms: &mut Forms, table: &'static str) {
    forms.insert((table, TAGS, Form::UnknownTag));
}

/// Adds what one field of one message shows.
pub(crate) fn note_field(
    forms: &mut Forms,
    table: &'static str,
    field: &'static str,
    null: bool,
    default: bool,
) {
    if null {
        forms.insert((table, field, Form::Null));
    } else if !default {
        forms.insert((table, field, Form::Set));
    }
    if default {
        forms.insert((table, field, Form::Default));
    }
}

/// Unknown tags, which a writer puts behind the known ones of every flexible struct: an older
/// peer must skip what a newer one sends.
#[derive(Debug)]
pub(crate) struct UnknownTags {
    random: Random,
    /// The structs that have got some.
    pub forms: Forms,
}

impl UnknownTags {
    pub(crate) fn new(random: &mut Random) -> Self {
        Self {
            random: Random::new(random.next()),
            forms: Forms::new(),
        }
    }

    /// Those of one struct; ascending, as tags must be, and beyond all known ones.
    pub(crate) fn draw(&mut self, table: &'static str) -> BTreeMap<u32, Bytes> {
        let random = &mut self.random;
        let count = random.below(3);
        let drawn: BTreeMap<u32, Bytes> = (0..count)
            .map(|_| {
                let limit = [100, 10_000, 1 << 30][random.below(3)];
                let tag = 20 + u32::try_from(random.below(limit)).unwrap_or_default();
                let most = [4, 200][random.below(2)];
                let len = random.below(most);
                (tag, random.bytes(len).into())
            })
            .collect();
        if !drawn.is_empty() {
            expect_tags(&mut self.forms, table);
        }
        drawn
    }
}
