//! [`Ahead`]: messages that several threads check, open, unpack and decode side by side (`-w`), before one applies them.
//!
//! ```text
//! inbox, in order:  hq 1 │ hq 2 │ shop 1 │ shop 2 │ …        decoded by: worker 1, 2, 3, 1, …
//! applied:          hq 1,  hq 2,  shop 1,  shop 2, …         by the thread that polls, as with one worker
//! ```
//!
//! What a message decodes to depends on its bytes and on its pair's keys, and on nothing that applying changes. So the order of
//! application, and every frame, are the same whatever number of workers there is; which thread was faster shows nowhere. All that
//! depends on our log, on other messages or on hooks is done by the one thread: positions with their events (R1), duplicates and origins
//! (R4), quarantine, groups and syncs.
//!
//! What is decoded ahead is bounded by what it unpacks to, which the head says. What is not decoded ahead is decoded when its turn comes.

use std::collections::BTreeMap;
use std::thread;

use milepost_engine::SiteName;
use milepost_engine::width::to_usize;

use crate::keys::PairKeys;
use crate::message::{Message, MessageFault, decode, unpacked_len};

use super::inbox::{MessageKey, Order};
use super::phase::{Pair, ReceivePhase, limits};

/// Most that messages which are decoded ahead unpack to, in bytes.
const AHEAD_BYTES: u64 = 16 << 20;

/// A message as it is to be applied.
pub type Decoded = Result<Message, MessageFault>;

/// A message that may be decoded ahead.
pub struct Wanted<'a> {
    pub key: &'a MessageKey,
    pub bytes: &'a [u8],
    pub keys: &'a PairKeys,
}

/// Messages that were decoded before their turn.
pub struct Ahead {
    workers: usize,
    /// Most that all of it unpacks to.
    limit: u64,
    held: u64,
    decoded: BTreeMap<MessageKey, (u64, Decoded)>,
}

impl Ahead {
    /// Nothing ahead, with memory of `memory` bytes for it at most.
    pub fn new(memory: u64) -> Ahead {
        Ahead {
            workers: 1,
            limit: AHEAD_BYTES.min(memory),
            held: 0,
            decoded: BTreeMap::new(),
        }
    }

    /// Decodes with so many threads, at least one.
    pub fn set_workers(&mut self, workers: u32) {
        self.workers = to_usize(u64::from(workers.max(1)));
    }

    /// True when [`Ahead::decode`] is worth a call.
    pub fn is_of_use(&self) -> bool {
        self.workers > 1 && self.held < self.limit
    }

    /// The message, if it was decoded.
    pub fn take(&mut self, key: &MessageKey) -> Option<Decoded> {
        let (len, decoded) = self.decoded.remove(key)?;
        self.held -= len;
        Some(decoded)
    }

    /// Decodes the first of these, in their order, as far as there is room.
    pub fn decode<'a>(&mut self, wanted: impl Iterator<Item = Wanted<'a>>) {
        let (mut now, mut room) = (Vec::new(), self.limit - self.held);
        for one in wanted.filter(|one| !self.decoded.contains_key(one.key)) {
            let len = unpacked_len(one.bytes);
            let Some(left) = room.checked_sub(len) else {
                break;
            };
            room = left;
            now.push((len, one));
        }
        let workers = self.workers.min(now.len());
        if workers < 2 {
            return;
        }
        for (key, len, decoded) in side_by_side(&now, workers) {
            self.held += len;
            self.decoded.insert(key, (len, decoded));
        }
    }

    /// Forgets what was decoded: its bytes or keys may be others by now.
    pub fn clear(&mut self) {
        self.decoded.clear();
        self.held = 0;
    }
}

impl ReceivePhase {
    /// The message if it was decoded ahead, with the next ones of this sender and of others whose turn comes in this poll.
    pub(super) fn decoded_ahead(&mut self, sender: &SiteName, order: &Order) -> Option<Decoded> {
        let known = self.ahead.take(&order.2);
        if known.is_some() || !self.ahead.is_of_use() {
            return known;
        }
        let ReceivePhase {
            pairs, inbox, ahead, ..
        } = self;
        let is_ready = |(name, pair): &(&SiteName, &Pair)| {
            let first = inbox.first(name);
            *name != sender
                && first.is_some_and(|(previous, _, _)| *previous <= pair.receiver.staged().place())
        };
        let senders = pairs.get_key_value(sender).into_iter();
        ahead.decode(
            senders
                .chain(pairs.iter().filter(is_ready))
                .flat_map(|(name, pair)| {
                    let waiting = inbox
                        .waiting(name)
                        .filter(move |(other, _)| name != sender || *other >= order);
                    waiting.map(|((_, _, key), bytes)| Wanted {
                        key,
                        bytes,
                        keys: pair.trust.keys(),
                    })
                }),
        );
        self.ahead.take(&order.2)
    }
}

