//! [`Postings`]: topic → entries of the queue, for all remotes in one list.
//!
//! ```text
//! (orders, be) → 4208, 4711, 5003 …      ascending LSNs, each with its place in the queue
//! (orders, zh) → 4208, 4990 …
//! ```
//!
//! A remote's live stream is the union of its topics' lists within its subscriptions' ranges, less what
//! came from it (R4). So what is done for one remote costs in proportion to what that one gets. Rebuilt
//! from the queue when the send phase starts; holds no events.

use std::collections::{BTreeMap, HashMap};

use milepost_engine::width::to_u64;
use milepost_engine::{Lsn, QueuePlace, SiteName};

use crate::catalog::{Subscription, Topic};
use crate::planted::{self, Bug};
use crate::scan::{Entry, NewEntry};

/// Entries of the queue by topic.
#[derive(Default)]
pub struct Postings {
    /// Lists by the site that the entries were received from (its number in `sites`), so that a remote
    /// steps over what it sent us itself without looking at it.
    topics: HashMap<Topic, BTreeMap<Option<usize>, Vec<Posting>>>,
    sites: Vec<String>,
    count: usize,
}

/// One entry under one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Posting {
    lsn: Lsn,
    queued: QueuePlace,
    bytes: u64,
}

impl Posting {
    fn due(self) -> Due {
        Due {
            lsn: self.lsn,
            queued: self.queued,
            bytes: self.bytes,
            topics: Vec::new(),
            doubtful: Vec::new(),
        }
    }
}

/// An entry that a remote is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// LSN of the transaction in the log.
    pub lsn: Lsn,
    /// Where the entry is in the queue; nowhere ([`Due::is_queued`]) when the scan has yet to make it.
    pub queued: QueuePlace,
    /// Bytes of all its events.
    pub bytes: u64,
    /// Topics under which the remote is due it.
    pub topics: Vec<Topic>,
    /// Topics under which it was due through a subscription that was revoked, and when the last was: what is
    /// under them is due still if an heir wants it ([`super::Heirs`]).
    pub doubtful: Vec<(Topic, Lsn)>,
}

impl Due {
    /// True when there is an entry to read.
    #[must_use]
    pub fn is_queued(&self) -> bool {
        self.queued != QueuePlace::default()
    }

    fn add(&mut self, topic: &Topic, revoked: Option<Lsn>) {
        let Some(revoked) = revoked else {
            if !self.topics.contains(topic) {
                self.topics.push(topic.clone());
            }
            return;
        };
        match self.doubtful.iter_mut().find(|(known, _)| known == topic) {
            Some((_, last)) => *last = revoked.max(*last),
            None => self.doubtful.push((topic.clone(), revoked)),
        }
    }
}

impl Postings {
    /// Notes an entry found at `queued`. Entries come in the order of the queue.
    pub fn note(&mut self, entry: &Entry<'_>, queued: QueuePlace) {
        let posting = Posting {
            lsn: entry.position.lsn,
            queued,
            bytes: to_u64(entry.events_len()),
        };
        self.add(
            posting,
            entry.via.map(|via| via.name),
            entry.topics.iter().cloned(),
        );
    }

    /// Notes what the scan will make of the transaction at `lsn`, behind all that is queued: enough to
    /// count, nothing to read.
    pub fn note_unscanned(&mut self, lsn: Lsn, entry: &NewEntry<'_>, via: Option<&str>) {
        let posting = Posting {
            lsn,
            queued: QueuePlace::default(),
            bytes: to_u64(entry.events_len()),
        };
        self.add(posting, via, entry.topics());
    }

    fn add(&mut self, posting: Posting, via: Option<&str>, topics: impl Iterator<Item = Topic>) {
        let via = via.map(|name| self.site(name));
        for topic in topics {
            let list = self.topics.entry(topic).or_default().entry(via).or_default();
            // A scan that died between its entries and its position writes them again (Q1).
            if list.last().is_none_or(|last| last.lsn < posting.lsn) {
                list.push(posting);
                self.count += 1;
            }
        }
    }

