//! What the operators of the story defined, as the model remembers it: publications by version, the makings of a
//! pair, subscriptions as ranges. And from it, what of a publisher's log is due at which place, written as plainly
//! as `docs/replication.md` says it, without a queue, positions or messages.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use milepost_engine::Lsn;
use milepost_replication::message::Place;

use super::logged::{Logged, Told};

/// What subscribers of a publication choose by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Nothing,
    /// The second segment of the stream's name.
    Segment,
    /// The header `region`.
    Region,
}

/// Names of publications, each with what it is chosen by for ever.
pub const PUBLICATIONS: [(&str, By); 4] = [
    ("all", By::Nothing),
    ("some", By::Nothing),
    ("by-segment", By::Segment),
    ("by-region", By::Region),
];

/// A publication from one position to the next change.
#[derive(Clone, Debug)]
pub struct Version {
    /// For transactions behind this LSN.
    pub since: Lsn,
    /// None where it was removed.
    pub patterns: Vec<&'static str>,
    /// Empty for all.
    pub kinds: Vec<&'static str>,
}

pub type Publications = BTreeMap<&'static str, Vec<Version>>;

#[derive(Clone, Debug)]
pub struct Subscribed {
    pub id: Lsn,
    pub publication: &'static str,
    pub by: By,
    pub value: Option<String>,
    pub from: Lsn,
    pub until: Option<Lsn>,
    /// Where it was revoked, and how far anything had been sent then.
    pub revoked: Option<(Lsn, Place)>,
    /// What it wants before it begins was in the subscriber's store when that was made, chosen by the publication as it stood
    /// when the subscription began.
    pub is_copied: bool,
}

/// A pair of neighbours, seen from the publisher's side, from one `remote add` to the next `remote remove` there.
#[derive(Clone, Debug)]
pub struct Making {
    /// The generation that the publisher proposed; the subscriber may raise it.
    pub generation: u32,
    /// Which of all makings of the story it is.
    pub number: u64,
    pub subscriptions: Vec<Subscribed>,
    /// How far anything had been sent under it when the remote was removed.
    pub removed: Option<Place>,
    /// The subscriber's store was made in place of another one: all that had come from it in this range of the publisher's log.
    pub returned: Option<(Lsn, Lsn)>,
    /// The publisher's store was lost later: what it had defined, and its log.
    pub lost: Option<Rc<(Publications, Vec<Logged>)>>,
}

/// What one place of a stream brings of a transaction.
#[derive(Clone, Debug)]
pub struct Due {
    pub origin: (String, Lsn),
    /// Ordinals that must arrive.
    pub must: BTreeSet<u32>,
    /// Ordinals that may: those, and what was sent before it was revoked or its pair removed.
    pub may: BTreeSet<u32>,
}

impl Making {
    /// Everything that the publisher's log holds for `subscriber`, by place.
    pub fn due(&self, publications: &Publications, log: &[Logged], subscriber: &str) -> BTreeMap<Place, Due> {
        let mut found: BTreeMap<Place, Due> = BTreeMap::new();
        let came_from_it = |one: &Logged| one.via.as_ref().is_some_and(|(via, _, _)| via == subscriber);
        for one in log.iter().filter(|one| one.is_applied()) {
            let comes_from_it = came_from_it(one);
            if comes_from_it
                && self
                    .returned
                    .is_none_or(|(from, to)| one.lsn < from || one.lsn >= to)
            {
                continue;
            }
            for (ordinal, event) in &one.events {
                let places = match comes_from_it {
                    true => vec![(Place::live(one.lsn), None)],
                    false => self.places(publications, one.lsn, event),
                };
                for (place, revoked) in places {
                    let limit = match (self.removed, revoked) {
                        (Some(removed), Some((_, sent))) => Some(removed.min(sent)),
                        (removed, revoked) => removed.or(revoked.map(|(_, sent)| sent)),
                    };
                    if limit.is_some_and(|limit| place > limit) {
                        continue;
                    }
                    let due = found.entry(place).or_insert_with(|| Due {
                        origin: one.origin.clone(),
                        must: BTreeSet::new(),
                        may: BTreeSet::new(),
                    });
                    due.may.insert(*ordinal);
                    if limit.is_none() {
                        due.must.insert(*ordinal);
                    }
                }
            }
        }
        found
    }

