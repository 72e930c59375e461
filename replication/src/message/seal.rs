//! The seal of a message: what makes it one that only its two sites can read, and only they can have made.
//!
//! ```text
//! field 15 of the head: key id 8 | nonce 24
//! body: what would stand there unsealed, encrypted, and behind it the seal's tag, 16 bytes
//! covered by the tag: the body, and all of the head as it is with bytes 24 to 31 (the two checksums) as zeros
//! ```
//!
//! Guarantees: nothing of a sealed message is taken as said by its sender before [`opened`] passed it, a message without a
//! body included; a message of a pair that has a key is not taken without a seal. Refuses to hide the head: links carry by
//! the names in it, and a receiver puts messages in order by its places before it opens any.

use std::borrow::Cow;

use milepost_engine::{Error, Result};

use crate::keys::{KeyId, NONCE_LEN, Nonce, PairKey, PairKeys, TAG_LEN, Way};
use crate::planted::{self, Bug};

use super::bytes::Front;
use super::envelope::{CRC_AT, FLAG_SEALED, Head, PREFIX_LEN, Prefix};
use super::fault::{Distrust, MessageFault};
use super::{Header, MAX_MESSAGE_BYTES};

/// What a head says of its seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seal {
    pub(super) key: KeyId,
    pub(super) nonce: Nonce,
}

impl Seal {
    /// Length of the field's value in bytes.
    pub(super) const LEN: usize = 8 + NONCE_LEN;

    pub(super) fn value(&self) -> [u8; Seal::LEN] {
        let mut value = [0; Seal::LEN];
        let said = self.key.0.iter().chain(&self.nonce);
        value.iter_mut().zip(said).for_each(|(byte, said)| *byte = *said);
        value
    }

    pub(super) fn take(front: &mut Front<'_>) -> Option<Seal> {
        Some(Seal {
            key: KeyId(front.array()?),
            nonce: front.array()?,
        })
    }
}

/// What a message is to be sealed with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sealing<'a> {
    pub(super) key: &'a PairKey,
    pub(super) nonce: Nonce,
}

impl Sealing<'_> {
    pub(super) fn seal(&self) -> Seal {
        Seal {
            key: self.key.id(),
            nonce: self.nonce,
        }
    }

    /// The body as it travels; `head` has its lengths and flags already, and zeros for its checksums.
    pub(super) fn close(&self, header: &Header, head: &[u8], body: &[u8]) -> Result<Vec<u8>> {
        let mut sealed = Vec::with_capacity(body.len() + TAG_LEN);
        sealed.extend_from_slice(body);
        let closed = self.key.seal(way(header), &self.nonce, head, &mut sealed);
        closed.map(|()| sealed).ok_or_else(|| {
            Error::invalid(format!(
                "a message cannot be sealed; it is longer than {MAX_MESSAGE_BYTES}"
            ))
        })
    }
}

/// The body as it would stand in an unsealed message, once the seal, or that there is none, is what these keys ask for.
pub(super) fn opened<'a>(
    prefix: &Prefix,
    said: &[u8],
    head: &Head,
    body: &'a [u8],
    keys: &PairKeys,
) -> Result<Cow<'a, [u8]>, MessageFault> {
    let distrust = |why| Err(MessageFault::Untrusted(why));
    if (prefix.flags & FLAG_SEALED != 0) != head.seal.is_some() {
        // Of nobody that anything is known of: it must not stop a pair.
        return Err(MessageFault::Damaged("its flags and its seal do not agree"));
    }
    let seal = match (keys, head.seal) {
        (PairKeys::Locked(reason) | PairKeys::Damaged(reason), _) => {
            return distrust(Distrust::Locked(reason.clone()));
        }
        (PairKeys::Unsealed, None) => return Ok(Cow::Borrowed(body)),
        (PairKeys::Sealed { .. }, None) if planted::is(Bug::UnsealedTaken) => {
            return Ok(Cow::Borrowed(body));
        }
        (PairKeys::Sealed { .. }, None) => return distrust(Distrust::Unsealed),
        (_, Some(seal)) => seal,
    };
    let ring = match keys {
        PairKeys::Sealed { ring, .. } => Some(ring),
        _ => None,
    };
    let Some(key) = ring.and_then(|ring| ring.find(seal.key)) else {
        let dropped = ring.is_some_and(|ring| ring.is_retired(seal.key));
        return distrust(match dropped {
            true => Distrust::Dropped(seal.key),
            false => Distrust::NoKey(seal.key),
        });
    };
    let mut said = said.to_vec();
    said.get_mut(CRC_AT..PREFIX_LEN).unwrap_or_default().fill(0);
    if body.len() == TAG_LEN && planted::is(Bug::BareSealIgnored) {
        return Ok(Cow::default());
    }
    let open = key.open(way(&head.header), &seal.nonce, &said, body);
    open.map(Cow::Owned)
        .ok_or(MessageFault::Untrusted(Distrust::Forged(seal.key)))
}

fn way(header: &Header) -> Way<'_> {
    Way {
        from: &header.from.name,
        to: &header.to.name,
    }
}