    fn site(&mut self, name: &str) -> usize {
        self.sites
            .iter()
            .position(|known| known == name)
            .unwrap_or_else(|| {
                self.sites.push(name.to_owned());
                self.sites.len() - 1
            })
    }

    /// The first entry behind `after` that `remote` is due, or may be due, through its subscriptions.
    #[must_use]
    pub fn next_due(&self, remote: &SiteName, subscriptions: &[&Subscription], after: Lsn) -> Option<Due> {
        let own = self.sites.iter().position(|site| site == remote.as_str());
        let own = own.filter(|_| !planted::is(Bug::SendBack));
        let mut found: BTreeMap<Lsn, Due> = BTreeMap::new();
        for subscription in subscriptions {
            let topic = Topic {
                publication: subscription.publication.clone(),
                value: subscription.value.clone(),
            };
            let lists = self.topics.get(&topic).into_iter().flatten();
            for (_, list) in lists.filter(|(via, _)| own.is_none() || **via != own) {
                let first = after.max(subscription.id.lsn());
                let at = list.partition_point(|posting| posting.lsn <= first);
                let Some(posting) = list
                    .get(at)
                    .filter(|posting| subscription.covers_live(posting.lsn))
                else {
                    continue;
                };
                let due = found.entry(posting.lsn).or_insert_with(|| posting.due());
                due.add(&topic, subscription.revoked);
            }
        }
        found.pop_first().map(|(_, due)| due)
    }

    /// How many transactions, and how many bytes of events, `remote` is due behind `after`. An upper
    /// bound in bytes: an entry's events under other topics are counted too. What is due through a revoked
    /// subscription's heirs alone is not counted.
    #[must_use]
    pub fn backlog(&self, remote: &SiteName, subscriptions: &[&Subscription], after: Lsn) -> (u64, u64) {
        let (mut transactions, mut bytes, mut at) = (0, 0, after);
        while let Some(due) = self.next_due(remote, subscriptions, at) {
            at = due.lsn;
            if !due.topics.is_empty() {
                (transactions, bytes) = (transactions + 1, bytes + due.bytes);
            }
        }
        (transactions, bytes)
    }

    /// Forgets entries at or below `through`.
    pub fn free(&mut self, through: Lsn) {
        for lists in self.topics.values_mut() {
            for list in lists.values_mut() {
                let freed = list.partition_point(|posting| posting.lsn <= through);
                list.drain(..freed);
                self.count -= freed;
            }
            lists.retain(|_, list| !list.is_empty());
        }
        self.topics.retain(|_, lists| !lists.is_empty());
    }

    /// Entries noted, once for each of their topics.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// True when nothing is queued.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

#[cfg(test)]
mod tests {
    use milepost_engine::frame::NewFrame;
    use milepost_engine::{Chain, Epoch, Event, InPlace, Position, StoreId, Via};

    use super::*;
    use crate::catalog::tests::{subscription, with_frame};

    fn topic(value: &str) -> Topic {
        Topic {
            publication: "orders".into(),
            value: Some(value.into()),
        }
    }

    /// Notes an entry for a transaction at `lsn` with one event under each value.
    fn note(postings: &mut Postings, lsn: u64, values: &[&str], via: Option<&str>) {
        let position = Position {
            epoch: Epoch(1),
            lsn: Lsn(lsn),
            chain: Chain(1),
        };
        let (mut events, mut made) = (NewFrame::transaction(), None);
        for _ in values {
            events
                .push_event(0, &Event::new("orders/1", "placed", *b"{}").unwrap())
                .unwrap();
        }
        with_frame(events, |frame| {
            let mut entry = NewEntry::at(position, 0, *frame);
            for (value, event) in values.iter().zip(frame.events()) {
                let number = entry.add_topic(&topic(value)).unwrap();
                entry.add_event(&event.unwrap(), &[number]).unwrap();
            }
            made = Some(entry.into_frame(InPlace::default()).unwrap());
        });
        let mut frame = made.unwrap();
        if let Some(via) = via {
            let name = SiteName::new(via).unwrap();
            frame.set_via(Via {
                site: StoreId(1),
                name,
                generation: 1,
                position,
                back: Lsn::ZERO,
            });
        }
        with_frame(frame, |frame| {
            let queued = QueuePlace {
                lsn: Lsn(lsn + 1_000_000),
                ..QueuePlace::default()
            };
            postings.note(&Entry::read(frame).unwrap().unwrap(), queued)
        });
    }

