//! [`Inbox`]: messages that were polled and cannot be applied yet. A cache: all of it is still on its
//! link, so whatever falls out comes again.
//!
//! Memory is shared fairly: when it is full, the sender that holds most gives up its furthest message,
//! and nobody loses its last 256 KiB for another's sake.

use std::collections::BTreeMap;

use milepost_engine::SiteName;
use milepost_engine::width::to_u64;

use crate::agent::LinkNumber;
use crate::link::MessageId;
use crate::message::Place;

/// What a sender keeps whatever others send, in bytes.
const SENDER_KEEPS: u64 = 256 << 10;

/// A message's name in this process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MessageKey {
    /// The link it waits on.
    pub link: LinkNumber,
    /// Its name there.
    pub id: MessageId,
}

/// Where a message stands among those of its sender: by `previous`, then `last`.
pub type Order = (Place, Place, MessageKey);

/// Messages by sender, in order.
pub struct Inbox {
    limit: u64,
    held: u64,
    senders: BTreeMap<SiteName, Sender>,
}

#[derive(Default)]
struct Sender {
    held: u64,
    messages: BTreeMap<Order, Vec<u8>>,
}

impl Inbox {
    /// An inbox of at most `limit` bytes, give or take what senders keep.
    #[must_use]
    pub fn new(limit: u64) -> Inbox {
        Inbox {
            limit,
            held: 0,
            senders: BTreeMap::new(),
        }
    }

    /// Keeps a message. Others, or this one, may fall out.
    pub fn put(&mut self, sender: &SiteName, order: Order, bytes: Vec<u8>) {
        let len = to_u64(bytes.len());
        let place = self.senders.entry(sender.clone()).or_default();
        if place.messages.contains_key(&order) {
            return;
        }
        place.messages.insert(order, bytes);
        place.held += len;
        self.held += len;
        while self.held > self.limit && self.evict() {}
    }

    /// Drops the furthest message of whoever holds most; false when nobody has more than he keeps.
    fn evict(&mut self) -> bool {
        let most = self.senders.values_mut().max_by_key(|sender| sender.held);
        let Some(sender) = most.filter(|sender| sender.held > SENDER_KEEPS && sender.messages.len() > 1)
        else {
            return false;
        };
        if let Some((_, bytes)) = sender.messages.pop_last() {
            sender.held -= to_u64(bytes.len());
            self.held -= to_u64(bytes.len());
        }
        true
    }

    /// Messages of a sender, in order.
    #[must_use]
    pub fn orders(&self, sender: &SiteName) -> Vec<Order> {
        self.senders
            .get(sender)
            .map(|sender| sender.messages.keys().cloned().collect())
            .unwrap_or_default()
    }

    /// The first message of a sender.
    #[must_use]
    pub fn first(&self, sender: &SiteName) -> Option<&Order> {
        self.senders.get(sender)?.messages.keys().next()
    }

    /// A message.
    #[must_use]
    pub fn get(&self, sender: &SiteName, order: &Order) -> Option<&[u8]> {
        self.senders.get(sender)?.messages.get(order).map(Vec::as_slice)
    }

    /// Drops a message.
    pub fn remove(&mut self, sender: &SiteName, order: &Order) {
        if let Some(place) = self.senders.get_mut(sender)
            && let Some(bytes) = place.messages.remove(order)
        {
            place.held -= to_u64(bytes.len());
            self.held -= to_u64(bytes.len());
        }
    }

    /// Names of all messages held.
    pub fn keys(&self) -> impl Iterator<Item = &MessageKey> {
        self.senders
            .values()
            .flat_map(|sender| sender.messages.keys().map(|(_, _, key)| key))
    }

    /// Drops everything; it is still on its links.
    pub fn clear(&mut self) {
        self.senders.clear();
        self.held = 0;
    }
}