/// With n workers, each takes every n-th message.
fn side_by_side(wanted: &[(u64, Wanted<'_>)], workers: usize) -> Vec<(MessageKey, u64, Decoded)> {
    let work = |first: usize| {
        let share = wanted.iter().skip(first).step_by(workers);
        let decoded = share.map(|(len, one)| {
            let decoded = decode(one.bytes, &limits(), one.keys);
            (one.key.clone(), *len, decoded)
        });
        decoded.collect::<Vec<_>>()
    };
    let work = &work;
    thread::scope(|scope| {
        let begin = |first: usize| thread::Builder::new().spawn_scoped(scope, move || work(first));
        let others: Vec<_> = (1..workers).map(begin).collect();
        let mut done = work(0);
        for (first, other) in (1..).zip(others) {
            match other {
                Ok(other) => match other.join() {
                    Ok(decoded) => done.extend(decoded),
                    Err(panic) => std::panic::resume_unwind(panic),
                },
                // No thread is to be had now: its share is decoded here.
                Err(_) => done.extend(work(first)),
            }
        }
        done
    })
}

#[cfg(test)]
mod tests {
    use milepost_engine::frame::NewFrame;
    use milepost_engine::{Chain, Epoch, Event, Lsn, Position, StoreId};

    use milepost_engine::width::to_u64;

    use super::*;
    use crate::agent::LinkNumber;
    use crate::link::MessageId;
    use crate::message::{Address, Carried, Header, Item, Point, encode};

    fn message(number: u64, payload: &str) -> Vec<u8> {
        let point = Point::live(Position {
            epoch: Epoch(1),
            lsn: Lsn(number),
            chain: Chain(number),
        });
        let mut frame = NewFrame::transaction();
        let event = Event::new("s", "k", payload.as_bytes().to_vec()).unwrap();
        frame.push_event(0, &event).unwrap();
        let carried = Carried::with_events_of(point, None, &frame);
        let to = Address {
            name: "shop".parse().unwrap(),
            id: None,
        };
        let mut header = Header::new(("hq".parse().unwrap(), StoreId(1)), to, 1, Epoch(1));
        (header.last, header.durable) = (point, Lsn(number));
        let items = vec![Item::Transaction(carried)];
        encode(&Message { header, items }).unwrap()
    }

    fn key(number: usize) -> MessageKey {
        MessageKey {
            link: LinkNumber::default(),
            id: MessageId::new(format!("{number:04}").as_str()),
        }
    }

    fn ahead(workers: u32, memory: u64, all: &[(MessageKey, Vec<u8>)]) -> Ahead {
        let mut ahead = Ahead::new(memory);
        ahead.set_workers(workers);
        ahead.decode(all.iter().map(|(key, bytes)| Wanted {
            key,
            bytes,
            keys: &PairKeys::Unsealed,
        }));
        ahead
    }

    #[test]
    fn what_is_decoded_ahead_is_what_one_thread_decodes_damage_and_all() {
        let payload: String = (0..4_000u32)
            .map(|at| char::from(b'a' + (at * at % 26) as u8))
            .collect();
        let mut all: Vec<_> = (1..60)
            .map(|number| {
                (
                    key(number),
                    message(to_u64(number), &format!("{number}{payload}")),
                )
            })
            .collect();
        all[7].1[100] ^= 1;
        let last = all[9].1.len() - 1;
        all[9].1.truncate(last);
        for workers in [2, 3, 8, 200] {
            let mut ahead = ahead(workers, 64 << 20, &all);
            assert_eq!(ahead.decoded.len(), all.len(), "{workers}");
            for (key, bytes) in &all {
                let one = decode(bytes, &limits(), &PairKeys::Unsealed);
                assert_eq!(ahead.take(key), Some(one), "{workers}");
                assert_eq!(ahead.take(key), None, "taken once");
            }
            assert_eq!(ahead.held, 0);
        }
    }

    /// The trap: a small message may unpack to 255 times its size.
    #[test]
    fn what_is_decoded_ahead_is_bounded_by_what_it_unpacks_to() {
        let zeros = "0".repeat(1 << 20);
        let all: Vec<_> = (1..40)
            .map(|number| (key(number), message(to_u64(number), &zeros)))
            .collect();
        let packed: usize = all.iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(packed < 1 << 20, "{packed}");
        let ahead = ahead(4, 64 << 20, &all);
        assert!(
            ahead.held <= AHEAD_BYTES && ahead.held > AHEAD_BYTES / 2,
            "{}",
            ahead.held
        );
        assert!(ahead.decoded.len() < all.len());
        let little = self::ahead(4, 3 << 20, &all);
        assert!(
            little.held <= 3 << 20 && little.decoded.len() == 2,
            "{}",
            little.held
        );
        assert!(
            self::ahead(1, 64 << 20, &all).decoded.is_empty(),
            "one worker decodes when its turn comes"
        );
    }
}
