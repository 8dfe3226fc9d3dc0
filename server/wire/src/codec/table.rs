//! The macro behind the field tables.
//!
//! A table reads like Kafka's schema: `name: type = versions, nullable versions, default value,
//! tag number, ignorable;` with the options in this order and each of them optional. Versions are
//! `3..` or `3..=7`. An `Option` starts as `None` and everything else as its type's default where
//! no default is given: this differs from Kafka's own classes, where a nullable field may start
//! empty, but never on the wire, where such fields are always written.
//!
//! ```ignore
//! message! {
//!     /// Asks for something.
//!     request FooRequest of Foo {
//!         topics: Vec<FooTopic> = 0..;
//!         rack: Option<String> = 2.., nullable 2.., tag 0, ignorable;
//!     }
//!     /// One topic.
//!     struct FooTopic {
//!         name: String = 0..=3;
//!     }
//! }
//! ```

/// What a table says about a field besides its type and default.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule {
    pub first: i16,
    pub last: i16,
    /// The versions in which it may be null; a field that never is begins at `i16::MAX`, which is
    /// no version.
    pub nullable_first: i16,
    pub nullable_last: i16,
    pub tag: Option<u32>,
    pub ignorable: bool,
}

impl Rule {
    #[inline]
    pub(crate) const fn present(self, version: i16) -> bool {
        self.first <= version && version <= self.last
    }

    #[inline]
    pub(crate) const fn plain(self, version: i16) -> bool {
        self.tag.is_none() && self.present(version)
    }

    #[inline]
    pub(crate) const fn nullable(self, version: i16) -> bool {
        self.nullable_first <= version && version <= self.nullable_last
    }
}

