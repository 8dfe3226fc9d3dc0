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
}
