//! Names of messages and places of polls on the server link, parsed and printed here.
//!
//! ```text
//! message  <from>-<32 hex of its key's id>
//! cursor   <32 hex of the message store's id>-<16 hex of the place in it>
//! ```

use milepost_engine::{SiteName, StoreId};

use crate::link::{MessageId, PollCursor};
use crate::wire::MessageKey;

/// The name of a message.
pub(super) fn message_id(key: &MessageKey) -> MessageId {
    MessageId::new(format!("{}-{:032x}", key.from, key.id))
}

/// The key behind a name; `None` for a name of another kind of link.
pub(super) fn message_key(id: &MessageId) -> Option<MessageKey> {
    let (from, hex) = id.as_str().rsplit_once('-')?;
    Some(MessageKey {
        from: SiteName::new(from).ok()?,
        id: u128::from_str_radix(digits(hex, 32)?, 16).ok()?,
    })
}

/// A place in a message store.
pub(super) fn cursor(store: StoreId, after: u64) -> PollCursor {
    PollCursor::new(format!("{store}-{after:016x}"))
}

/// The store and the place behind a cursor.
pub(super) fn place(cursor: &PollCursor) -> Option<(StoreId, u64)> {
    let (store, after) = cursor.as_str().rsplit_once('-')?;
    let store = StoreId(u128::from_str_radix(digits(store, 32)?, 16).ok()?);
    Some((store, u64::from_str_radix(digits(after, 16)?, 16).ok()?))
}

fn digits(text: &str, len: usize) -> Option<&str> {
    let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    Some(text).filter(|text| text.len() == len && text.bytes().all(hex))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_cursors_read_back_and_those_of_other_links_do_not() {
        let key = MessageKey {
            from: SiteName::new("a-b").unwrap(),
            id: u128::MAX - 5,
        };
        assert_eq!(message_key(&message_id(&key)), Some(key));
        assert_eq!(place(&cursor(StoreId(7), 9)), Some((StoreId(7), 9)));
        for foreign in [
            "hq-0123456789abcdef.mp",
            "hq",
            "-00000000000000000000000000000000",
            "",
        ] {
            assert_eq!(message_key(&MessageId::new(foreign)), None, "{foreign:?}");
            assert_eq!(place(&PollCursor::new(foreign)), None, "{foreign:?}");
        }
    }
}