    /// Where an event is due: the first subscription that wants it gives it a place, and it has no second while one
    /// wants it. Each place with the moment when the last of those was revoked, if all are.
    fn places(
        &self,
        publications: &Publications,
        lsn: Lsn,
        event: &Told,
    ) -> Vec<(Place, Option<(Lsn, Place)>)> {
        let mut places: Vec<(Place, Option<(Lsn, Place)>)> = Vec::new();
        let live = |one: &&Subscribed| {
            one.covers_live(publications, lsn, event)
                || one.is_copied && one.covers_before(publications, lsn, event)
        };
        let history = |one: &&Subscribed| !one.is_copied && one.covers_before(publications, lsn, event);
        let (at, back) = (lsn, Lsn::ZERO);
        for one in self.subscriptions.iter().filter(live) {
            match places.last_mut() {
                Some((_, last)) => *last = later(*last, one.revoked),
                None => places.push((Place { at, back }, one.revoked)),
            }
        }
        for one in self.subscriptions.iter().filter(history) {
            match places.last_mut() {
                Some((_, last)) if last.is_none_or(|(revoked, _)| revoked > one.id) => {
                    *last = later(*last, one.revoked);
                }
                _ => {
                    let (at, back) = (one.id, lsn);
                    places.push((Place { at, back }, one.revoked));
                }
            }
        }
        places
    }
}

/// The later of two ends; none is the latest.
fn later(one: Option<(Lsn, Place)>, other: Option<(Lsn, Place)>) -> Option<(Lsn, Place)> {
    one.zip(other).map(|(one, other)| one.max(other))
}

impl Subscribed {
    fn covers_live(&self, publications: &Publications, lsn: Lsn, event: &Told) -> bool {
        let within = self.id < lsn && self.until.is_none_or(|until| lsn < until);
        within && self.selects(publications, lsn, event)
    }

    fn covers_before(&self, publications: &Publications, lsn: Lsn, event: &Told) -> bool {
        self.from <= lsn && lsn < self.id && self.selects(publications, self.id, event)
    }

    /// By the publication in force for a transaction at `at`.
    fn selects(&self, publications: &Publications, at: Lsn, event: &Told) -> bool {
        let versions = publications.get(self.publication).into_iter().flatten();
        let Some(version) = versions.rev().find(|version| version.since < at) else {
            return false;
        };
        let value = match self.by {
            By::Nothing => None,
            By::Segment => event.stream.split('/').nth(1).map(str::to_owned),
            By::Region => event.region.clone(),
        };
        version
            .patterns
            .iter()
            .any(|pattern| matches(pattern, &event.stream))
            && (version.kinds.is_empty() || version.kinds.contains(&event.kind.as_str()))
            && value == self.value
    }
}

/// `*` is one segment, `**` any number.
fn matches(pattern: &str, stream: &str) -> bool {
    fn go(pattern: &[&str], stream: &[&str]) -> bool {
        match (pattern.split_first(), stream.split_first()) {
            (None, None) => true,
            (Some((&"**", rest)), _) => (0..=stream.len()).any(|skipped| go(rest, &stream[skipped..])),
            (Some((&"*", rest)), Some((_, behind))) => go(rest, behind),
            (Some((want, rest)), Some((have, behind))) if want == have => go(rest, behind),
            _ => false,
        }
    }
    go(
        &pattern.split('/').collect::<Vec<_>>(),
        &stream.split('/').collect::<Vec<_>>(),
    )
}