    fn stream(postings: &Postings, remote: &str, subscriptions: &[Subscription]) -> Vec<(u64, usize)> {
        let (remote, all) = (
            SiteName::new(remote).unwrap(),
            subscriptions.iter().collect::<Vec<_>>(),
        );
        let (mut found, mut at) = (Vec::new(), Lsn::ZERO);
        while let Some(due) = postings.next_due(&remote, &all, at) {
            assert_eq!(due.queued.lsn.0, due.lsn.0 + 1_000_000);
            found.push((due.lsn.0, due.topics.len()));
            at = due.lsn;
        }
        found
    }

    #[test]
    fn a_remote_is_due_each_entry_once_however_many_subscriptions_match() {
        let mut postings = Postings::default();
        note(&mut postings, 100, &["be", "zh"], None);
        note(&mut postings, 200, &["ge"], None);
        note(&mut postings, 300, &["zh"], None);
        let both = [
            subscription(10, "bern", "orders", Some("be")),
            subscription(11, "bern", "orders", Some("zh")),
        ];
        assert_eq!(stream(&postings, "bern", &both), [(100, 2), (300, 1)]);
    }

    #[test]
    fn ranges_bound_a_stream_and_what_a_revoked_subscription_gave_is_in_doubt() {
        let mut postings = Postings::default();
        [100, 200, 300]
            .iter()
            .for_each(|lsn| note(&mut postings, *lsn, &["be"], None));
        let mut one = subscription(150, "bern", "orders", Some("be"));
        one.until = Some(Lsn(250));
        assert_eq!(stream(&postings, "bern", &[one.clone()]), [(200, 1)]);
        one.revoked = Some(Lsn(400));
        let site = SiteName::new("bern").unwrap();
        let due = postings.next_due(&site, &[&one], Lsn::ZERO).unwrap();
        assert_eq!(
            (due.topics, due.doubtful),
            (vec![], vec![(topic("be"), Lsn(400))])
        );
        assert_eq!(postings.backlog(&site, &[&one], Lsn::ZERO), (0, 0));
    }

    #[test]
    fn what_came_from_a_remote_is_not_due_to_it_and_hides_nothing_behind_it_r4() {
        let mut postings = Postings::default();
        note(&mut postings, 100, &["be"], Some("bern"));
        note(&mut postings, 200, &["be"], None);
        let one = |site| [subscription(10, site, "orders", Some("be"))];
        assert_eq!(stream(&postings, "bern", &one("bern")), [(200, 1)]);
        assert_eq!(stream(&postings, "head", &one("head")), [(100, 1), (200, 1)]);
    }

    #[test]
    fn an_entry_written_twice_is_due_once_q1() {
        let mut postings = Postings::default();
        note(&mut postings, 100, &["be"], None);
        note(&mut postings, 200, &["be"], None);
        note(&mut postings, 100, &["be"], None);
        note(&mut postings, 200, &["be"], None);
        let one = [subscription(10, "bern", "orders", Some("be"))];
        assert_eq!(stream(&postings, "bern", &one), [(100, 1), (200, 1)]);
        postings.free(Lsn(100));
        assert_eq!(
            (stream(&postings, "bern", &one), postings.len()),
            (vec![(200, 1)], 1)
        );
    }
}