/// The request or response of one API with the structs inside it.
macro_rules! message {
    (
        $(#[$meta:meta])*
        $kind:ident $Name:ident of $Api:ident { $($fields:tt)* }
        $( $(#[$inner_meta:meta])* struct $Inner:ident { $($inner_fields:tt)* } )*
    ) => {
        crate::codec::table::table! { $(#[$meta])* struct $Name { $($fields)* } }
        $( crate::codec::table::table! {
            $(#[$inner_meta])* struct $Inner { $($inner_fields)* }
        } )*

        impl crate::Message for $Name {
            const API: crate::ApiKey = crate::ApiKey::$Api;
        }

        impl crate::Decode for $Name {
            fn decode(
                reader: &mut crate::Reader<'_>,
                version: i16,
            ) -> Result<Self, crate::WireError> {
                let at = crate::ApiKey::$Api.at(version, stringify!($Name))?;
                <Self as crate::codec::Value>::read(reader, at)
            }
        }

        impl crate::Encode for $Name {
            fn encode(
                &self,
                writer: &mut crate::Writer,
                version: i16,
            ) -> Result<(), crate::WireError> {
                let at = crate::ApiKey::$Api.at(version, stringify!($Name))?;
                crate::codec::Value::write(self, writer, at)
            }
        }

        #[cfg(test)]
        impl crate::codec::testing::Tables for $Name {
            fn rows() -> Vec<String> {
                use crate::codec::testing::Table;
                #[allow(unused_mut, reason = "a message may have no inner struct")]
                let mut rows = <$Name as Table>::rows();
                $( rows.extend(<$Inner as Table>::rows()); )*
                rows
            }
        }
    };
}

/// One struct: its type, its default, and reading and writing it in every version.
macro_rules! table {
    ( $(#[$meta:meta])* struct $Name:ident { $(
        $(#[$field_meta:meta])*
        $field:ident : $ty:ty = $first:literal $(..)? $(..= $last:literal)?
            $(, nullable $nullable_first:literal $(..)? $(..= $nullable_last:literal)?)?
            $(, default $default:expr)?
            $(, tag $tag:literal)?
            $(, ignorable $ignorable:tt)? $(;)?
    )* } ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $Name { $(
            $(#[$field_meta])*
            #[allow(missing_docs, reason = "Kafka's names; documented where they do not suffice")]
            pub $field: $ty,
        )* }

        /// What the table says about each field, by the field's own name.
        #[allow(non_upper_case_globals, reason = "named like the fields")]
        impl $Name { $(
            const $field: crate::codec::Rule = crate::codec::Rule {
                first: $first,
                last: crate::codec::table::or_else!([$($last)?] i16::MAX),
                nullable_first: crate::codec::table::or_else!([$($nullable_first)?] i16::MAX),
                nullable_last: crate::codec::table::or_else!(
                    [$($($nullable_last)?)?] i16::MAX
                ),
                tag: crate::codec::table::or_else!([$(Some($tag))?] None),
                ignorable: crate::codec::table::given!($($ignorable)?),
            };
        )* }

        impl Default for $Name {
            fn default() -> Self {
                Self { $(
                    $field: crate::codec::table::or_else!([$($default)?] Default::default()),
                )* }
            }
        }

        impl crate::codec::Value for $Name {
            fn min_bytes(at: crate::codec::At) -> usize {
                let mut bytes = usize::from(at.flexible);
                $( if Self::$field.plain(at.version) {
                    bytes += <$ty as crate::codec::Value>::min_bytes(
                        crate::codec::table::at!(at, $field));
                } )*
                bytes
            }

            fn read(
                reader: &mut crate::Reader<'_>,
                at: crate::codec::At,
            ) -> Result<Self, crate::WireError> {
                let mut value = Self::default();
                $( if Self::$field.plain(at.version) {
                    value.$field = <$ty as crate::codec::Value>::read(
                        reader, crate::codec::table::at!(at, $field))?;
                } )*
                if at.flexible {
                    reader.tagged(|_reader, tag| {
                        $( if Self::$field.tag == Some(tag) && Self::$field.present(at.version) {
                            value.$field = <$ty as crate::codec::Value>::read(
                                _reader, crate::codec::table::at!(at, $field))?;
                            return Ok(true);
                        } )*
                        Ok(false)
                    })?;
                }
                Ok(value)
            }

            fn write(
                &self,
                writer: &mut crate::Writer,
                at: crate::codec::At,
            ) -> Result<(), crate::WireError> {
                let mut _tags = 0;
                $(
                    if Self::$field.plain(at.version) {
                        <$ty as crate::codec::Value>::write(
                            &self.$field, writer, crate::codec::table::at!(at, $field))?;
                    } else if Self::$field.tag.is_some() || !Self::$field.ignorable {
                        let default: $ty =
                            crate::codec::table::or_else!([$($default)?] Default::default());
                        if self.$field != default {
                            if Self::$field.present(at.version) {
                                _tags += 1;
                            } else if !Self::$field.ignorable {
                                return Err(crate::WireError::FieldNotInVersion {
                                    field: crate::codec::table::at!(at, $field).field,
                                    version: at.version,
                                });
                            }
                        }
                    }
                )*
                #[cfg(test)]
                let unknown = match &mut writer.unknown_tags {
                    Some(tags) if at.flexible => tags.draw(stringify!($Name)),
                    _ => Default::default(),
                };
                #[cfg(test)]
                {
                    _tags += u32::try_from(unknown.len()).unwrap_or_default();
                }
                if at.flexible {
                    writer.uvarint(_tags);
                }
                if _tags == 0 {
                    return Ok(());
                }
                $( if let Some(tag) = Self::$field.tag
                    && Self::$field.present(at.version)
                {
                    let default: $ty =
                        crate::codec::table::or_else!([$($default)?] Default::default());
                    if self.$field != default {
                        let at = crate::codec::table::at!(at, $field);
                        writer.tagged(at.field, tag, |writer| {
                            <$ty as crate::codec::Value>::write(&self.$field, writer, at)
                        })?;
                    }
                } )*
                #[cfg(test)]
                for (tag, value) in unknown {
                    writer.tagged("unknown", tag, |writer| {
                        writer.slice(&value);
                        Ok(())
                    })?;
                }
                Ok(())
            }
        }

        impl crate::codec::Nullable for $Name {
            fn min_bytes(at: crate::codec::At) -> usize {
                if at.nullable { 1 } else { <Self as crate::codec::Value>::min_bytes(at) }
            }

            fn read(
                reader: &mut crate::Reader<'_>,
                at: crate::codec::At,
            ) -> Result<Option<Self>, crate::WireError> {
                if at.nullable && i8::from_be_bytes(reader.fixed()?) < 0 {
                    return Ok(None);
                }
                <Self as crate::codec::Value>::read(reader, at).map(Some)
            }

            fn write(
                value: Option<&Self>,
                writer: &mut crate::Writer,
                at: crate::codec::At,
            ) -> Result<(), crate::WireError> {
                if at.nullable {
                    writer.slice(&(if value.is_some() { 1_i8 } else { -1 }).to_be_bytes());
                }
                value.map_or(Ok(()), |value| crate::codec::Value::write(value, writer, at))
            }
        }

        #[cfg(test)]
        impl crate::codec::testing::Table for $Name {
            fn rows() -> Vec<String> {
                vec![ $( crate::codec::testing::row(
                    concat!(stringify!($Name), ".", stringify!($field)),
                    stringify!($ty),
                    Self::$field,
                    stringify!($($default)?),
                ), )* ]
            }
        }

        #[cfg(test)]
        impl crate::codec::testing::Sample for $Name {
            fn sample(random: &mut crate::codec::testing::Random, at: crate::codec::At) -> Self {
                let mut value = Self::default();
                $( if Self::$field.present(at.version)
                    // A tagged field that has its default is left out.
                    && (Self::$field.tag.is_none() || random.below(4) > 0)
                {
                    value.$field = crate::codec::testing::Sample::sample(
                        random, crate::codec::table::at!(at, $field));
                } )*
                value
            }

            fn expect(at: crate::codec::At, forms: &mut crate::codec::coverage::Forms) {
                $( if Self::$field.present(at.version) {
                    crate::codec::coverage::expect_field(
                        forms, stringify!($Name), stringify!($field), Self::$field, at.version);
                    <$ty as crate::codec::testing::Sample>::expect(
                        crate::codec::table::at!(at, $field), forms);
                } )*
                if at.flexible {
                    crate::codec::coverage::expect_tags(forms, stringify!($Name));
                }
            }

            fn note(&self, at: crate::codec::At, forms: &mut crate::codec::coverage::Forms) {
                let _default = Self::default();
                $( if Self::$field.present(at.version) {
                    crate::codec::coverage::note_field(
                        forms,
                        stringify!($Name),
                        stringify!($field),
                        crate::codec::testing::Sample::is_null(&self.$field),
                        self.$field == _default.$field,
                    );
                    crate::codec::testing::Sample::note(
                        &self.$field, crate::codec::table::at!(at, $field), forms);
                } )*
            }

            fn amplification(at: crate::codec::At) -> f64 {
                let mut worst = 0_f64;
                $( if Self::$field.present(at.version) {
                    worst = worst.max(<$ty as crate::codec::testing::Sample>::amplification(
                        crate::codec::table::at!(at, $field)));
                } )*
                worst
            }
        }
    };
}

/// The tokens in the brackets, or what follows them if there are none.
macro_rules! or_else {
    ([] $otherwise:expr) => {
        $otherwise
    };
    ([$($given:tt)+] $otherwise:expr) => {
        $($given)+
    };
}

/// Whether there are any tokens. An option without a value has nothing to capture, so the
/// punctuation after it is captured in its place.
macro_rules! given {
    () => {
        false
    };
    ($($given:tt)+) => {
        true
    };
}

/// Where a field of the struct at `$at` stands.
macro_rules! at {
    ($at:ident, $field:ident) => {
        crate::codec::At {
            nullable: Self::$field.nullable($at.version),
            field: stringify!($field),
            ..$at
        }
    };
}

pub(crate) use {at, given, message, or_else, table};
