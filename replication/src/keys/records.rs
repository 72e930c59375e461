//! Pinned records of a pair's keys: that it has one, which the neighbour has too, and what was not believed. Never a secret.
//!
//! | key | value | written by | with |
//! |---|---|---|---|
//! | `sealed/<remote>` | [`SealedRecord`] | the commands that change keys | a note frame of its own, once the key is on disk |
//! | `proven/<remote>` | [`ProvenRecord`] | receive | the note of the poll that brought a message under a newer key |
//! | `distrust/<remote>` | [`DistrustRecord`] | receive | the note of the poll |
//!
//! `sealed/` and `proven/` are of the neighbour's name and not of a generation: a pair that is made anew stays sealed.

use bincode::{Decode, Encode};

use crate::tracking::PairState;

/// The pair is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SealedRecord {
    /// Since when, microseconds since 1970.
    pub since: i64,
    /// Id of its newest key.
    pub newest: [u8; 8],
}

impl PairState for SealedRecord {
    const PREFIX: &'static str = "sealed/";
}

/// The neighbour has a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ProvenRecord {
    /// Its id.
    pub key: [u8; 8],
}

impl PairState for ProvenRecord {
    const PREFIX: &'static str = "proven/";
}

/// A message under the neighbour's name was not believed, and none was since that would show that all is well.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DistrustRecord {
    /// Since when, microseconds since 1970.
    pub since: i64,
    /// Why, a sentence.
    pub reason: String,
}

impl PairState for DistrustRecord {
    const PREFIX: &'static str = "distrust/";
}

#[cfg(test)]
mod tests {
    use milepost_engine::SiteName;

    use super::*;
    use crate::golden::{Records, kept_records};

    #[test]
    fn records_are_written_and_read_as_ever() {
        let remote: SiteName = "bern".parse().unwrap();
        let (sealed, proven) = (
            SealedRecord {
                since: -2,
                newest: *b"key 0001",
            },
            ProvenRecord { key: *b"key 0002" },
        );
        let distrust = DistrustRecord {
            since: 3,
            reason: "why".to_owned(),
        };
        let pins = [sealed.pin(&remote), proven.pin(&remote), distrust.pin(&remote)];
        let record = |pin: milepost_engine::Result<milepost_engine::Pinned>| {
            let pin = pin.unwrap();
            (String::from_utf8(pin.key).unwrap(), pin.value.unwrap())
        };
        let written: Records = pins.into_iter().map(record).collect();
        let laid_out = [
            ("sealed/bern", [&(-2i64).to_le_bytes()[..], b"key 0001"].concat()),
            ("proven/bern", b"key 0002".to_vec()),
            (
                "distrust/bern",
                [&3i64.to_le_bytes()[..], &3u64.to_le_bytes(), b"why"].concat(),
            ),
        ];
        assert_eq!(written, laid_out.map(|(key, value)| (key.to_owned(), value)));
        let kept = kept_records("key_records", &written);
        assert_eq!(kept, written);
        assert_eq!(SealedRecord::read(&kept[0].1).unwrap(), sealed);
        assert_eq!(ProvenRecord::read(&kept[1].1).unwrap(), proven);
        assert_eq!(DistrustRecord::read(&kept[2].1).unwrap(), distrust);
    }
}
