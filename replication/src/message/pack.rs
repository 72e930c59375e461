//! [`Packer`]: transactions into messages of at most so many bytes.

use bytes::Bytes;
use milepost_engine::Result;
use milepost_engine::width::{to_u64, to_usize};

use crate::keys::TAG_LEN;

use super::envelope::HEAD_ROOM;
use super::part::PART_HEAD;
use super::{Carried, Header, Item, Message, Part, Pieces, Point};

/// Largest message in bytes that any site or link takes, compressed or not: 16 MiB.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// Smallest limit that a message can be packed to, in bytes.
pub const MIN_MESSAGE_BYTES: usize = 10_000;

/// Gathers transactions and cuts messages. Lengths are counted before compression, so a message is never
/// longer than asked.
///
/// ```text
/// push, push, push → a message is full → given … finish → the last one
/// a transaction longer than a message → what was gathered, then one message for each part
/// ```
pub struct Packer {
    room: usize,
    previous: Point,
    items: Vec<Item>,
    used: usize,
}

/// What a message carries, before it has a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// What was sent before it.
    pub previous: Point,
    /// What its addressee has once it was applied.
    pub last: Point,
    /// What it carries.
    pub items: Vec<Item>,
}

impl Packed {
    /// The message, under a header made for it.
    #[must_use]
    pub fn under(self, mut header: Header) -> Message {
        (header.previous, header.last) = (self.previous, self.last);
        Message {
            header,
            items: self.items,
        }
    }
}

impl Packer {
    /// A packer of what follows `previous`, into messages of at most `message_bytes` (moved into
    /// [`MIN_MESSAGE_BYTES`] ..= [`MAX_MESSAGE_BYTES`]).
    #[must_use]
    pub fn new(previous: Point, message_bytes: usize) -> Packer {
        let bytes = message_bytes.clamp(MIN_MESSAGE_BYTES, MAX_MESSAGE_BYTES);
        Packer {
            room: bytes - HEAD_ROOM - TAG_LEN,
            previous,
            items: Vec::new(),
            used: 0,
        }
    }

    /// Adds a transaction; gives the messages that became full, in order. Those of a transaction in parts are made one by one, so
    /// that it takes no more memory than a message, however long it is.
    ///
    /// # Errors
    /// `Invalid` when the transaction's encoding exceeds 4 GiB.
    pub fn push(&mut self, carried: Carried) -> Result<Full> {
        let len = carried.encoded_len();
        let mut full = Full::default();
        if len > self.room - self.used {
            full.first = self.cut();
        }
        if len > self.room {
            full.parts = Some(self.parts(carried)?);
        } else {
            self.used += len;
            self.items.push(Item::Transaction(carried));
        }
        Ok(full)
    }

    /// What is left, if anything is.
    #[must_use]
    pub fn finish(mut self) -> Option<Packed> {
        self.cut()
    }

    /// What is left, as a message that ends at `last`: between the last transaction pushed and `last`
    /// nothing is due. For requests whose end is no longer due. `None` when `last` is already told.
    #[must_use]
    pub fn finish_at(mut self, last: Point) -> Option<Packed> {
        let told = self.items.last().map_or(self.previous, Item::point);
        if last.place() <= told.place() {
            return self.cut();
        }
        Some(Packed {
            previous: self.previous,
            last,
            items: std::mem::take(&mut self.items),
        })
    }

    fn cut(&mut self) -> Option<Packed> {
        let last = self.items.last()?.point();
        self.used = 0;
        let previous = std::mem::replace(&mut self.previous, last);
        Some(Packed {
            previous,
            last,
            items: std::mem::take(&mut self.items),
        })
    }

    fn parts(&mut self, carried: Carried) -> Result<Parts> {
        let mut head = Vec::new();
        carried.encode_head(&mut head)?;
        let events = carried.encoded_events().clone();
        let (point, previous) = (
            carried.point,
            std::mem::replace(&mut self.previous, carried.point),
        );
        Ok(Parts {
            point,
            previous,
            digest: Part::digest_of_two(&head, &events),
            head,
            events,
            // Rounded down so that a piece and its padding fit together.
            piece_len: (self.room - PART_HEAD) & !7,
            at: 0,
        })
    }
}

/// Messages that became full.
#[derive(Default)]
pub struct Full {
    first: Option<Packed>,
    parts: Option<Parts>,
}

impl Full {
    /// Leaves out of a transaction in parts what `there` has of it, if it is that one and encoded alike.
    pub fn leave_out(&mut self, there: &Pieces) {
        let Some(parts) = &mut self.parts else { return };
        let total = to_u64(parts.head.len() + parts.events.len());
        let is_of = (parts.point, parts.digest, total) == (there.point, there.digest, there.total);
        if is_of && there.bytes < total {
            parts.at = parts.at.max(to_usize(there.bytes));
        }
    }
}

impl Iterator for Full {
    type Item = Packed;

    fn next(&mut self) -> Option<Packed> {
        let first = self.first.take();
        first.or_else(|| self.parts.as_mut()?.next())
    }
}

/// A transaction that is cut.
struct Parts {
    point: Point,
    previous: Point,
    digest: u128,
    /// Its encoding, in two pieces.
    head: Vec<u8>,
    events: Bytes,
    piece_len: usize,
    /// Where the next piece begins in the encoding.
    at: usize,
}

impl Iterator for Parts {
    type Item = Packed;

    fn next(&mut self) -> Option<Packed> {
        let total = self.head.len() + self.events.len();
        let (from, to) = (self.at, total.min(self.at + self.piece_len));
        if from >= to {
            return None;
        }
        self.at = to;
        let front = self.head.get(from..to.min(self.head.len()));
        let piece = match front {
            Some(front) if !front.is_empty() => {
                let behind = self.events.get(..to.saturating_sub(self.head.len()));
                Bytes::from([front, behind.unwrap_or_default()].concat())
            }
            _ => self.events.slice(from - self.head.len()..to - self.head.len()),
        };
        let part = Part {
            point: self.point,
            offset: to_u64(from),
            total: to_u64(total),
            digest: self.digest,
            piece,
        };
        Some(Packed {
            previous: self.previous,
            last: self.point,
            items: vec![Item::Part(part)],
        })
    }
}
