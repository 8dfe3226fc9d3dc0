//! Kafka's `partition.metadata`: which topic id a directory belongs to.
//!
//! Text: `version: 0`, then `topic_id: ` with the 16 bytes in base64url without padding, no line
//! end behind it.

use uuid::Uuid;

/// The file's name.
pub const FILE_NAME: &str = "partition.metadata";

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The text of the file.
#[must_use]
pub fn encode(topic_id: Uuid) -> String {
    format!("version: 0\ntopic_id: {}", base64url(topic_id))
}

/// The topic id of a file's text; none where it is not such a file.
#[must_use]
pub fn decode(text: &str) -> Option<Uuid> {
    let mut lines = text.lines();
    let version = lines.next()?.strip_prefix("version:")?.trim();
    let digits = lines.next()?.strip_prefix("topic_id:")?.trim();
    let nothing_follows = lines.all(|line| line.trim().is_empty());
    if version != "0" || digits.len() != 22 || !nothing_follows {
        return None;
    }
    let mut number = 0_u128;
    for (at, digit) in digits.bytes().enumerate() {
        let bits = ALPHABET.iter().position(|known| *known == digit)?;
        let bits = u128::try_from(bits).ok()?;
        // Of the last digit only two bits belong to the id.
        number = if at < 21 {
            number << 6 | bits
        } else {
            number << 2 | bits >> 4
        };
    }
    let id = Uuid::from_u128(number);
    // Spare bits that are set would be a second way to write the same id.
    (base64url(id) == digits).then_some(id)
}

/// A topic id as Kafka writes it.
#[must_use]
pub fn base64url(id: Uuid) -> String {
    let number = id.as_u128();
    // 22 digits of 6 bits: 128 bits and four zeros behind them.
    (0..22)
        .map(|digit| {
            let shift = 122 - 6 * digit;
            let bits = if shift >= 0 {
                number >> shift
            } else {
                number << 4
            };
            let at = usize::try_from(bits & 63).unwrap_or(0);
            ALPHABET.get(at).map_or('A', |byte| char::from(*byte))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_kafkas() {
        assert_eq!(base64url(Uuid::nil()), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(
            base64url(Uuid::from_u128(u128::MAX)),
            "_____________________w"
        );
        // Checked with Python: base64.urlsafe_b64encode(bytes(range(16))).
        let id = Uuid::from_bytes(std::array::from_fn(|n| u8::try_from(n).unwrap_or(0)));
        assert_eq!(base64url(id), "AAECAwQFBgcICQoLDA0ODw");
        assert_eq!(
            encode(Uuid::nil()),
            "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAA"
        );
    }

    #[test]
    fn the_text_leads_back_and_nothing_else_does() {
        for id in [0, 1, u128::MAX, 0x0123_4567_89ab_cdef_0011_2233_4455_6677] {
            let id = Uuid::from_u128(id);
            assert_eq!(decode(&encode(id)), Some(id));
            assert_eq!(decode(&format!("{}\n", encode(id))), Some(id));
        }
        for text in [
            "",
            "version: 0",
            "version: 1\ntopic_id: AAAAAAAAAAAAAAAAAAAAAA",
            "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAA",
            "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAB",
            "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAA+A",
            "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAA\nmore",
        ] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
