//! [`Index`]: what waits in which mailbox, as one server process has read it from the shared log.
//!
//! A pure fold over the records in the order of the log, so every process that has read to the same
//! LSN has the same index, whoever wrote the records. It holds no messages, only where they are.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use milepost_engine::{Lsn, SiteName};
use xxhash_rust::xxh3::xxh3_128;

use crate::server::MailboxPoll;
use crate::wire::MessageKey;

use super::record::Record;

/// Keys of removed messages that are remembered, so that an upload repeated after its removal is not
/// stored again. One forgotten costs a duplicate, which its receiver drops (R3).
const REMEMBERED: usize = 1 << 16;

/// What waits in all mailboxes.
#[derive(Default)]
pub(crate) struct Index {
    mailboxes: HashMap<SiteName, Mailbox>,
    holders: HashMap<SiteName, u64>,
    live: BTreeSet<Lsn>,
    removed: Remembered,
    through: Lsn,
}

#[derive(Default)]
struct Mailbox {
    waiting: BTreeMap<Lsn, Waiting>,
    keys: HashMap<MessageKey, Lsn>,
    bytes: usize,
    last: Lsn,
}

/// One message that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Its key.
    pub(crate) key: MessageKey,
    /// Its length in bytes.
    pub(crate) len: usize,
    /// Tells whether a repeated key comes with the same bytes.
    digest: u128,
}

/// Whether a message may be put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is new.
    New,
    /// It was put before, with these bytes, or was put and removed.
    Known,
    /// It was put before with other bytes.
    Contradiction,
}

#[derive(Default)]
struct Remembered {
    order: VecDeque<(SiteName, MessageKey)>,
    keys: HashSet<(SiteName, MessageKey)>,
}

impl Index {
    /// An index that knows who polls which mailbox and has read nothing else.
    pub(crate) fn with_holders(holders: HashMap<SiteName, u64>) -> Index {
        Index {
            holders,
            ..Index::default()
        }
    }

    /// Takes in the frame at `lsn`; true when it put a new message.
    pub(crate) fn apply(&mut self, record: &Record<'_>, lsn: Lsn) -> bool {
        match record {
            Record::Put { to, key, message } => return self.put(to, key, message, lsn),
            Record::Removed { site, keys } => keys.iter().for_each(|key| self.remove(site, key)),
            Record::Claimed { site, session } => {
                self.holders.insert(site.clone(), *session);
            }
        }
        false
    }

    /// Everything up to `lsn` was read.
    pub(crate) fn advance(&mut self, lsn: Lsn) {
        assert!(lsn >= self.through, "the index reads the log forwards (E2)");
        self.through = lsn;
    }

    /// No message that waits now, or is put later, lies before this LSN.
    pub(crate) fn oldest(&self) -> Lsn {
        self.live.first().copied().unwrap_or_else(|| self.through.plus(1))
    }

    /// Whether a message may be put.
    pub(crate) fn admit(&self, to: &SiteName, key: &MessageKey, message: &[u8]) -> Admission {
        let mailbox = self.mailboxes.get(to);
        let known = mailbox.and_then(|mailbox| mailbox.waiting.get(mailbox.keys.get(key)?));
        match known {
            Some(waiting) if waiting.digest == xxh3_128(message) => Admission::Known,
            Some(_) => Admission::Contradiction,
            None if self.removed.keys.contains(&(to.clone(), key.clone())) => Admission::Known,
            None => Admission::New,
        }
    }

    /// Messages and bytes that wait in a mailbox.
    pub(crate) fn fill_of(&self, site: &SiteName) -> (usize, usize) {
        self.mailboxes
            .get(site)
            .map_or((0, 0), |mailbox| (mailbox.waiting.len(), mailbox.bytes))
    }

    /// Mailboxes that something waits in or has waited in.
    pub(crate) fn mailbox_count(&self) -> usize {
        self.mailboxes.len()
    }

    /// LSN of the last message that came for a site, whether it still waits or not.
    pub(crate) fn last_arrival(&self, site: &SiteName) -> Lsn {
        self.mailboxes.get(site).map_or(Lsn::ZERO, |mailbox| mailbox.last)
    }

    /// The session that polls a mailbox.
    pub(crate) fn holder(&self, site: &SiteName) -> Option<u64> {
        self.holders.get(site).copied()
    }

    /// What a poll gives, oldest first, and the LSN to go on after (zero: there is no more).
    pub(crate) fn select(&self, site: &SiteName, poll: &MailboxPoll) -> (Vec<(Lsn, Waiting)>, Lsn) {
        let mut chosen: Vec<(Lsn, Waiting)> = Vec::new();
        let mut bytes = 0;
        let Some(mailbox) = self.mailboxes.get(site) else {
            return (chosen, Lsn::ZERO);
        };
        let behind = mailbox.waiting.range(Lsn(poll.after).plus(1)..);
        for (lsn, waiting) in behind.filter(|(_, waiting)| !poll.skip.contains(&waiting.key)) {
            let full = chosen.len() >= poll.max_count.max(1) || bytes + waiting.len > poll.max_bytes;
            if let Some((last, _)) = chosen.last().filter(|_| full) {
                let next = *last;
                return (chosen, next);
            }
            bytes += waiting.len;
            chosen.push((*lsn, waiting.clone()));
        }
        (chosen, Lsn::ZERO)
    }

    /// Those of `keys` that wait in a mailbox.
    pub(crate) fn present(&self, site: &SiteName, keys: &[MessageKey]) -> Vec<MessageKey> {
        let Some(mailbox) = self.mailboxes.get(site) else {
            return Vec::new();
        };
        keys.iter()
            .filter(|key| mailbox.keys.contains_key(key))
            .cloned()
            .collect()
    }

