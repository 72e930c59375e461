//! [`Inbox`]: messages that were polled and cannot be applied yet. A cache: all of it is still on its
//! link, so whatever falls out comes again.
//!
//! Memory is shared fairly: when it is full, the sender that holds most gives up its furthest message with data, but none that its stream
//! goes on with while there is another, and nobody loses its last 256 KiB for another's sake.

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
    /// What its stream goes on with follows this.
    stands: Option<Place>,
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

    /// A sender's stream stands here: messages that follow it directly are what all others wait for.
    pub fn stands(&mut self, sender: &SiteName, at: Place) {
        self.senders.entry(sender.clone()).or_default().stands = Some(at);
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
        // One without data waits for nothing. A probe stands at the far end of all that was sent, and its answer may be
        // what the others wait for.
        let has_data = |(previous, last, _): &Order| previous != last;
        // One that begins before where the stream stands may wait for ever, for proof, and is in nobody's way.
        let goes_on = |(previous, ..): &Order| Some(*previous) == sender.stands;
        let mut with_data = sender.messages.keys().rev().filter(|order| has_data(order));
        let furthest = with_data
            .clone()
            .find(|order| !goes_on(order))
            .or(with_data.next());
        let furthest = furthest.or(sender.messages.keys().next_back()).cloned();
        if let Some(bytes) = furthest.and_then(|order| sender.messages.remove(&order)) {
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

    /// The same with their bytes.
    pub fn waiting(&self, sender: &SiteName) -> impl Iterator<Item = (&Order, &[u8])> {
        let messages = self.senders.get(sender).map(|sender| &sender.messages);
        messages
            .into_iter()
            .flatten()
            .map(|(order, bytes)| (order, bytes.as_slice()))
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

#[cfg(test)]
mod tests {
    use milepost_engine::Lsn;

    use super::*;
    use crate::message::Place;

    fn place(at: u64) -> Place {
        Place {
            at: Lsn(at),
            back: Lsn::ZERO,
        }
    }

    fn order(previous: u64, last: u64) -> Order {
        let key = MessageKey {
            link: LinkNumber::default(),
            id: MessageId::new(format!("{previous}-{last}").as_str()),
        };
        (place(previous), place(last), key)
    }

    /// The trap: pieces of a transaction were sent behind a place that its stream has passed, and can prove nothing; they filled the memory in
    /// every poll, and the message that the stream goes on with fell out.
    #[test]
    fn what_the_stream_goes_on_with_does_not_fall_out_for_what_begins_before_it() {
        let (mut inbox, sender) = (Inbox::new(1 << 20), "hq".parse().unwrap());
        inbox.stands(&sender, place(50));
        let named = |previous, number| {
            let (previous, last, mut key) = order(previous, 90);
            key.id = MessageId::new(format!("{previous}-{number}").as_str());
            (previous, last, key)
        };
        for number in 0..4 {
            inbox.put(&sender, named(40, number), vec![0; 297_000]);
        }
        inbox.put(&sender, named(50, 0), vec![0; 297_000]);
        inbox.put(&sender, named(50, 1), vec![0; 3_000]);
        let there = [named(50, 0), named(50, 1)].map(|order| inbox.get(&sender, &order).is_some());
        assert_eq!((there, inbox.orders(&sender).len()), ([true, true], 4));
        // Where there is nothing else to give up, they fall out as well.
        for number in 2..9 {
            inbox.put(&sender, named(50, number), vec![0; 297_000]);
        }
        assert!(inbox.held <= 1 << 20);
    }

    /// The trap: a restored site waits for the first message of many; the probe whose answer would bring it stands behind
    /// them all, and was the first to fall out, in every poll anew.
    #[test]
    fn a_message_without_data_does_not_fall_out_for_those_that_wait_behind_a_gap() {
        let (mut inbox, sender) = (Inbox::new(1 << 20), "hq".parse().unwrap());
        let probe = order(90_000, 90_000);
        inbox.put(&sender, probe.clone(), vec![0; 300]);
        for number in 1..400 {
            inbox.put(&sender, order(number * 100, number * 100 + 100), vec![0; 10_000]);
        }
        assert!(inbox.get(&sender, &probe).is_some());
        assert_eq!(inbox.first(&sender), Some(&order(100, 200)), "the nearest stay");
        let kept = inbox.orders(&sender).len();
        assert!((100..110).contains(&kept), "{kept} are kept of 1 MiB");
        // Of many without data the furthest fall out as well, once nothing else is left.
        for number in 0..9_000 {
            inbox.put(&sender, order(100_000 + number, 100_000 + number), vec![0; 300]);
        }
        assert!(inbox.held <= 1 << 20);
    }
}