    fn put(&mut self, to: &SiteName, key: &MessageKey, message: &[u8], lsn: Lsn) -> bool {
        // Two servers may take one upload at the same time: the first in the log counts, for all of them.
        if self.admit(to, key, message) != Admission::New {
            return false;
        }
        let mailbox = self.mailboxes.entry(to.clone()).or_default();
        let waiting = Waiting {
            key: key.clone(),
            len: message.len(),
            digest: xxh3_128(message),
        };
        mailbox.waiting.insert(lsn, waiting);
        mailbox.keys.insert(key.clone(), lsn);
        mailbox.bytes += message.len();
        mailbox.last = lsn;
        self.live.insert(lsn);
        true
    }

    fn remove(&mut self, site: &SiteName, key: &MessageKey) {
        let Some(mailbox) = self.mailboxes.get_mut(site) else {
            return;
        };
        let Some(lsn) = mailbox.keys.remove(key) else {
            return;
        };
        if let Some(waiting) = mailbox.waiting.remove(&lsn) {
            mailbox.bytes -= waiting.len;
        }
        self.live.remove(&lsn);
        self.removed.remember(site.clone(), key.clone());
    }
}

impl Remembered {
    fn remember(&mut self, site: SiteName, key: MessageKey) {
        if self.keys.insert((site.clone(), key.clone())) {
            self.order.push_back((site, key));
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.keys.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(name: &str) -> SiteName {
        SiteName::new(name).unwrap()
    }

    fn key(id: u128) -> MessageKey {
        MessageKey { from: site("hq"), id }
    }

    fn put(index: &mut Index, id: u128, message: &[u8], lsn: u64) -> bool {
        index.apply(
            &Record::Put {
                to: site("bern"),
                key: key(id),
                message,
            },
            Lsn(lsn),
        )
    }

    fn remove(index: &mut Index, id: u128, lsn: u64) {
        index.apply(
            &Record::Removed {
                site: site("bern"),
                keys: vec![key(id)],
            },
            Lsn(lsn),
        );
    }

    fn poll(after: u64, max_count: usize, max_bytes: usize) -> MailboxPoll {
        MailboxPoll {
            after,
            max_count,
            max_bytes,
            skip: BTreeSet::new(),
        }
    }

    fn lsns(index: &Index, poll: &MailboxPoll) -> (Vec<u64>, u64) {
        let (chosen, next) = index.select(&site("bern"), poll);
        (chosen.into_iter().map(|(lsn, _)| lsn.0).collect(), next.0)
    }

    #[test]
    fn a_repeated_upload_waits_once_and_is_not_stored_again_after_its_removal() {
        let mut index = Index::default();
        assert!(put(&mut index, 1, b"a", 10));
        assert!(!put(&mut index, 1, b"a", 20));
        assert_eq!(lsns(&index, &poll(0, 9, 9)), (vec![10], 0));
        remove(&mut index, 1, 30);
        assert!(!put(&mut index, 1, b"a", 40));
        assert_eq!(lsns(&index, &poll(0, 9, 9)), (vec![], 0));
        assert_eq!(index.fill_of(&site("bern")), (0, 0));
    }

    #[test]
    fn a_known_key_with_other_bytes_is_a_contradiction_and_another_site_has_its_own_keys() {
        let mut index = Index::default();
        put(&mut index, 1, b"a", 10);
        assert_eq!(index.admit(&site("bern"), &key(1), b"a"), Admission::Known);
        assert_eq!(
            index.admit(&site("bern"), &key(1), b"b"),
            Admission::Contradiction
        );
        let other = MessageKey {
            from: site("mallory"),
            id: 1,
        };
        assert_eq!(index.admit(&site("bern"), &other, b"b"), Admission::New);
        assert_eq!(index.admit(&site("basel"), &key(1), b"b"), Admission::New);
    }

    #[test]
    fn a_poll_goes_on_where_it_ended_and_a_skipped_message_is_not_given() {
        let mut index = Index::default();
        (1..=5).for_each(|id| assert!(put(&mut index, id, &[0; 10], 10 * u64::try_from(id).unwrap())));
        assert_eq!(lsns(&index, &poll(0, 2, 99)), (vec![10, 20], 20));
        assert_eq!(lsns(&index, &poll(20, 9, 25)), (vec![30, 40], 40));
        assert_eq!(
            lsns(&index, &poll(40, 9, 1)),
            (vec![50], 0),
            "the first is given whatever its size"
        );
        let skip = BTreeSet::from([key(1), key(3)]);
        assert_eq!(
            lsns(
                &index,
                &MailboxPoll {
                    skip,
                    ..poll(0, 2, 99)
                }
            ),
            (vec![20, 40], 40)
        );
    }

    #[test]
    fn nothing_that_waits_lies_before_the_oldest() {
        let mut index = Index::default();
        assert_eq!(index.oldest(), Lsn(1));
        put(&mut index, 1, b"a", 10);
        put(&mut index, 2, b"b", 20);
        index.advance(Lsn(20));
        assert_eq!(index.oldest(), Lsn(10));
        remove(&mut index, 1, 30);
        index.advance(Lsn(30));
        assert_eq!(index.oldest(), Lsn(20));
        remove(&mut index, 2, 40);
        index.advance(Lsn(40));
        assert_eq!(index.oldest(), Lsn(41));
    }

    #[test]
    fn the_removed_are_remembered_up_to_a_limit() {
        let mut index = Index::default();
        for id in 1..=u64::try_from(REMEMBERED + 10).unwrap() {
            put(&mut index, u128::from(id), b"", id * 2);
            remove(&mut index, u128::from(id), id * 2 + 1);
        }
        assert_eq!(index.removed.order.len(), REMEMBERED);
        assert_eq!(index.removed.keys.len(), REMEMBERED);
    }
}
